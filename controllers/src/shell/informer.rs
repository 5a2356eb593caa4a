//! One watch per kind, shared by all loops: a cache and the handlers of its changes.
//!
//! The cache is read by key, by namespace, and by the index its kind declares. Objects are
//! trimmed of what no controller reads before they are kept, because a cluster's pods are most
//! of this process's memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::common::Key;

/// What a kind must be to be cached.
pub trait Kind:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

/// A change of one object; at least one of `old` and `new` is there.
pub struct Change<K> {
    /// Whose.
    pub key: Key,
    /// What it was.
    pub old: Option<Arc<K>>,
    /// What it is.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The old and the new object, those that are there.
    pub fn both(&self) -> impl Iterator<Item = &K> {
        self.old.iter().chain(self.new.iter()).map(Arc::as_ref)
    }

    /// The newest object known.
    pub fn latest(&self) -> Option<&K> {
        self.new.as_deref().or(self.old.as_deref())
    }
}

/// Says whether it wants to hear of further changes.
type Handler<K> = Box<dyn Fn(&Change<K>) -> bool + Send + Sync>;

/// How a kind is kept.
pub struct Keep<K> {
    /// Removes what no controller reads. `managedFields` are removed from every kind.
    pub trim: fn(&mut K),
    /// The terms under which an object is found by [`Informer::indexed`].
    pub index: fn(&K) -> Vec<String>,
    /// A field selector that narrows the watch; empty for all objects.
    pub fields: &'static str,
}

impl<K> Default for Keep<K> {
    fn default() -> Self {
        Self {
            trim: |_| {},
            index: |_| Vec::new(),
            fields: "",
        }
    }
}

/// The objects of a kind as last heard of.
struct Cache<K> {
    objects: BTreeMap<Key, Arc<K>>,
    terms: HashMap<String, BTreeSet<Key>>,
    /// The highest resourceVersion seen on an object.
    revision: u64,
}

/// A watch of one kind, with its cache.
pub struct Informer<K> {
    api: Api<K>,
    keep: Keep<K>,
    cache: RwLock<Cache<K>>,
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// An object's resourceVersion as the number it is; 0 when it has none.
pub fn revision<K: Resource>(object: &K) -> u64 {
    let text = object.meta().resource_version.as_deref();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

// === impl Cache ===

impl<K: Kind> Cache<K> {
    fn put(&mut self, key: &Key, object: Arc<K>, index: fn(&K) -> Vec<String>) -> Option<Arc<K>> {
        self.revision = self.revision.max(revision(&*object));
        let new = index(&object);
        let old = self.objects.insert(key.clone(), object);
        let stale = old.as_ref().map(|old| index(old)).unwrap_or_default();
        if stale != new {
            self.unindex(key, stale);
            for term in new {
                self.terms.entry(term).or_default().insert(key.clone());
            }
        }
        old
    }

    fn remove(&mut self, key: &Key, index: fn(&K) -> Vec<String>) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        self.unindex(key, index(&old));
        Some(old)
    }

    fn unindex(&mut self, key: &Key, terms: Vec<String>) {
        for term in terms {
            if let Some(keys) = self.terms.get_mut(&term) {
                keys.remove(key);
                if keys.is_empty() {
                    self.terms.remove(&term);
                }
            }
        }
    }
}

// === impl Informer ===

impl<K: Kind> Informer<K> {
    /// An informer of what `api` covers, not yet watching.
    pub fn new(api: Api<K>, keep: Keep<K>) -> Arc<Self> {
        Arc::new(Self {
            api,
            keep,
            cache: RwLock::new(Cache {
                objects: BTreeMap::new(),
                terms: HashMap::new(),
                revision: 0,
            }),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        })
    }

