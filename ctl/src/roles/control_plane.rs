//! The parts that a cluster has once: the API server, the controllers, the scheduler.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use kube::Client;
use peapod_apiserver::ApiServer;
use peapod_election::{Election, lead};
use tokio::net::TcpListener;

use super::tasks::Tasks;
use crate::instance::api_flags::ApiFlags;
use crate::instance::settings::{self, Settings};

/// Starts the API server; it serves clients in this process at once.
pub async fn start_api(
    settings: &Settings,
    data_dir: &std::path::Path,
    advertise: IpAddr,
    flags: &ApiFlags,
) -> Result<Arc<ApiServer>> {
    let mut config = peapod_apiserver::Config::new(data_dir);
    config.service_cidrs = settings.service_cidrs.clone();
    config.cluster_domain = settings.cluster_domain.clone();
    config.advertise_address = advertise;
    config.secure_port = settings.listen.port();
    config.git_commit = env!("PEAPOD_GIT_COMMIT").to_owned();
    flags.apply(&mut config)?;
    Ok(Arc::new(ApiServer::start(config).await?))
}

/// Serves others: on the address for the user, and on the one for pods and nodes.
pub async fn serve_api(
    server: &Arc<ApiServer>,
    settings: &Settings,
    advertise: IpAddr,
    tasks: &mut Tasks,
) -> Result<()> {
    let mut addresses = vec![settings.listen];
    let advertised = SocketAddr::new(advertise, settings.listen.port());
    if !settings.listen.ip().is_unspecified() && advertised != settings.listen {
        addresses.push(advertised);
    }
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; pass --listen with another port")
        })?;
        listeners.push(listener);
    }
    let (server, shutdown) = (Arc::clone(server), tasks.shutdown.clone());
    tasks.spawn("the API server", async move {
        server.serve(listeners, shutdown).await
    });
    Ok(())
}

/// The address that programs on this machine reach the API at.
pub fn local_url(settings: &Settings) -> String {
    let mut reachable = settings.listen;
    if reachable.ip().is_unspecified() {
        reachable.set_ip(IpAddr::from([127, 0, 0, 1]));
    }
    format!("https://{reachable}")
}

/// Writes the administrator's kubeconfig to files.
pub fn write_kubeconfig(server: &ApiServer, settings: &Settings, paths: &[PathBuf]) -> Result<()> {
    let text = server.admin_kubeconfig(&local_url(settings))?;
    for path in paths {
        settings::write_private(path, text.as_bytes())?;
    }
    Ok(())
}

/// Runs the controllers; in turns with other processes, when it is given who this one is.
pub fn spawn_controllers(
    client: Client,
    config: peapod_controllers::Config,
    candidate: Option<String>,
    tasks: &mut Tasks,
) {
    let (part, stop) = ("the controllers", tasks.shutdown.clone());
    match candidate {
        None => tasks.spawn(part, peapod_controllers::run(client, config, stop)),
        Some(identity) => {
            let election = Election::new("kube-controller-manager", identity);
            let elector = client.clone();
            let work = move |turn| peapod_controllers::run(client.clone(), config.clone(), turn);
            tasks.spawn(part, lead(elector, election, stop, work));
        }
    }
}

/// Runs the scheduler; in turns with other processes, when it is given who this one is.
pub fn spawn_scheduler(
    client: Client,
    config: peapod_scheduler::Config,
    candidate: Option<String>,
    tasks: &mut Tasks,
) {
    let (part, stop) = ("the scheduler", tasks.shutdown.clone());
    match candidate {
        None => tasks.spawn(part, peapod_scheduler::run(client, config, stop)),
        Some(identity) => {
            let election = Election::new("kube-scheduler", identity);
            let elector = client.clone();
            let work = move |turn| peapod_scheduler::run(client.clone(), config.clone(), turn);
            tasks.spawn(part, lead(elector, election, stop, work));
        }
    }
}

/// What controllers cut from the ranges of pod addresses.
pub fn block_ranges(cidrs: &[IpNet]) -> Vec<peapod_controllers::BlockRange> {
    cidrs.iter().copied().map(block_range).collect()
}

/// A node gets a /24 of IPv4 and a /64 of IPv6, or all of a smaller range.
fn block_range(cidr: IpNet) -> peapod_controllers::BlockRange {
    let usual = if cidr.addr().is_ipv4() { 24 } else { 64 };
    peapod_controllers::BlockRange {
        cidr,
        block_prefix: usual.max(cidr.prefix_len()),
    }
}
