//! `peapod netd`: the network agent of a node in a process of its own, beside `peapod node
//! --without netd`. Either may end and start again without the other: pods keep their network, and
//! attachments wait for the agent.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use peapod_api::attach::PodNetwork;

use super::identity::Identity;
use super::node::{self, NodeSettings};
use super::run_node;
use super::tasks::{self, Tasks};
use crate::instance::state::InstanceLock;
use crate::instance::{Layout, layout, preflight};

/// The node agent renews the certificate that both show; what it has not renewed after this time
/// this process does.
const RENEWAL_GRACE: Duration = Duration::from_secs(600);

/// The arguments of `peapod netd`.
#[derive(Clone, Debug, clap::Args)]
pub struct NetdArgs {
    /// Where the node's state lives
    #[arg(long, value_name = "DIR", default_value = layout::DEFAULT_DATA_DIR)]
    data_dir: PathBuf,
}

/// Runs `peapod netd`.
pub fn run(args: &NetdArgs) -> Result<()> {
    preflight::root()?;
    let layout = Layout::new(&args.data_dir)?;
    let node = run_node::settings(&layout)?;
    let Some(mut lock) = InstanceLock::take_file(&layout, &layout.netd_lock())? else {
        bail!(
            "another network agent runs from {}; it holds {}",
            layout.root().display(),
            layout.netd_lock().display()
        );
    };
    lock.sign().context("cannot write the lock")?;
    tasks::run(live(&layout, &node))
}

async fn live(layout: &Layout, node: &NodeSettings) -> Result<()> {
    let mut tasks = Tasks::new()?;
    let identity = Identity::open(layout, &node.name, &node.server)?;
    let client = identity.client();
    tasks.spawn_endless("following the API servers", identity.follow_servers());
    let renewing = identity.renew(RENEWAL_GRACE);
    tasks.spawn_endless("renewing the node's certificate", renewing);
    let netd = node::start_netd(client, node, layout, &tasks).await?;
    tracing::info!(node = node.name, socket = %layout.netd_socket().display(), "answering");
    let mut warnings = netd.warnings();
    let ready = netd.clone();
    let mut ready = std::pin::pin!(ready.ready());
    let mut told = false;
    let outcome = loop {
        tokio::select! {
            ended = tasks.ended() => break ended,
            _ = &mut ready, if !told => {
                told = true;
                tracing::info!("pods can be attached");
            }
            Ok(()) = warnings.changed() => {
                for warning in warnings.borrow_and_update().iter() {
                    tracing::warn!("{warning}");
                }
            }
        }
    };
    tracing::info!("stopping; links, routes and rules stay as they are");
    tasks.stop().await;
    netd.stop().await;
    outcome
}
