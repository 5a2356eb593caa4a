//! Watches the API and the runtime, and hands what concerns a pod to its worker.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use peapod_api::attach::PodRef;
use peapod_api::k8s_openapi;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::timing::Timing;
use super::worker::{INBOX_MAX, Message, Worker};
use super::{Context, Entry, Table, observe, orphans};
use crate::core::{Action, Machine, Observed, admit};
use crate::node::facts;
use crate::runtime::{self, RuntimeEvent, Sandbox};
use crate::static_pods::{manifest, mirror, source};
use crate::volumes::token::Tokens;

/// After the runtime did not say what it has.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What was on the node when the agent came.
#[derive(Default)]
struct Found {
    containers: HashMap<String, Vec<Observed>>,
    sandboxes: HashMap<String, Sandbox>,
}

// === impl Found ===

impl Found {
    /// The pods, with their names as far as those are known.
    fn pods(self) -> BTreeMap<String, Option<PodRef>> {
        let containers = self.containers.into_keys().map(|uid| (uid, None));
        let sandboxes = self.sandboxes.into_iter();
        let sandboxes = sandboxes.map(|(uid, sandbox)| (uid, Some(sandbox.spec.pod)));
        containers.chain(sandboxes).collect()
    }
}

/// The node's pods.
pub struct Manager {
    context: Arc<Context>,
    table: Table,
    workers: JoinSet<String>,
    found: Found,
    /// Pods of a list that is not complete yet.
    listed: Option<Vec<Pod>>,
    /// Whether what no pod owns has been looked for.
    swept: bool,
    /// The static pods that there should be.
    static_pods: source::Pods,
    _source: Option<AbortOnDropHandle<()>>,
    sets: Option<mpsc::Receiver<source::Pods>>,
}

impl Manager {
    /// A manager whose pods are found in `table`.
    pub fn new(context: Arc<Context>, table: Table) -> Self {
        let (mut source, mut sets) = (None, None);
        if let Some(path) = context.config.kubelet.static_pod_path.clone() {
            let (sender, receiver) = mpsc::channel(1);
            let follow = source::follow(path, context.config.node_name.clone(), sender);
            source = Some(AbortOnDropHandle::new(tokio::spawn(follow)));
            sets = Some(receiver);
        }
        Self {
            static_pods: source::Pods::new(),
            _source: source,
            sets,
            context,
            table,
            workers: JoinSet::new(),
            found: Found::default(),
            listed: None,
            swept: false,
        }
    }

    /// Runs for ever. Dropping it leaves the containers as they are.
    pub async fn run(mut self) {
        let mut events = self.context.runtime.events();
        while let Err(error) = self.look().await {
            tracing::warn!(%error, "cannot take stock of the node's containers; trying again");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        // They are here whatever the API says, and are admitted first.
        if let Some(sets) = &mut self.sets {
            let set = sets.recv().await.unwrap_or_default();
            self.manifests(set).await;
        }
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let fields = format!("spec.nodeName={}", self.context.config.node_name);
        let config = watcher::Config::default().fields(&fields).streaming_lists();
        let mut pods = watcher(api, config).default_backoff().boxed();
        loop {
            tokio::select! {
                event = pods.try_next() => match event {
                    Ok(Some(event)) => self.watched(event).await,
                    Ok(None) => return,
                    Err(error) => tracing::debug!(%error, "watch of the node's pods broke off"),
                },
                event = events.recv() => self.happened(event).await,
                Some(set) = next_set(&mut self.sets) => self.manifests(set).await,
                Some(uid) = self.workers.join_next() => self.ended(uid),
            }
        }
    }

    /// Takes stock of what the runtime has.
    async fn look(&mut self) -> Result<(), runtime::Error> {
        let containers = self.context.runtime.containers().await?;
        let sandboxes = self.context.runtime.sandboxes().await?;
        self.found = Found {
            containers: observe::by_pod(&containers),
            sandboxes: sandboxes
                .into_iter()
                .map(|s| (s.spec.pod.uid.clone(), s))
                .collect(),
        };
        Ok(())
    }

    // === the API ===

    async fn watched(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(Vec::new()),
            watcher::Event::InitApply(pod) => self.listed.get_or_insert_default().push(pod),
            watcher::Event::InitDone => {
                let pods = self.listed.take().unwrap_or_default();
                self.listed_all(pods).await;
            }
            watcher::Event::Apply(pod) => self.desired(pod).await,
            watcher::Event::Delete(pod) => match manifest::mirrored(&pod) {
                Some(uid) => self.send(uid, Message::MirrorGone).await,
                None => {
                    let uid = pod.uid().unwrap_or_default();
                    self.table.note_deleted(&uid);
                    self.send(&uid, Message::Gone).await;
                }
            },
        }
    }

