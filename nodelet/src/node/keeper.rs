//! Registers the node and keeps its object current.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use parking_lot::Mutex;
use peapod_api::attach::PodNetwork;
use peapod_api::{conditions, k8s_openapi};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::conditions::{Health, conditions};
use super::{facts, lease, object};
use crate::config::Config;
use crate::devices::pool::Counts;
use crate::eviction::Watch;
use crate::pods::notes::seconds_of;
use crate::runtime::RuntimeEvent;
use crate::shutdown;

/// Between two renewals of the Lease, and two looks at what is left.
const BEAT: Duration = Duration::from_secs(10);
/// Longest time without a status.
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// Longest time for the runtime to say that it is well.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time for the API to answer. Then the connection is taken for dead, as it is when the
/// network was away for a while, and the next request goes by another one.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the first status waits for the network to be known.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// After a failed registration.
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

/// What others hold of the node, and its status tells.
pub struct Held {
    /// The devices that plugins bring.
    pub devices: watch::Receiver<Counts>,
    /// The volumes that must not be detached.
    pub in_use: watch::Receiver<BTreeSet<String>>,
}

/// Keeps the Node.
pub struct Keeper {
    config: Config,
    client: Client,
    network: Arc<dyn PodNetwork>,
    node: watch::Sender<Arc<Node>>,
    runtime_fault: Option<String>,
    network_fault: Option<String>,
    reported: Option<(NodeStatus, Instant)>,
    held: Held,
    /// Whether the machine is about to go down.
    going: watch::Receiver<bool>,
    /// What must be left of the node.
    watch: Mutex<Watch>,
    image_dir: PathBuf,
    /// Where the kubelet API is, of this run and not of one before.
    port: Option<u16>,
}

/// Whether somebody has written that nothing is heard of the node.
fn is_missed(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let mut all = conditions.unwrap_or_default().iter();
    all.any(|one| one.type_ == "Ready" && one.status == "Unknown")
}

/// The node as it will be registered: what pods are admitted to until the API has it.
pub async fn describe(config: &Config, port: Option<u16>) -> Node {
    let facts = facts::facts(&config.data_dir);
    let info = config.runtime.info().await.unwrap_or_default();
    object::node(config, &facts, &info, port)
}

