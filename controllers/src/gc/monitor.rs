//! The watches that feed the graph: one per kind that the API serves, of metadata only.
//!
//! Which kinds there are changes when a custom resource or an aggregated API comes or goes;
//! their own watches say when to ask again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::{DynamicObject, ObjectMeta, PartialObjectMeta};
use kube::discovery::verbs;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::{Mutex, RwLock};
use peapod_api::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

use super::graph::{Graph, Leaving, Look, Object, Observation, Place};
use crate::common::Key;
use crate::shell::discovery::{Discovered, discover};
use crate::shell::{Context, Queue};

/// After a change the kinds are asked for again after these waits: discovery follows the object
/// that announces a kind, at once or a little later.
const SETTLE: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(3)];
/// Before discovery is tried again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Events tell of objects, own nothing, and end by their own age.
fn is_ignored(kind: &Discovered) -> bool {
    kind.resource.kind == "Event"
}

/// Kinds whose objects announce kinds.
fn announces_kinds(kind: &Discovered) -> bool {
    matches!(
        &*kind.resource.kind,
        "CustomResourceDefinition" | "APIService"
    )
}

type GroupKind = (String, String);

/// What the monitors keep up to date.
pub struct Monitors {
    ctx: Context,
    /// Who owns whom.
    pub graph: Mutex<Graph>,
    /// The kinds, by what an owner reference names.
    pub kinds: RwLock<HashMap<GroupKind, Discovered>>,
    /// Kinds whose first list is not complete.
    pending: watch::Sender<HashSet<GroupKind>>,
    kinds_changed: Notify,
    queue: Queue,
    namespaces: Queue,
}

impl Monitors {
    /// No watch yet. What is to be looked at goes to `queue`, the namespaces of objects that go
    /// to `namespaces`.
    pub fn new(ctx: &Context, queue: Queue, namespaces: Queue) -> Arc<Self> {
        Arc::new(Self {
            ctx: ctx.clone(),
            graph: Mutex::default(),
            kinds: RwLock::default(),
            // Something is pending until discovery has said what.
            pending: watch::Sender::new(HashSet::from([GroupKind::default()])),
            kinds_changed: Notify::new(),
            queue,
            namespaces,
        })
    }

    /// Waits until every kind's first list is complete.
    pub async fn synced(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives in `self`, so that waiting can only end by success.
        let _ = pending.wait_for(HashSet::is_empty).await;
    }

    /// Takes in an observation, and queues what to look at because of it.
    pub fn observe(&self, observation: Observation) {
        let looks = self.graph.lock().observe(observation);
        for look in looks {
            self.queue.add(match look {
                Look::Delete(uid) => Key::new(super::DELETE, uid),
                Look::Orphan(uid) => Key::new(super::ORPHAN, uid),
            });
        }
    }

    /// Queues a look at whether an object should be deleted.
    pub fn look_at(&self, uid: &str) {
        self.queue.add(Key::new(super::DELETE, uid));
    }

