//! The ConfigMaps, Secrets and claims that pods of this node refer to, and no others.
//!
//! Each object that some pod refers to is watched once, by name, for as long as one of them
//! does. A pod holds its [`References`]; what it reads through them is current, and it hears when
//! one of them changes.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use peapod_api::k8s_openapi;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::core::spec_of;

/// How long to wait for the API's first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// What is known of an object: nothing yet, that it does not exist, or itself.
type Known<K> = Option<Option<Arc<K>>>;

/// One watched object.
#[derive(Debug)]
struct Watched<K> {
    known: watch::Receiver<Known<K>>,
    _task: AbortOnDropHandle<()>,
}

/// Namespace and name.
type Key = (String, String);

/// The watched objects of a kind.
struct Cache<K> {
    client: Client,
    entries: Mutex<HashMap<Key, Weak<Watched<K>>>>,
}

impl<K> Cache<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn new(client: Client) -> Self {
        Self {
            client,
            entries: Mutex::default(),
        }
    }

    /// The object of a name, watched from now on if it was not.
    fn open(&self, namespace: &str, name: &str) -> Arc<Watched<K>> {
        let mut entries = self.entries.lock();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(open) = entries.get(&key).and_then(Weak::upgrade) {
            return open;
        }
        entries.retain(|_, entry| entry.strong_count() > 0);
        let (sender, known) = watch::channel(None);
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let task = AbortOnDropHandle::new(tokio::spawn(follow(api, name.to_owned(), sender)));
        let open = Arc::new(Watched { known, _task: task });
        entries.insert(key, Arc::downgrade(&open));
        open
    }
}

/// Keeps what is known of one object current.
async fn follow<K>(api: Api<K>, name: String, known: watch::Sender<Known<K>>)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = watcher(api, config.streaming_lists())
        .default_backoff()
        .boxed();
    let mut listed = None;
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => listed = None,
            Ok(Some(watcher::Event::InitApply(object))) => listed = Some(Arc::new(object)),
            Ok(Some(watcher::Event::InitDone)) => {
                // A repeated list that shows nothing new wakes nobody.
                let listed = listed.take();
                known.send_if_modified(|known| replace(known, listed));
            }
            Ok(Some(watcher::Event::Apply(object))) => {
                known.send_replace(Some(Some(Arc::new(object))));
            }
            Ok(Some(watcher::Event::Delete(_))) => {
                known.send_replace(Some(None));
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(object = %name, %error, "watch of an object failed"),
        }
    }
}

fn replace<K: Resource>(known: &mut Known<K>, listed: Option<Arc<K>>) -> bool {
    let version = |object: &Arc<K>| object.meta().resource_version.clone();
    let same = match (&*known, &listed) {
        (Some(Some(old)), Some(new)) => version(old) == version(new),
        (Some(None), None) => true,
        _ => false,
    };
    *known = Some(listed);
    !same
}

/// All objects that the node's pods refer to.
pub struct Objects {
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    claims: Cache<PersistentVolumeClaim>,
}

impl Objects {
    /// No object yet.
    pub fn new(client: Client) -> Self {
        Self {
            config_maps: Cache::new(client.clone()),
            secrets: Cache::new(client.clone()),
            claims: Cache::new(client),
        }
    }

    /// Opens all that a pod refers to.
    pub fn references(&self, pod: &Pod) -> References {
        let namespace = pod.namespace().unwrap_or_default();
        let names = Names::of(pod);
        let ns = namespace.as_str();
        References {
            config_maps: open_all(&self.config_maps, ns, &names.config_maps),
            secrets: open_all(&self.secrets, ns, &names.secrets),
            claims: open_all(&self.claims, ns, &names.claims),
        }
    }
}

fn open_all<K>(cache: &Cache<K>, namespace: &str, names: &BTreeSet<String>) -> Open<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    names
        .iter()
        .map(|name| (name.clone(), cache.open(namespace, name)))
        .collect()
}

type Open<K> = HashMap<String, Arc<Watched<K>>>;

/// What one pod refers to.
#[derive(Debug, Default)]
pub struct References {
    config_maps: Open<ConfigMap>,
    secrets: Open<Secret>,
    claims: Open<PersistentVolumeClaim>,
}

fn current<K>(open: &Open<K>, name: &str) -> Option<Arc<K>> {
    open.get(name)?.known.borrow().clone().flatten()
}

