//! Watches of what decisions depend on, reduced to the core's inputs on the way.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use crate::core::drivers::{Capacity, Drivers};
use crate::core::input::{Input, PodUpdate, key};
use crate::core::node::NodeSpec;
use crate::core::preempt::Budget;
use crate::core::volumes::{Claim, Class, Volume};
use crate::view;

/// What a watch says.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Input(Input),
    /// One of the watches has said everything that was there when it began.
    Synced,
}

/// How many watches there are; each says once that it is synced.
pub const WATCHES: usize = 10;

/// One kind: how its objects become inputs.
struct Kind<K, I> {
    config: watcher::Config,
    id: fn(&K) -> I,
    applied: fn(K) -> Input,
    deleted: fn(I) -> Input,
    /// After a list: these are all; `None` when what is gone is told one by one.
    all: Option<fn(HashSet<I>) -> Input>,
}

fn object_key<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    key(meta.namespace.as_deref(), meta.name.as_deref())
}

fn name<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

/// Starts all watches.
pub fn start(client: &Client, into: &mpsc::Sender<Message>, tasks: &mut JoinSet<&'static str>) {
    let config = || watcher::Config::default().streaming_lists();
    let pods = Kind::<view::Pod, _> {
        config: config().fields("status.phase!=Succeeded,status.phase!=Failed"),
        id: |pod| object_key(pod).into(),
        applied: |pod| Input::Pod(Box::new(PodUpdate::of(&pod))),
        deleted: Input::PodGone,
        all: Some(Input::PodsAre),
    };
    let nodes = Kind::<view::Node, _> {
        config: config(),
        id: name,
        applied: |node| Input::Node(name(&node), Box::new(NodeSpec::of(&node))),
        deleted: Input::NodeGone,
        all: Some(Input::NodesAre),
    };
    let claims = Kind::<PersistentVolumeClaim, _> {
        config: config(),
        id: object_key,
        applied: |claim| Input::Claim(object_key(&claim), Some(Box::new(Claim::of(&claim)))),
        deleted: |key| Input::Claim(key, None),
        all: None,
    };
    let volumes = Kind::<PersistentVolume, _> {
        config: config(),
        id: name,
        applied: |volume| Input::Volume(name(&volume), Some(Box::new(Volume::of(&volume)))),
        deleted: |name| Input::Volume(name, None),
        all: None,
    };
    let classes = Kind::<StorageClass, _> {
        config: config(),
        id: name,
        applied: |class| Input::Class(name(&class), Some(Box::new(Class::of(&class)))),
        deleted: |name| Input::Class(name, None),
        all: None,
    };
    let namespaces = Kind::<Namespace, _> {
        config: config(),
        id: name,
        applied: |namespace| {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            Input::Namespace(name(&namespace), Some(labels))
        },
        deleted: |name| Input::Namespace(name, None),
        all: None,
    };
    let budgets = Kind::<PodDisruptionBudget, _> {
        config: config(),
        id: object_key,
        applied: |budget| Input::Budget(object_key(&budget), Some(Budget::of(&budget))),
        deleted: |key| Input::Budget(key, None),
        all: None,
    };
    let csi_nodes = Kind::<CSINode, _> {
        config: config(),
        id: name,
        applied: |node| Input::Limits(name(&node), Some(Drivers::limits_of(&node))),
        deleted: |name| Input::Limits(name, None),
        all: None,
    };
    let drivers = Kind::<CSIDriver, _> {
        config: config(),
        id: name,
        applied: |driver| Input::DriverTells(name(&driver), Drivers::tells(&driver)),
        deleted: |name| Input::DriverTells(name, false),
        all: None,
    };
    let capacities = Kind::<CSIStorageCapacity, _> {
        config: config(),
        id: object_key,
        applied: |one| Input::Capacity(object_key(&one), Some(Box::new(Capacity::of(&one)))),
        deleted: |key| Input::Capacity(key, None),
        all: None,
    };
    tasks.spawn(watch(client.clone(), csi_nodes, into.clone()));
    tasks.spawn(watch(client.clone(), drivers, into.clone()));
    tasks.spawn(watch(client.clone(), capacities, into.clone()));
    tasks.spawn(watch(client.clone(), budgets, into.clone()));
    tasks.spawn(watch(client.clone(), pods, into.clone()));
    tasks.spawn(watch(client.clone(), nodes, into.clone()));
    tasks.spawn(watch(client.clone(), claims, into.clone()));
    tasks.spawn(watch(client.clone(), volumes, into.clone()));
    tasks.spawn(watch(client.clone(), classes, into.clone()));
    tasks.spawn(watch(client.clone(), namespaces, into.clone()));
}