    /// Runs the watches, and follows the kinds; the caller's task owns it.
    pub async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        let mut running: HashMap<GroupKind, AbortHandle> = HashMap::new();
        let mut looks = SETTLE.len() - 1;
        loop {
            match discover(&self.ctx.client).await {
                Ok(kinds) => self.follow(kinds, &mut running, &mut tasks),
                Err(error) => {
                    warn!(%error, "the garbage collector does not know all kinds; trying again");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            // The watches never end by themselves; those of kinds that went were aborted.
            while tasks.try_join_next().is_some() {}
            looks += 1;
            if let Some(&wait) = SETTLE.get(looks) {
                tokio::time::sleep(wait).await;
                continue;
            }
            self.kinds_changed.notified().await;
            looks = 0;
            tokio::time::sleep(SETTLE[0]).await;
        }
    }

    fn follow(
        self: &Arc<Self>,
        kinds: Vec<Discovered>,
        running: &mut HashMap<GroupKind, AbortHandle>,
        tasks: &mut JoinSet<()>,
    ) {
        let watched =
            |kind: &Discovered| kind.is_deletable() && kind.can(verbs::WATCH) && !is_ignored(kind);
        let kinds: HashMap<_, _> = kinds
            .into_iter()
            .map(|kind| (kind.group_kind(), kind))
            .collect();
        let gone: Vec<_> = running
            .keys()
            .filter(|name| !kinds.get(*name).is_some_and(watched))
            .cloned()
            .collect();
        for name in gone {
            debug!(group = name.0, kind = name.1, "kind is served no more");
            if let Some(task) = running.remove(&name) {
                task.abort();
            }
            self.done_pending(&name);
            self.lose_all_but(&name, &HashSet::new());
        }
        for (name, kind) in kinds.iter().filter(|(_, kind)| watched(kind)) {
            if !running.contains_key(name) {
                self.pending.send_modify(|pending| {
                    pending.insert(name.clone());
                });
                let task = tasks.spawn(self.clone().watch(kind.clone()));
                running.insert(name.clone(), task);
            }
        }
        *self.kinds.write() = kinds;
        self.done_pending(&GroupKind::default());
    }

    fn done_pending(&self, name: &GroupKind) {
        self.pending
            .send_if_modified(|pending| pending.remove(name));
    }

    fn lose_all_but(&self, (group, kind): &GroupKind, listed: &HashSet<String>) {
        let known = self.graph.lock().of_kind(group, kind);
        for uid in known.into_iter().filter(|uid| !listed.contains(uid)) {
            self.lose(uid);
        }
    }

    /// Notes that an object is gone; its namespace may wait for that.
    pub fn lose(&self, uid: String) {
        let view = self.graph.lock().view(&uid);
        self.observe(Observation::Gone(uid));
        if let Some(view) = view
            && !view.place.namespace.is_empty()
        {
            self.namespaces.add(Key::cluster(view.place.namespace));
        }
    }

    async fn watch(self: Arc<Self>, kind: Discovered) {
        let name = kind.group_kind();
        let (group, kind_name): (Arc<str>, Arc<str>) =
            (name.0.as_str().into(), name.1.as_str().into());
        let announces = announces_kinds(&kind);
        let api: Api<PartialObjectMeta<DynamicObject>> =
            Api::all_with(self.ctx.client.clone(), &kind.resource);
        let config = watcher::Config::default().streaming_lists();
        let events = watcher(api, config).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed = HashSet::new();
        let see = |meta: ObjectMeta| {
            if let Some(object) = object(meta, &group, &kind_name) {
                self.observe(Observation::Seen(object));
            }
        };
        while let Some(event) = events.next().await {
            let changed = !matches!(event, Ok(watcher::Event::InitApply(_)) | Err(_));
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    listed.extend(object.metadata.uid.clone());
                    see(object.metadata);
                }
                Ok(watcher::Event::InitDone) => {
                    self.lose_all_but(&name, &listed);
                    listed = HashSet::new();
                    self.done_pending(&name);
                }
                Ok(watcher::Event::Apply(object)) => see(object.metadata),
                Ok(watcher::Event::Delete(object)) => {
                    if let Some(uid) = object.metadata.uid {
                        self.lose(uid);
                    }
                }
                Err(error) => debug!(kind = name.1, %error, "watch failed; trying again"),
            }
            if announces && changed {
                self.kinds_changed.notify_one();
            }
        }
    }
}

/// What the graph wants to know of an object's metadata.
fn object(meta: ObjectMeta, group: &Arc<str>, kind: &Arc<str>) -> Option<Object> {
    let leaving = leaving(&meta);
    Some(Object {
        uid: meta.uid?,
        place: Place {
            group: group.clone(),
            kind: kind.clone(),
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
        },
        owners: meta.owner_references.unwrap_or_default(),
        leaving,
    })
}

/// How far an object is on its way out.
pub fn leaving(meta: &ObjectMeta) -> Leaving {
    let has = |name: &str| {
        meta.finalizers
            .iter()
            .flatten()
            .any(|finalizer| finalizer == name)
    };
    match meta.deletion_timestamp {
        None => Leaving::No,
        Some(_) if has(FINALIZER_FOREGROUND) => Leaving::AfterDependents,
        Some(_) if has(FINALIZER_ORPHAN) => Leaving::Orphaning,
        Some(_) => Leaving::Deleted,
    }
}