/// The API has not said in time whether something exists.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("timed out waiting for the API server to show what the pod refers to; is it reachable?")]
pub struct NoAnswer;

impl References {
    /// Waits until it is known of every one whether it exists.
    pub async fn settled(&self) -> Result<(), NoAnswer> {
        async fn known<K>(open: &Open<K>) -> Option<()> {
            for watched in open.values() {
                watched.known.clone().wait_for(Option::is_some).await.ok()?;
            }
            Some(())
        }
        let all = async {
            known(&self.config_maps).await?;
            known(&self.secrets).await?;
            known(&self.claims).await
        };
        tokio::time::timeout(FIRST_ANSWER, all)
            .await
            .ok()
            .flatten()
            .ok_or(NoAnswer)
    }

    /// A ConfigMap, if it exists.
    pub fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        current(&self.config_maps, name)
    }

    /// A Secret, if it exists.
    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        current(&self.secrets, name)
    }

    /// A claim, if it exists.
    pub fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        current(&self.claims, name)
    }

    /// What tells of changes from now on.
    pub fn changes(&self) -> Changes {
        fn add<K: Send + Sync + 'static>(open: &Open<K>, into: &mut Vec<Waiter>) {
            for watched in open.values() {
                let mut known = watched.known.clone();
                known.mark_unchanged();
                let next = futures::stream::unfold(known, |mut known| async move {
                    known.changed().await.ok()?;
                    Some(((), known))
                });
                into.push(next.boxed());
            }
        }
        let mut waiters = Vec::new();
        add(&self.config_maps, &mut waiters);
        add(&self.secrets, &mut waiters);
        add(&self.claims, &mut waiters);
        Changes(futures::stream::select_all(waiters))
    }
}

type Waiter = futures::stream::BoxStream<'static, ()>;

/// Tells of changes of a pod's references.
pub struct Changes(futures::stream::SelectAll<Waiter>);

impl Changes {
    /// Waits for a change; for ever if there is nothing that could change.
    pub async fn next(&mut self) {
        if self.0.next().await.is_none() {
            std::future::pending::<()>().await;
        }
        // Several at once count as one.
        while self.0.next().now_or_never().flatten().is_some() {}
    }
}

/// The names of what a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
    claims: BTreeSet<String>,
}

impl Names {
    fn of(pod: &Pod) -> Self {
        let mut names = Self::default();
        names.add_volumes(pod);
        names.add_env(pod);
        let pull = spec_of(pod).image_pull_secrets.iter().flatten();
        names
            .secrets
            .extend(pull.map(|reference| reference.name.clone()));
        names
    }

    fn add_volumes(&mut self, pod: &Pod) {
        for volume in spec_of(pod).volumes.iter().flatten() {
            self.config_maps
                .extend(volume.config_map.iter().map(|s| s.name.clone()));
            self.secrets
                .extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
            let claim = volume.persistent_volume_claim.as_ref();
            self.claims.extend(claim.map(|c| c.claim_name.clone()));
            if volume.ephemeral.is_some() {
                self.claims
                    .insert(format!("{}-{}", pod.name_any(), volume.name));
            }
            let parts = volume
                .projected
                .iter()
                .flat_map(|p| p.sources.iter().flatten());
            for part in parts {
                self.config_maps
                    .extend(part.config_map.iter().map(|s| s.name.clone()));
                self.secrets
                    .extend(part.secret.iter().map(|s| s.name.clone()));
            }
        }
    }

    fn add_env(&mut self, pod: &Pod) {
        for view in crate::core::view(pod) {
            let Some(container) = crate::core::find_container(pod, view.name) else {
                continue;
            };
            for source in container.env_from.iter().flatten() {
                self.config_maps
                    .extend(source.config_map_ref.iter().map(|s| s.name.clone()));
                self.secrets
                    .extend(source.secret_ref.iter().map(|s| s.name.clone()));
            }
            for source in container
                .env
                .iter()
                .flatten()
                .filter_map(|v| v.value_from.as_ref())
            {
                self.config_maps
                    .extend(source.config_map_key_ref.iter().map(|s| s.name.clone()));
                self.secrets
                    .extend(source.secret_key_ref.iter().map(|s| s.name.clone()));
            }
        }
    }
}