    /// A complete list: what it lacks is gone.
    async fn listed_all(&mut self, mut pods: Vec<Pod>) {
        // What was here first is admitted first.
        pods.sort_by_key(|pod| {
            let started = pod
                .status
                .as_ref()
                .and_then(|status| status.start_time.clone());
            let created = pod.metadata.creation_timestamp.clone();
            (
                started.is_none(),
                started.map(|t| t.0),
                created.map(|t| t.0),
            )
        });
        let uids: HashSet<String> = pods.iter().filter_map(ResourceExt::uid).collect();
        let copies: HashSet<String> = pods
            .iter()
            .filter_map(|pod| manifest::mirrored(pod).map(str::to_owned))
            .collect();
        for entry in self.table.all() {
            if !uids.contains(&entry.uid) && !manifest::is_static(&entry.pod()) {
                self.table.note_deleted(&entry.uid);
            }
        }
        for pod in pods {
            self.desired(pod).await;
        }
        for entry in self.table.all() {
            match manifest::is_static(&entry.pod()) {
                true if !copies.contains(&entry.uid) => {
                    self.send(&entry.uid, Message::MirrorGone).await;
                }
                false if !uids.contains(&entry.uid) => {
                    self.send(&entry.uid, Message::Gone).await;
                }
                _ => {}
            }
        }
        if !self.swept {
            self.swept = true;
            let known: HashSet<String> = self.table.all().iter().map(|e| e.uid.clone()).collect();
            let found = std::mem::take(&mut self.found).pods();
            orphans::sweep(&self.context, &known, found).await;
            self.context.devices.retain(&known).await;
            let runtime = self.context.runtime.as_ref();
            self.context.cpus.retain(runtime, &known).await;
            self.context.csi.listed();
        }
    }

    async fn desired(&mut self, mut pod: Pod) {
        if let Some(uid) = manifest::mirrored(&pod) {
            let stands = self.table.get(uid).is_some();
            return self.mirror(pod, stands).await;
        }
        // Nothing reads them, and they are a third of the object.
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        let uid = pod.uid().unwrap_or_default();
        if self.table.get(&uid).is_some() {
            self.send(&uid, Message::Desired(pod)).await;
        } else {
            self.begin(uid, pod);
        }
    }

    /// A pod that has no worker yet.
    fn begin(&mut self, uid: String, pod: Arc<Pod>) {
        let observed = self.found.containers.remove(&uid).unwrap_or_default();
        let sandbox = self.found.sandboxes.remove(&uid);
        let context = self.context.clone();
        let _admission = context.admission.lock();
        let (machine, actions) = self.machine(&pod, &observed);
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let entry = Arc::new(Entry {
            uid: uid.clone(),
            machine: Mutex::new(machine),
            references: Mutex::new(Arc::new(self.context.objects.references(&pod))),
            tokens: Tokens::default(),
            located: Mutex::default(),
            sandbox: Mutex::new(sandbox),
            timing: Timing::default(),
            stepped: watch::Sender::new(()),
            inbox,
            deleted: AtomicBool::new(false),
        });
        self.table.insert(entry.clone());
        let worker = Worker::new(self.context.clone(), entry, messages);
        self.workers.spawn(async move {
            worker.run(actions).await;
            uid
        });
    }

