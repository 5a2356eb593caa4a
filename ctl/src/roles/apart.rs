//! `peapod controllers` and `peapod scheduler`: each in a process of its own, a client of the API
//! server by a kubeconfig, as `peapod server` writes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::control_plane;
use super::tasks::{self, Tasks};
use crate::instance::{Layout, layout};

/// The arguments of `peapod scheduler`.
#[derive(Clone, Debug, clap::Args)]
pub struct SchedulerArgs {
    /// Who it is, and where the API server is
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Lead only in turns with others, by Leases
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

/// The arguments of `peapod controllers`.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllersArgs {
    /// Who they are, and where the API server is
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The CA that is published to every namespace, and that certificates are signed by (PEM)
    #[arg(long, value_name = "FILE")]
    cluster_signing_cert_file: PathBuf,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    cluster_signing_key_file: PathBuf,
    /// Ranges of pod addresses, the preferred family first
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:10:244::/56"
    )]
    cluster_cidr: Vec<IpNet>,
    /// The nodes' data directory, for the volumes of the node-local class
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
    /// How long a node may be silent before it counts as unreachable
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    node_monitor_grace_period: u64,
    /// Lead only in turns with others, by Leases
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    leader_elect: bool,
}

/// Runs `peapod scheduler`.
pub fn scheduler(args: &SchedulerArgs) -> Result<()> {
    tasks::run(async {
        let mut tasks = Tasks::new()?;
        let client = client(&args.kubeconfig).await?;
        let candidate = args.leader_elect.then(candidate).transpose()?;
        let config = peapod_scheduler::Config::default();
        control_plane::spawn_scheduler(client, config, candidate, &mut tasks);
        to_the_end(tasks).await
    })
}

/// Runs `peapod controllers`.
pub fn controllers(args: &ControllersArgs) -> Result<()> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let config = peapod_controllers::Config {
        root_ca_pem: read(&args.cluster_signing_cert_file)?,
        signing_key_pem: read(&args.cluster_signing_key_file)?,
        cluster_cidrs: control_plane::block_ranges(&args.cluster_cidr),
        local_volumes_dir: Layout::new(&args.data_dir)?.volumes(),
        node_grace: Duration::from_secs(args.node_monitor_grace_period),
        ..Default::default()
    };
    tasks::run(async {
        let mut tasks = Tasks::new()?;
        let client = client(&args.kubeconfig).await?;
        let candidate = args.leader_elect.then(candidate).transpose()?;
        control_plane::spawn_controllers(client, config, candidate, &mut tasks);
        to_the_end(tasks).await
    })
}

/// Who this process is among the candidates for a Lease.
fn candidate() -> Result<String> {
    let host = nix::unistd::gethostname().context("cannot read the host name")?;
    Ok(format!(
        "{}_{}",
        host.to_string_lossy(),
        uuid::Uuid::new_v4()
    ))
}

async fn client(path: &Path) -> Result<Client> {
    let kubeconfig =
        Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
    Ok(Client::try_from(config)?)
}

async fn to_the_end(mut tasks: Tasks) -> Result<()> {
    let outcome = tasks.ended().await;
    tasks.stop().await;
    outcome
}