impl Keeper {
    /// A keeper that tells of the node through `node`.
    pub fn new(
        config: Config,
        client: Client,
        network: Arc<dyn PodNetwork>,
        node: watch::Sender<Arc<Node>>,
        held: Held,
        going: watch::Receiver<bool>,
    ) -> Self {
        let port = node.borrow().status.as_ref().and_then(port_of);
        Self {
            port,
            watch: Mutex::new(Watch::new(config.kubelet.thresholds())),
            image_dir: config.data_dir.clone(),
            config,
            client,
            network,
            node,
            held,
            going,
            runtime_fault: None,
            network_fault: Some(
                "network plugin is not ready: no addresses for pods yet".to_owned(),
            ),
            reported: None,
        }
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let own = self.node.borrow().clone();
        while let Err(error) = self.register(&own).await {
            tracing::warn!(%error, "cannot register the node; trying again");
            tokio::time::sleep(REGISTER_AGAIN).await;
        }
        self.image_dir = self.config.image_dir().await;
        let runtime = self.config.runtime.clone();
        let mut events = runtime.events();
        let (tell, mut network) = watch::channel(self.network_fault.clone());
        let mut watching = std::pin::pin!(network_ready(self.network.clone(), tell));
        // A node that comes back to a network that works is not to say first that it has none.
        let known = tokio::time::timeout(FIRST_LOOK, &mut watching).await;
        let mut network_known = known.is_ok();
        self.network_fault = match network_known {
            true => None,
            false => network.borrow_and_update().clone(),
        };
        let mut watched = self.watch();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    self.check_runtime().await;
                    self.renew().await;
                }
                () = &mut watching, if !network_known => {
                    network_known = true;
                    self.network_fault = None;
                }
                Ok(()) = self.held.devices.changed() => {}
                Ok(()) = self.held.in_use.changed() => {}
                Ok(()) = self.going.changed() => {}
                Ok(()) = network.changed() => {
                    self.network_fault = network.borrow().clone();
                }
                () = runtime_changed(&mut events) => self.check_runtime().await,
                event = watched.try_next() => {
                    let Ok(Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node))) = event else {
                        continue;
                    };
                    let missed = is_missed(&node);
                    let advertised = self.learn(node);
                    if missed {
                        self.reported = None;
                    }
                    if !missed && !advertised {
                        continue;
                    }
                }
            }
            self.report().await;
        }
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn watch(
        &self,
    ) -> impl futures::Stream<Item = watcher::Result<watcher::Event<Node>>> + Unpin + use<> {
        let fields = format!("metadata.name={}", self.config.node_name);
        let config = watcher::Config::default().fields(&fields).streaming_lists();
        watcher(self.api(), config).default_backoff().boxed()
    }

    /// Takes in what the API has; tells whether its capacity is another, so that there may be
    /// something to report.
    fn learn(&self, node: Node) -> bool {
        let capacity = |node: &Node| node.status.as_ref().and_then(|s| s.capacity.clone());
        let news = capacity(&node);
        let before = self.node.send_replace(Arc::new(node));
        capacity(&before) != news
    }

    /// Makes the Node, or puts its labels right.
    async fn register(&mut self, own: &Node) -> Result<(), kube::Error> {
        match self.api().create(&PostParams::default(), own).await {
            Ok(made) => {
                self.node.send_replace(Arc::new(made));
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        let labels = json!({"metadata": {"labels": own.metadata.labels}});
        let patch = Patch::Merge(labels);
        let name = &self.config.node_name;
        self.api()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .map(drop)
    }

    async fn check_runtime(&mut self) {
        let ready = self.config.runtime.ready();
        self.runtime_fault = match tokio::time::timeout(RUNTIME_TIMEOUT, ready).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("container runtime is down: {error}")),
            Err(_) => Some(format!(
                "container runtime is down: containerd has not answered for {RUNTIME_TIMEOUT:?}; \
                 see its log, and restart it if it hangs (containers run on)"
            )),
        };
    }

    async fn renew(&mut self) {
        let uid = self.node.borrow().uid();
        let name = &self.config.node_name;
        let renewal = lease::renew(&self.client, name, uid.as_deref());
        match tokio::time::timeout(ANSWER, renewal).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "cannot renew the node's lease"),
            Err(_) => tracing::debug!("the API does not answer the renewal of the node's lease"),
        }
        // Who was not heard of is taken for gone: the status is written as soon as it can be.
        self.reported = None;
    }

    /// Writes the status, if it has changed or is due.
    async fn report(&mut self) {
        let now = seconds_of(Timestamp::now());
        let mut status = self.status(now).await;
        let due = match &self.reported {
            Some((reported, at)) => {
                keep_transitions(&mut status, reported);
                at.elapsed() >= STATUS_EVERY || differs(reported, &status)
            }
            None => {
                if let Some(old) = &self.node.borrow().status {
                    keep_transitions(&mut status, old);
                }
                true
            }
        };
        if !due {
            return;
        }
        let known = self.node.borrow().status.clone().unwrap_or_default();
        let patch = Patch::Strategic(patch(&status, &known));
        let name = &self.config.node_name;
        let (api, params) = (self.api(), PatchParams::default());
        let writing = api.patch_status(name, &params, &patch);
        let Ok(written) = tokio::time::timeout(ANSWER, writing).await else {
            return tracing::debug!("the API does not answer the node's status");
        };
        match written {
            Ok(_) => self.reported = Some((status, Instant::now())),
            Err(kube::Error::Api(gone)) if gone.code == 404 => {
                tracing::warn!("the node was deleted; registering it again");
                let own = describe(&self.config, port_of(&status)).await;
                if let Err(error) = self.register(&own).await {
                    tracing::warn!(%error, "cannot register the node");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot write the node's status"),
        }
    }

    /// The status now. What rarely changes is looked at only when a status is due anyway.
    async fn status(&self, now: Timestamp) -> NodeStatus {
        let known = self
            .reported
            .as_ref()
            .filter(|(_, at)| at.elapsed() < STATUS_EVERY);
        let described = match known {
            Some((status, _)) => status.clone(),
            None => self.described().await,
        };
        let going = self.going.borrow().then(|| shutdown::GOING.to_owned());
        let faults = [&self.runtime_fault, &self.network_fault, &going];
        let left = facts::left(&self.config.data_dir, &self.image_dir);
        let health = Health {
            pressure: self.watch.lock().look(&left, now).pressure,
            faults: faults.into_iter().flatten().cloned().collect(),
        };
        let devices = self.held.devices.borrow().clone();
        let in_use = self.held.in_use.borrow().iter().cloned().collect();
        let known = self.node.borrow().status.clone().unwrap_or_default();
        let described = object::with_devices(described, &devices);
        NodeStatus {
            conditions: Some(conditions(&health, now)),
            volumes_in_use: Some(in_use),
            ..object::with_advertised(described, &known, &devices)
        }
    }

    async fn described(&self) -> NodeStatus {
        let own = self.node.borrow().status.clone().unwrap_or_default();
        let port = self.port.or_else(|| port_of(&own));
        let described = describe(&self.config, port)
            .await
            .status
            .unwrap_or_default();
        let images = self.config.runtime.images().list().await;
        NodeStatus {
            images: images.ok().map(object::images).or(own.images),
            ..described
        }
    }
}

/// The patch that writes a status over the known one. Addresses are merged by their type, of which a
/// node with two families has two: they are replaced as a whole. What may no longer be allocated is
/// named, since what is not said stays.
fn patch(status: &NodeStatus, known: &NodeStatus) -> Value {
    let mut patch = json!({"status": status});
    let allocatable = status.allocatable.iter().flatten();
    let kept: BTreeSet<&String> = allocatable.map(|(name, _)| name).collect();
    for (name, _) in known.allocatable.iter().flatten() {
        if !kept.contains(name) {
            patch["status"]["allocatable"][name] = Value::Null;
        }
    }
    if let Some(addresses) = patch["status"]["addresses"].as_array_mut() {
        addresses.insert(0, json!({"$patch": "replace"}));
    }
    patch
}

fn port_of(status: &NodeStatus) -> Option<u16> {
    let endpoint = status
        .daemon_endpoints
        .as_ref()?
        .kubelet_endpoint
        .as_ref()?;
    u16::try_from(endpoint.port).ok()
}

/// Conditions that have not changed keep the time since when they are so.
fn keep_transitions(status: &mut NodeStatus, before: &NodeStatus) {
    let mut kept = before.conditions.clone().unwrap_or_default();
    for condition in status.conditions.take().unwrap_or_default() {
        conditions::set(&mut kept, condition);
    }
    status.conditions = Some(kept);
}

/// Whether two statuses say different things, apart from when they were said.
fn differs(before: &NodeStatus, now: &NodeStatus) -> bool {
    let timeless = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    timeless(before) != timeless(now)
}

/// Waits for the network, and tells why it is not ready.
async fn network_ready(network: Arc<dyn PodNetwork>, tell: watch::Sender<Option<String>>) {
    while let Err(error) = network.ready().await {
        let fault = Some(format!("network plugin is not ready: {error}"));
        let news = tell.send_if_modified(|told| {
            let news = *told != fault;
            *told = fault;
            news
        });
        if news {
            tracing::warn!(%error, "the pod network is not ready");
        }
        tokio::time::sleep(REGISTER_AGAIN).await;
    }
}

/// Waits until the runtime has come or gone.
async fn runtime_changed(events: &mut broadcast::Receiver<RuntimeEvent>) {
    loop {
        match events.recv().await {
            Ok(RuntimeEvent::Connected | RuntimeEvent::Disconnected)
            | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
