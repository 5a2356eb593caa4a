//! `peapod down`: stops the instance and its containers, and puts the machine's network back;
//! with `--purge` nothing of it stays.
//!
//! Works as well on an instance that has crashed: it goes by what the data directory says, not
//! by the process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peapod_nodelet::cni::CniNetwork;
use peapod_nodelet::runtime::containerd::launch::{self, SYSTEM_SOCKET};
use peapod_nodelet::runtime::containerd::purge;

use super::settings::{self, Settings};
use super::state::{InstanceLock, State};
use super::{Layout, preflight, unit};
use crate::cli::{DataDir, single_threaded};
use crate::fabric;
use crate::roles::containerd;
use crate::roles::node::NodeSettings;
use crate::terminal::Steps;

/// A stop that takes longer is ended by force.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The arguments of `peapod down`.
#[derive(Clone, Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    data_dir: DataDir,
    /// Remove all state too: objects, volumes, images, keys
    #[arg(long)]
    purge: bool,
}

/// Runs `peapod down`.
pub fn down(args: &DownArgs) -> Result<()> {
    preflight::root()?;
    let layout = Layout::new(&args.data_dir.data_dir)?;
    if !layout.run().exists() {
        println!("nothing of peapod is in {}.", layout.root().display());
        return Ok(());
    }
    let steps = Steps::new();
    steps.begin("stopping peapod");
    // Held to the end: no `up` may begin while this goes on.
    let _lock = stop_process(&layout)?;
    let _netd_lock = stop_netd(&layout)?;
    let socket = containerd_socket(&layout)?;
    steps.begin("stopping containers");
    // While the namespaces are there: else plugins leave what they made for them on the node.
    single_threaded()?.block_on(release_by_plugins(&layout))?;
    let stopped = single_threaded()?.block_on(stop_containers(&layout, socket, args.purge));
    steps.begin("restoring the network");
    restore_network(&layout)?;
    // Last of all: a containerd that is gone keeps nothing of ours on the machine but what is in it.
    stopped.context("not everything of the containers is gone; then run this again")?;
    if args.purge {
        if uses_default_unit(&layout) {
            unit::disable()?;
        }
        remove_data(layout.root())?;
    }
    steps.finish();
    match args.purge {
        true => println!("peapod is down, and nothing of it is left."),
        false => println!("peapod is down; `peapod up` brings the cluster back as it was."),
    }
    Ok(())
}

/// Only the default data directory's instance has the unit.
fn uses_default_unit(layout: &Layout) -> bool {
    layout.root() == Path::new(super::layout::DEFAULT_DATA_DIR)
}

/// Ends the instance's process and takes its lock.
fn stop_process(layout: &Layout) -> Result<InstanceLock> {
    if let Some(lock) = InstanceLock::take(layout)? {
        return Ok(lock);
    }
    let Some(state) = State::read(layout)? else {
        bail!("an instance is just starting; run this again when `peapod up` is done");
    };
    end(state.pid, &layout.lock())
}

/// Ends a network agent that runs apart, and takes its lock.
fn stop_netd(layout: &Layout) -> Result<InstanceLock> {
    let path = layout.netd_lock();
    if let Some(lock) = InstanceLock::take_file(layout, &path)? {
        return Ok(lock);
    }
    let Some(pid) = InstanceLock::signer(&path) else {
        bail!("the network agent is just starting; run this again in a moment");
    };
    end(pid, &path)
}

/// Ends a process by its lock: gently first, then by force.
fn end(pid: i32, lock: &Path) -> Result<InstanceLock> {
    let pid = Pid::from_raw(pid);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // It may have ended in between; the lock tells.
        let _ = kill(pid, signal);
        if let Some(lock) = InstanceLock::wait_file(lock, STOP_LIMIT)? {
            return Ok(lock);
        }
    }
    bail!("process {pid} does not end even when it is killed; see its state in /proc/{pid}/status")
}

