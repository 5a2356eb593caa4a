//! The pods of this node, for all who need to find one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, RwLock};
use peapod_api::k8s_openapi;
use tokio::sync::{mpsc, watch};

use super::timing::Timing;
use super::worker::Message;
use crate::core::{Machine, View, view};
use crate::objects::References;
use crate::runtime::Sandbox;
use crate::volumes::Located;
use crate::volumes::token::Tokens;

/// One pod: its machine, and what its actions leave for each other.
pub struct Entry {
    /// `metadata.uid`
    pub uid: String,
    /// What is known and wanted of it. Locked for moments only.
    pub machine: Mutex<Machine>,
    /// What it refers to.
    pub references: Mutex<Arc<References>>,
    /// Its service account tokens.
    pub tokens: Tokens,
    /// Where its volumes are.
    pub located: Mutex<BTreeMap<String, Located>>,
    /// Its namespaces, as far as they are known.
    pub sandbox: Mutex<Option<Sandbox>>,
    /// Where the time of its start goes.
    pub timing: Timing,
    /// Tells of each step of the machine.
    pub stepped: watch::Sender<()>,
    /// The way to its worker.
    pub inbox: mpsc::Sender<Message>,
    /// Whether the API has it no more: it ends, whatever its worker has come to.
    pub deleted: AtomicBool,
}

impl Entry {
    /// The pod as it was last desired.
    pub fn pod(&self) -> Arc<Pod> {
        self.machine.lock().pod().clone()
    }

    /// Waits until a run of a container is over.
    pub async fn ended(&self, container: &str, id: &str) {
        let mut stepped = self.stepped.subscribe();
        loop {
            {
                let machine = self.machine.lock();
                if !machine.runs(container) || machine.container_id(container, false) != Some(id) {
                    return;
                }
            }
            if stepped.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the pod has nothing left on the node that others could want.
    pub async fn vacated(&self) {
        let mut stepped = self.stepped.subscribe();
        while self.machine.lock().occupies() {
            if stepped.changed().await.is_err() {
                return;
            }
        }
    }

    /// The OCI runtime that its containers use, if it is not the node's default.
    pub fn runtime_handler(&self) -> Option<String> {
        let sandbox = self.sandbox.lock();
        sandbox.as_ref()?.spec.runtime_handler.clone()
    }

    /// Where its network namespace is pinned; `None` with the host's network, or before it is
    /// made.
    pub fn netns(&self) -> Option<PathBuf> {
        self.sandbox
            .lock()
            .as_ref()
            .and_then(|sandbox| sandbox.netns.clone())
    }
}

/// All pods by UID.
#[derive(Clone, Default)]
pub struct Table(Arc<RwLock<HashMap<String, Arc<Entry>>>>);

impl Table {
    /// The pod of a UID.
    pub fn get(&self, uid: &str) -> Option<Arc<Entry>> {
        self.0.read().get(uid).cloned()
    }

    /// The pod of a name. Of two with one name the one that is not going.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let named = |pod: &Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.metadata.name.as_deref() == Some(name)
        };
        let mut found: Vec<_> = self.all().into_iter().filter(|e| named(&e.pod())).collect();
        found.sort_by_key(|entry| entry.pod().metadata.deletion_timestamp.is_some());
        found.into_iter().next()
    }

    /// Every pod.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.0.read().values().cloned().collect()
    }

    /// Adds a pod.
    pub fn insert(&self, entry: Arc<Entry>) {
        self.0.write().insert(entry.uid.clone(), entry);
    }

    /// Takes a pod out.
    pub fn remove(&self, uid: &str) {
        self.0.write().remove(uid);
    }

    /// The pods that hold resources of the node, with what is allocated to them; and those of them
    /// that the API still has.
    pub fn occupants(&self) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
        let entries = self.all().into_iter();
        let holding = entries.filter(|entry| entry.machine.lock().occupies());
        let holding: Vec<Arc<Entry>> = holding.collect();
        let known = holding
            .iter()
            .filter(|entry| !entry.deleted.load(Ordering::Acquire));
        let known = known.map(|entry| entry.pod()).collect();
        (holding.iter().map(|entry| entry.pod()).collect(), known)
    }

    /// Notes that the API has a pod no more.
    pub fn note_deleted(&self, uid: &str) {
        if let Some(entry) = self.get(uid) {
            entry.deleted.store(true, Ordering::Release);
        }
    }

    /// Those but for the one of a UID.
    pub fn occupants_but(&self, uid: &str) -> Vec<Arc<Pod>> {
        let entries = self.all();
        let holding = entries
            .iter()
            .filter(|entry| entry.uid != uid && entry.machine.lock().occupies());
        holding.map(|entry| entry.pod()).collect()
    }
}

/// The container to which a request without a name goes: the annotated default, or the first.
pub fn default_container(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let annotated = annotations.and_then(|all| all.get("kubectl.kubernetes.io/default-container"));
    let first_app = |view: &View| view.kind == crate::core::Kind::App;
    annotated
        .cloned()
        .or_else(|| view(pod).find(first_app).map(|view| view.name.to_owned()))
}
