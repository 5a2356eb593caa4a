//! `peapod up`: starts the instance in the background and waits until it is ready.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use super::api_flags::ApiFlags;
use super::cni_flags::CniFlags;
use super::runtime_flags::RuntimeFlags;
use super::settings::{self, Settings};
use super::state::InstanceLock;
use super::{Layout, State, daemon, handshake, layout, preflight, unit};
use crate::fabric::plan::{Fabric, NODES_MAX};
use crate::terminal::Steps;

/// The arguments of `peapod up`.
#[derive(Clone, Debug, clap::Args)]
pub struct UpArgs {
    /// Where all state lives
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where the API server listens for you; pods reach it on the node's own address
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// Also write the kubeconfig to this file
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Use the containerd that listens on this socket
    #[arg(long, value_name = "SOCKET")]
    pub containerd: Option<PathBuf>,
    /// Stay in the foreground and log to stderr
    #[arg(long)]
    pub foreground: bool,
    /// Start at boot too, by a systemd unit
    #[arg(long)]
    pub enable: bool,
    /// Name of this machine's node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The node's own address [default: one from --node-cidr]
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<IpAddr>,
    /// Range that the node's own address is chosen from
    #[arg(long, value_name = "CIDR", default_value = "10.254.0.0/16")]
    pub node_cidr: IpNet,
    /// Ranges of pod addresses, the preferred family first
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:10:244::/56"
    )]
    pub pod_cidr: Vec<IpNet>,
    /// UDP port of VXLAN between nodes, where they need it [default: 4789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: Option<u16>,
    /// Ranges of service addresses, the preferred family first
    #[arg(
        long,
        value_name = "CIDR,...",
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:10:96::/112"
    )]
    pub service_cidr: Vec<IpNet>,
    /// How many nodes: more than one are each in a network namespace of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub nodes: Option<u32>,
    /// A fabric of virtual switches between the nodes, which speak BGP; two leaves to a rack
    #[arg(long, value_name = "SPINESxLEAVES")]
    pub fabric: Option<Fabric>,
    /// How long a node may be silent before it counts as unreachable
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    pub node_monitor_grace_period: u64,
    #[command(flatten)]
    pub cni: CniFlags,
    #[command(flatten)]
    pub runtime: RuntimeFlags,
    #[command(flatten)]
    pub api: ApiFlags,
}

/// Runs `peapod up`.
pub fn up(args: &UpArgs) -> Result<()> {
    preflight::root()?;
    let layout = Layout::new(&args.data_dir)?;
    if let Some(state) = State::running(&layout)? {
        println!(
            "peapod already runs here (pid {}, since {}).",
            state.pid, state.started_at
        );
        println!("{}", next_steps(&state));
        return Ok(());
    }
    preflight::check(args.listen)?;
    if args.enable {
        unit::enable(layout.root())?;
    }
    if args.foreground {
        return foreground(args, &layout);
    }
    let mut command: Vec<OsString> = std::env::args_os().skip(1).collect();
    command.push("--foreground".into());
    let state = detach(&layout, &command, "the cluster")?;
    println!(
        "peapod {} is ready: node {} at {}.",
        state.version, state.node, state.node_ip
    );
    for warning in &state.warnings {
        println!("warning: {warning}");
    }
    println!("{}", next_steps(&state));
    Ok(())
}

fn next_steps(state: &State) -> String {
    format!(
        "  export KUBECONFIG={}\n  peapod get pods -A        (or: kubectl get pods -A)",
        state.kubeconfig.display()
    )
}

fn foreground(args: &UpArgs, layout: &Layout) -> Result<()> {
    std::fs::create_dir_all(layout.root()).with_context(|| {
        format!(
            "cannot create the data directory {}",
            layout.root().display()
        )
    })?;
    let mut reporter = handshake::Reporter::from_env();
    let outcome = (|| {
        let Some(lock) = InstanceLock::take(layout)? else {
            bail!(
                "another peapod runs from {}; see `peapod status`",
                layout.root().display()
            );
        };
        let settings = choose_settings(args, layout)?;
        if settings.cni.is_some() && (settings.nodes.unwrap_or(1) > 1 || settings.fabric.is_some())
        {
            bail!(
                "one CNI configuration cannot serve several nodes on one machine; leave out \
                 --cni-conf-dir, or --nodes and --fabric"
            );
        }
        daemon::run(
            daemon::Inputs {
                args,
                layout,
                settings,
                lock,
            },
            &mut reporter,
        )
    })();
    if let Err(error) = &outcome {
        reporter.failed(&crate::terminal::sentence(error));
    }
    outcome
}