/// Runs one watch until nobody listens any more. Lost connections are taken up again, with a
/// back-off, by `kube`.
async fn watch<K, I>(client: Client, kind: Kind<K, I>, into: mpsc::Sender<Message>) -> &'static str
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    I: Clone + Eq + Hash + Send,
{
    let objects = watcher(Api::<K>::all(client), kind.config.clone()).default_backoff();
    let mut objects = std::pin::pin!(objects);
    let mut known = Known::default();
    let mut synced = false;
    while let Some(event) = objects.next().await {
        let mut messages = Vec::new();
        match event {
            Ok(watcher::Event::Init) => known.begin(),
            Ok(watcher::Event::InitApply(object)) => {
                known.listed(&kind, &object);
                messages.push(Message::Input((kind.applied)(object)));
            }
            Ok(watcher::Event::Apply(object)) => {
                known.applied(&kind, &object);
                messages.push(Message::Input((kind.applied)(object)));
            }
            Ok(watcher::Event::Delete(object)) => {
                let id = (kind.id)(&object);
                known.current.remove(&id);
                messages.push(Message::Input((kind.deleted)(id)));
            }
            Ok(watcher::Event::InitDone) => {
                messages.extend(known.end(&kind).into_iter().map(Message::Input));
                if !std::mem::replace(&mut synced, true) {
                    messages.push(Message::Synced);
                }
            }
            Err(error) => {
                warn!(kind = %K::kind(&()), %error, "the watch failed; it is retried");
                if not_served(&error) && !std::mem::replace(&mut synced, true) {
                    messages.push(Message::Synced);
                }
            }
        }
        for message in messages {
            if into.send(message).await.is_err() {
                return "inbox";
            }
        }
    }
    "watches"
}

/// Whether the API server does not know the kind: then there are none of it.
fn not_served(error: &watcher::Error) -> bool {
    let cause = match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) => cause,
        _ => return false,
    };
    matches!(cause, kube::Error::Api(status) if status.code == 404)
}

/// Which objects there are, to find what vanished while the watch was broken. For kinds whose
/// holder can tell itself (`all`), only a list under way is kept.
struct Known<I> {
    current: HashSet<I>,
    listed: HashSet<I>,
}

impl<I> Default for Known<I> {
    fn default() -> Self {
        Self {
            current: HashSet::new(),
            listed: HashSet::new(),
        }
    }
}

impl<I: Clone + Eq + Hash> Known<I> {
    fn begin(&mut self) {
        self.listed.clear();
    }

    fn listed<K>(&mut self, kind: &Kind<K, I>, object: &K) {
        self.listed.insert((kind.id)(object));
    }

    fn applied<K>(&mut self, kind: &Kind<K, I>, object: &K) {
        if kind.all.is_none() {
            self.current.insert((kind.id)(object));
        }
    }

    fn end<K>(&mut self, kind: &Kind<K, I>) -> Vec<Input> {
        let listed = std::mem::take(&mut self.listed);
        match kind.all {
            Some(all) => vec![all(listed)],
            None => {
                let gone = self.current.difference(&listed).cloned();
                let gone = gone.map(kind.deleted).collect();
                self.current = listed;
                gone
            }
        }
    }
}
