//! The tasks of a node agent and how they are wired.
//!
//! ```text
//!                        ┌───────────── API ─────────────┐
//!            pods of this node │           │ Node, Lease    │ volumes being deleted
//!                        ┌─────▼────┐ ┌────▼───┐       ┌────▼────┐
//!   runtime events ────► │ manager  │ │ keeper │       │ reclaim │
//!                        └─────┬────┘ └────────┘       └─────────┘
//!                      Message │  (one worker for each pod)
//!                        ┌─────▼────┐   Table    ┌────────┐
//!                        │ workers  │ ─────────► │ server │ ◄── API server: logs, exec ...
//!                        └────┬─────┘            └────────┘
//!                             ▼ give
//!                        ┌──────────┐ counts ┌────────┐
//!    device plugins ───► │ devices  │ ─────► │ keeper │ ◄── in use ── csi
//!                        └──────────┘        └────────┘
//!    monitors ─────────► pod_resources: who holds what
//!    storage drivers ──► registration, unmount (see [`csi`])
//! ```
//!
//! All end with the future of [`run`]; containers run on.

use std::sync::Arc;

use kube::Client;
use parking_lot::Mutex;
use peapod_api::attach::PodNetwork;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::cpus::Cpus;
use crate::csi::{self, Csi};
use crate::devices::{Devices, pod_resources, registration};
use crate::error::Error;
use crate::eviction;
use crate::node::keeper::{self, Held, Keeper};
use crate::objects::Objects;
use crate::pods::context::Limits;
use crate::pods::manager::Manager;
use crate::pods::notes::Notes;
use crate::pods::{Context, Table};
use crate::probes::Prober;
use crate::server::Server;
use crate::shutdown;
use crate::volumes::{mounts, reclaim};

/// Runs a node agent until it is told to shut down. Containers run on after it.
pub async fn run(
    client: Client,
    config: Config,
    network: Arc<dyn PodNetwork>,
    stop: CancellationToken,
) -> Result<(), Error> {
    if config.node_ips.is_empty() {
        return Err(Error::Config("it has no address; name one".to_owned()));
    }
    for dir in [&config.data_dir, &config.log_dir] {
        std::fs::create_dir_all(dir).map_err(|source| Error::Directory {
            path: dir.display().to_string(),
            source,
        })?;
    }
    let server = match &config.server {
        Some(server) => Some(Server::bind(config.node_ips[0], server).await?),
        None => None,
    };
    let port = server.as_ref().map(Server::port);
    let (node, watched) = watch::channel(Arc::new(keeper::describe(&config, port).await));
    let table = Table::default();
    let devices = Arc::new(Devices::open(config.data_dir.join("device-plugins")));
    let csi = Csi::open(&config.data_dir);
    let (drivers, in_use) = (csi.drivers.clone(), csi.store.in_use());
    let prepared = csi.drivers.layout.prepare();
    prepared.map_err(|source| Error::Directory {
        path: config.data_dir.display().to_string(),
        source,
    })?;
    let context = Arc::new(Context {
        client: client.clone(),
        runtime: config.runtime.clone(),
        images: config.runtime.images(),
        network: network.clone(),
        objects: Objects::new(client.clone()),
        notes: Notes::start(client.clone(), &config.node_name),
        prober: Prober::new().map_err(Error::Prober)?,
        node: watched,
        limits: Limits::default(),
        cpus: Cpus::open(&config.kubelet, config.data_dir.join("cpus.json")),
        devices: devices.clone(),
        csi,
        table: table.clone(),
        admission: Mutex::default(),
        room: watch::Sender::new(()),
        going: watch::Sender::new(false),
        config: config.clone(),
    });
    let mut tasks = JoinSet::new();
    let folder = config.local_volumes_dir.clone();
    tasks.spawn(reclaim::run(
        client.clone(),
        config.node_name.clone(),
        folder,
    ));
    // A node that is not to be asked (a hollow one) has no drivers either.
    if let Some(server) = server {
        let told = (client.clone(), config.node_name.clone());
        tasks.spawn(csi::registration::run(drivers.clone()));
        tasks.spawn(csi::unmount::run(context.clone()));
        if let Err(error) = mounts::share(&config.data_dir) {
            tracing::warn!(%error, "what CSI drivers mount in pods is not seen outside of them");
        }
        tasks.spawn(csi::csi_node::run(
            told.0,
            told.1,
            drivers,
            node.subscribe(),
        ));
        tasks.spawn(pod_resources::run(context.clone()));
        tasks.spawn(server.run(context.clone(), table.clone()));
    }
    let counts = devices.counts();
    tasks.spawn(registration::run(devices));
    let held = Held {
        devices: counts,
        in_use,
    };
    let going = context.going.subscribe();
    tasks.spawn(Keeper::new(config, client, network, node, held, going).run());
    tasks.spawn(shutdown::run(context.clone(), table.clone()));
    tasks.spawn(eviction::run(context.clone(), table.clone()));
    tasks.spawn(Manager::new(context, table).run());
    tokio::select! {
        () = stop.cancelled() => {}
        Some(ended) = tasks.join_next() => tracing::error!(?ended, "a task of the node agent ended"),
    }
    tasks.shutdown().await;
    Ok(())
}