    /// Calls `handler` at every change, in the order of the watch. It must be quick: it runs in
    /// the watch's task.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        self.on_change_while(move |change| {
            handler(change);
            true
        });
    }

    /// As [`Informer::on_change`], until the handler says `false`.
    pub fn on_change_while(&self, handler: impl Fn(&Change<K>) -> bool + Send + Sync + 'static) {
        self.handlers.lock().push(Box::new(handler));
    }

    /// The object of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.cache.read().objects.get(key).cloned()
    }

    /// Every object.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.cache.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let cache = self.cache.read();
        let from = cache.objects.range(Key::new(namespace, "")..);
        from.take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects that the kind's index puts under a term.
    pub fn indexed(&self, term: &str) -> Vec<Arc<K>> {
        let cache = self.cache.read();
        let keys = cache.terms.get(term).into_iter().flatten();
        keys.filter_map(|key| cache.objects.get(key).cloned())
            .collect()
    }

    /// The highest resourceVersion heard of: what was written up to it is in the cache.
    pub fn revision(&self) -> u64 {
        self.cache.read().revision
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives in `self`, so that waiting can only end by success.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Watches for ever; the caller's task owns it.
    pub async fn run(self: Arc<Self>) {
        let kind = K::kind(&());
        let mut config = watcher::Config::default().streaming_lists();
        if !self.keep.fields.is_empty() {
            config = config.fields(self.keep.fields);
        }
        let events = watcher(self.api.clone(), config).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut listed: BTreeMap<Key, K> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    let object = self.trimmed(object);
                    listed.insert(Key::of(&object), object);
                }
                Ok(watcher::Event::InitDone) => {
                    self.replace(std::mem::take(&mut listed));
                    debug!(%kind, objects = self.cache.read().objects.len(), "synced");
                    self.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(object)) => self.apply(self.trimmed(object)),
                Ok(watcher::Event::Delete(object)) => self.delete(&object),
                Err(error) => warn!(%kind, %error, "watch failed; trying again"),
            }
        }
    }

    fn trimmed(&self, mut object: K) -> K {
        object.meta_mut().managed_fields = None;
        (self.keep.trim)(&mut object);
        object
    }

    fn apply(&self, object: K) {
        let (key, object) = (Key::of(&object), Arc::new(object));
        let old = self
            .cache
            .write()
            .put(&key, object.clone(), self.keep.index);
        self.tell(Change {
            key,
            old,
            new: Some(object),
        });
    }

    fn delete(&self, object: &K) {
        let key = Key::of(object);
        let old = {
            let mut cache = self.cache.write();
            cache.revision = cache.revision.max(revision(object));
            cache.remove(&key, self.keep.index)
        };
        if old.is_some() {
            self.tell(Change {
                key,
                old,
                new: None,
            });
        }
    }

    /// Takes over a complete list: what it lacks was deleted unseen.
    fn replace(&self, listed: BTreeMap<Key, K>) {
        let cached: Vec<Key> = self.cache.read().objects.keys().cloned().collect();
        for key in cached.into_iter().filter(|key| !listed.contains_key(key)) {
            let old = self.cache.write().remove(&key, self.keep.index);
            self.tell(Change {
                key,
                old,
                new: None,
            });
        }
        for (key, object) in listed {
            let known = self.get(&key).map(|old| old.resource_version());
            if known != Some(object.resource_version()) {
                self.apply(object);
            }
        }
    }

    fn tell(&self, change: Change<K>) {
        self.handlers.lock().retain(|handler| handler(&change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    fn object(name: &str, version: &str, label: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                resource_version: Some(version.into()),
                labels: Some([("l".to_owned(), label.to_owned())].into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn informer() -> (Arc<Informer<ConfigMap>>, Arc<Mutex<Vec<String>>>) {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("no server"))
        });
        let client = kube::Client::new(service, "default");
        let keep = Keep {
            index: |object: &ConfigMap| object.labels().values().cloned().collect(),
            ..Keep::default()
        };
        let informer = Informer::new(Api::all(client), keep);
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = told.clone();
        informer.on_change(move |change| {
            let sign = match (&change.old, &change.new) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            log.lock().push(format!("{sign}{}", change.key.name));
        });
        (informer, told)
    }

    #[tokio::test]
    async fn a_new_list_tells_only_what_changed() {
        let (informer, told) = informer();
        let list = |names: &[(&str, &str)]| {
            let objects = names
                .iter()
                .map(|(name, version)| object(name, version, "x"));
            objects.map(|object| (Key::of(&object), object)).collect()
        };
        informer.replace(list(&[("a", "1"), ("b", "2")]));
        informer.replace(list(&[("b", "2"), ("c", "4")]));
        informer.replace(list(&[("b", "5"), ("c", "4")]));
        assert_eq!(*told.lock(), ["+a", "+b", "-a", "+c", "~b"]);
        assert_eq!(informer.revision(), 5);
    }

    #[tokio::test]
    async fn the_index_follows_changes() {
        let (informer, _) = informer();
        informer.apply(object("a", "1", "x"));
        informer.apply(object("b", "2", "x"));
        assert_eq!(informer.indexed("x").len(), 2);
        informer.apply(object("a", "3", "y"));
        assert_eq!(informer.indexed("x").len(), 1);
        informer.delete(&object("a", "4", "y"));
        assert!(informer.indexed("y").is_empty());
        assert_eq!(informer.revision(), 4);
        assert_eq!(informer.in_namespace("ns").len(), 1);
        assert!(informer.in_namespace("n").is_empty());
    }
}