/// The containerd that holds the node's containers: the instance's last, if it is known.
fn containerd_socket(layout: &Layout) -> Result<Option<PathBuf>> {
    if let Some(state) = State::read(layout)? {
        return Ok(state.has_node().then_some(state.containerd));
    }
    let private = launch::private_socket(&layout.containerd());
    let system = PathBuf::from(SYSTEM_SOCKET);
    Ok([private, system].into_iter().find(|socket| socket.exists()))
}

/// Has CNI plugins release what they attached, if they did.
async fn release_by_plugins(layout: &Layout) -> Result<()> {
    let settings = settings::read_json::<Settings>(&layout.settings())?;
    let node = settings::read_json::<NodeSettings>(&layout.node_settings())?;
    let own = settings.and_then(|settings| settings.cni);
    let Some(cni) = node.and_then(|node| node.cni).or(own) else {
        return Ok(());
    };
    let plugins = CniNetwork::new(cni.dirs(), &layout.cni(), None)?;
    for fault in plugins.release_all().await {
        println!("warning: {fault}");
    }
    Ok(())
}

/// Ends the containers and lets go of what they use. The first fault is told when the rest is done.
async fn stop_containers(layout: &Layout, socket: Option<PathBuf>, everything: bool) -> Result<()> {
    let private = launch::private_socket(&layout.containerd());
    let mut outcome = Ok(());
    if let Some(socket) = socket {
        if socket == private && launch::running_pid(&layout.containerd()).is_none() {
            outcome = containerd::start_private(&layout.containerd())
                .await
                .map(drop);
        }
        for node in layout.of_nodes() {
            let config = node.runtime(socket.clone());
            let ended = match everything {
                true => purge::purge(&config).await,
                false => purge::stop(&config).await,
            };
            outcome = outcome.and(ended);
        }
    }
    for node in layout.of_nodes() {
        for fault in peapod_nodelet::release_volumes(&node.node()).await {
            println!("warning: a storage driver holds on to what this node had of it: {fault}");
        }
        peapod_nodelet::cleanup(&node.node())?;
    }
    launch::stop(&layout.containerd()).await?;
    Ok(outcome?)
}

fn restore_network(layout: &Layout) -> Result<()> {
    let settings = settings::read_json::<Settings>(&layout.settings())?;
    let node = settings::read_json::<NodeSettings>(&layout.node_settings())?;
    if node.is_none()
        && settings
            .as_ref()
            .is_some_and(|settings| settings.node.is_empty())
    {
        // A server alone leaves the network as it is.
        return Ok(());
    }
    let dns = match &node {
        Some(node) => Some(node.cluster.dns),
        None => settings.as_ref().map(Settings::dns_address).transpose()?,
    };
    if settings
        .as_ref()
        .is_some_and(|settings| settings.network.is_some())
    {
        single_threaded()?.block_on(fabric::lower(&fabric::id(layout.root())))?;
        peapod_netd::links::sysctl::restore(&layout.network())?;
        return Ok(());
    }
    peapod_netd::cleanup(dns.as_slice(), &layout.network())?;
    if let Some(address) = settings.and_then(|settings| settings.node_ip) {
        peapod_netd::node_address::remove(address)?;
    }
    Ok(())
}

/// Removes the data directory; what is mounted below it would be somebody's data, and stops this.
fn remove_data(root: &Path) -> Result<()> {
    let mounts =
        std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4));
    let below: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(root) && Path::new(point) != root)
        .collect();
    if let Some(point) = below.first() {
        bail!("{point} is still mounted below the data directory; unmount it, then run this again");
    }
    let entries =
        std::fs::read_dir(root).with_context(|| format!("cannot read {}", root.display()))?;
    for entry in entries {
        let path = entry?.path();
        let removed = match path.is_dir() && !path.is_symlink() {
            true => std::fs::remove_dir_all(&path),
            false => std::fs::remove_file(&path),
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    // A directory that others use too (a mount point, a test's) may stay, empty.
    let _ = std::fs::remove_dir(root);
    Ok(())
}