/// The settings of an earlier start win over the defaults; a flag that contradicts them is
/// refused, since the stored objects follow them.
fn choose_settings(args: &UpArgs, layout: &Layout) -> Result<Settings> {
    let node = match &args.node_name {
        Some(name) => name.clone(),
        None => settings::node_name()?,
    };
    let wanted = Settings {
        node,
        node_ip: args.node_ip,
        listen: args.listen,
        pod_cidrs: args.pod_cidr.clone(),
        service_cidrs: args.service_cidr.clone(),
        node_cidr: args.node_cidr,
        vxlan_port: args.vxlan_port.unwrap_or_else(settings::vxlan_port),
        cluster_domain: "cluster.local".to_owned(),
        nodes: args.nodes,
        fabric: args.fabric,
        cni: args.cni.settings(),
        runtime: args.runtime.clone(),
        network: None,
        store: Some(args.api.store.describe()),
    };
    let Some(kept) = settings::read_json::<Settings>(&layout.settings())? else {
        return Ok(wanted);
    };
    args.api.store.check_kept(kept.store.as_deref())?;
    kept.check_vxlan_port(args.vxlan_port)?;
    for (flag, was, is) in [
        ("--pod-cidr", &kept.pod_cidrs, &wanted.pod_cidrs),
        ("--service-cidr", &kept.service_cidrs, &wanted.service_cidrs),
    ] {
        if was != is {
            bail!(
                "{flag} differs from what this cluster was made with ({}); keep it, or begin anew after `peapod down --purge`",
                was.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            );
        }
    }
    let again = "begin anew after `peapod down --purge`";
    if args
        .nodes
        .is_some_and(|nodes| nodes != kept.nodes.unwrap_or(1))
    {
        bail!(
            "--nodes differs from what this cluster was made with ({}); keep it, or {again}",
            kept.nodes.unwrap_or(1)
        );
    }
    if args.fabric.is_some() && args.fabric != kept.fabric {
        let was = kept
            .fabric
            .map_or("none".to_owned(), |fabric| fabric.to_string());
        bail!("--fabric differs from what this cluster was made with ({was}); keep it, or {again}");
    }
    let node = args.node_name.clone().unwrap_or(kept.node);
    Ok(Settings {
        node,
        node_ip: args.node_ip.or(kept.node_ip),
        nodes: kept.nodes,
        fabric: kept.fabric,
        cni: wanted.cni.clone().or(kept.cni),
        runtime: wanted.runtime.clone().or(kept.runtime),
        network: kept.network,
        vxlan_port: kept.vxlan_port,
        ..wanted
    })
}

/// Starts the agents of the node of a data directory in the background.
pub fn start_node(layout: &Layout) -> Result<State> {
    let dir = layout.root().as_os_str().to_owned();
    detach(
        layout,
        &["node".into(), "--data-dir".into(), dir],
        "the node",
    )
}

/// Starts a command of this binary in a session of its own, and waits until it is ready.
fn detach(layout: &Layout, command_line: &[OsString], what: &str) -> Result<State> {
    std::fs::create_dir_all(layout.root()).with_context(|| {
        format!(
            "cannot create the data directory {}",
            layout.root().display()
        )
    })?;
    let log = open_log(&layout.log())?;
    let (reader, writer) = nix::unistd::pipe().context("cannot make a pipe")?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    command
        .args(command_line)
        .env(handshake::READY_FD, writer.as_raw_fd().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log));
    keep_across_exec(&mut command, reader.as_raw_fd());
    let mut child = command.spawn().context("cannot start the instance")?;
    drop(writer);
    let steps = Steps::new();
    let outcome = handshake::follow(reader, |step| steps.begin(step));
    steps.finish();
    if outcome.is_err() {
        // It has said why, or it died; either way its end is near and must not leave a zombie.
        child.wait().context("cannot wait for the instance")?;
    }
    outcome.with_context(|| {
        format!(
            "{what} did not start; its log is {}",
            layout.log().display()
        )
    })
}

fn keep_across_exec(command: &mut Command, reader: i32) {
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid and close.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            libc::close(reader);
            Ok(())
        });
    }
}

fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}