    /// The machine of a pod: new and admitted, new and refused, or one that was here before.
    fn machine(&self, pod: &Arc<Pod>, observed: &[Observed]) -> (Machine, Vec<Action>) {
        let now = Timestamp::now();
        let started = pod
            .status
            .as_ref()
            .is_some_and(|status| status.start_time.is_some());
        if started || !observed.is_empty() {
            return Machine::recover(pod.clone(), observed, now);
        }
        let (all, known) = self.table.occupants();
        let node = self.context.node.borrow().clone();
        let allowed = &self.context.config.kubelet.allowed_unsafe_sysctls;
        let going = *self.context.going.borrow();
        // A static pod is the node's own, and comes whatever the node is short of.
        let pressed = match manifest::is_static(pod) {
            true => Ok(()),
            false => admit::pressure(pod, &node),
        };
        let admitted = admit::staying(going)
            .and(pressed)
            .and_then(|()| {
                let (known, all) = (known.iter().map(Arc::as_ref), all.iter().map(Arc::as_ref));
                admit::admit(pod, &node, known, all)
            })
            .and_then(|()| admit::sysctls(pod, allowed))
            .and_then(|()| admit::apparmor(pod, facts::apparmor()));
        let mut machine = match admitted {
            Ok(()) => Machine::new(pod.clone(), now),
            Err(refusal) => {
                tracing::warn!(
                    pod = pod.name_any(),
                    reason = refusal.reason,
                    "refused a pod"
                );
                Machine::rejected(pod.clone(), &refusal.reason, &refusal.message, now)
            }
        };
        let actions = machine.handle(crate::core::Event::Desired(pod.clone()), now);
        (machine, actions)
    }

    // === static pods ===

    /// The complete set of manifests.
    async fn manifests(&mut self, set: source::Pods) {
        for entry in self.table.all() {
            if manifest::is_static(&entry.pod()) && !set.contains_key(&entry.uid) {
                self.send(&entry.uid, Message::Retired).await;
            }
        }
        self.static_pods = set;
        self.begin_static();
    }

    /// Begins the static pods that are not here; one whose predecessor of the same name still ends
    /// waits for it.
    fn begin_static(&mut self) {
        for (uid, pod) in self.static_pods.clone() {
            let namespace = pod.namespace().unwrap_or_default();
            let free = self.table.find(&namespace, &pod.name_any()).is_none();
            if free && self.table.get(&uid).is_none() {
                self.begin(uid, Arc::new(pod));
            }
        }
    }

    /// The API's copy of a static pod: one that is to go, or is of no manifest, is removed; if the
    /// pod stands it is made anew.
    async fn mirror(&self, copy: Pod, stands: bool) {
        if stands && copy.metadata.deletion_timestamp.is_none() {
            return;
        }
        if let Err(error) = mirror::remove(&self.context.client, &copy).await {
            tracing::warn!(pod = copy.name_any(), %error, "cannot remove a static pod's copy");
        }
    }

    // === the runtime ===

    async fn happened(&mut self, event: Result<RuntimeEvent, broadcast::error::RecvError>) {
        match event {
            Ok(RuntimeEvent::Exited { id, pod_uid, exit }) => {
                let exit = observe::exit(&id.0, &exit);
                self.send(&pod_uid, Message::Exited(exit)).await;
            }
            Ok(RuntimeEvent::Connected) | Err(broadcast::error::RecvError::Lagged(_)) => {
                self.reconcile().await;
            }
            Ok(
                RuntimeEvent::Started { .. }
                | RuntimeEvent::Oom { .. }
                | RuntimeEvent::ForksRefused { .. },
            ) => {}
            Ok(RuntimeEvent::Disconnected) => tracing::warn!("the runtime does not answer"),
            // The runtime is gone for good only with the agent.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Tells every worker what the runtime has, after events may have been missed.
    async fn reconcile(&mut self) {
        let as_of = Timestamp::now();
        let containers = match self.context.runtime.containers().await {
            Ok(containers) => containers,
            Err(error) => return tracing::warn!(%error, "cannot list the containers"),
        };
        let mut observed = observe::by_pod(&containers);
        for entry in self.table.all() {
            let seen = observed.remove(&entry.uid).unwrap_or_default();
            self.send(&entry.uid, Message::Reconciled(seen, as_of))
                .await;
        }
    }

    // === the workers ===

    async fn send(&self, uid: &str, message: Message) {
        let Some(entry) = self.table.get(uid) else {
            return;
        };
        // A worker that has ended needs no message.
        let _ = entry.inbox.send(message).await;
    }

    fn ended(&mut self, worker: Result<String, tokio::task::JoinError>) {
        match worker {
            Ok(uid) => {
                self.table.remove(&uid);
                self.begin_static();
            }
            Err(error) => tracing::error!(%error, "the worker of a pod broke off"),
        }
    }
}

/// The next set of static pods; never, without a source.
async fn next_set(sets: &mut Option<mpsc::Receiver<source::Pods>>) -> Option<source::Pods> {
    match sets {
        Some(sets) => sets.recv().await,
        None => std::future::pending().await,
    }
}
