//! What the fabric needs of the API: all `BgpPeer`s, the `BgpConfig`, the node itself, and the Secrets
//! with the passwords of its sessions, each watched by name.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use peapod_api::k8s_openapi;
use peapod_api::labels::{DRAIN, ROUTER_ID};
use peapod_api::net::{
    BGP_SECRET_NAMESPACE, BgpConfig, BgpConfigSpec, BgpPeer, BgpPeerSpec, DEFAULT_BGP_CONFIG,
    LoadBalancerPool,
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Announced;
use super::balancers::Balancers;
use super::plan::{Drain, Facts, selects};
use super::secrets::Secrets;
use crate::config::Config;

/// What happened in the API.
#[derive(Debug)]
pub enum Input {
    /// To a peer.
    Peer(Box<Event<BgpPeer>>),
    /// To a pool of load balancers' addresses.
    Balancer(Box<Event<LoadBalancerPool>>),
    /// To the configuration.
    Config(Box<Event<BgpConfig>>),
    /// To this node.
    Node(Box<Event<Node>>),
    /// To the Secret of this name, or why it cannot be watched.
    Secret(String, Box<Result<Event<Secret>, String>>),
}

/// What is known of this node.
#[derive(Debug)]
struct Own {
    uid: String,
    labels: BTreeMap<String, String>,
    drain: Drain,
    router_id: Option<String>,
}

/// What is known. Nothing follows from it before every first list is complete.
#[derive(Debug, Default)]
pub struct Known {
    peers: BTreeMap<String, BgpPeerSpec>,
    config: BgpConfigSpec,
    balancers: Balancers,
    own: Option<Own>,
    secrets: Secrets,
    peers_listed: bool,
    balancers_listed: bool,
    config_listed: bool,
    /// What the lists that are coming in have so far.
    seen: BTreeSet<String>,
    balancers_seen: BTreeSet<String>,
    config_seen: bool,
}

// === impl Known ===

impl Known {
    /// Notes what happened.
    pub fn take(&mut self, input: Input) {
        match input {
            Input::Peer(event) => self.peer(*event),
            Input::Balancer(event) => self.balancer(*event),
            Input::Config(event) => self.config(*event),
            Input::Secret(name, said) => self.secrets.take(&name, *said),
            Input::Node(event) => match *event {
                Event::Apply(node) | Event::InitApply(node) => self.own = own(&node),
                Event::Delete(_) => self.own = None,
                Event::Init | Event::InitDone => {}
            },
        }
    }

    fn peer(&mut self, event: Event<BgpPeer>) {
        match event {
            Event::Init => self.seen.clear(),
            Event::InitApply(peer) => {
                self.seen.insert(peer.name_any());
                self.peers.insert(peer.name_any(), peer.spec);
            }
            Event::InitDone => {
                self.peers.retain(|name, _| self.seen.contains(name));
                self.peers_listed = true;
            }
            Event::Apply(peer) => drop(self.peers.insert(peer.name_any(), peer.spec)),
            Event::Delete(peer) => drop(self.peers.remove(&peer.name_any())),
        }
    }

    fn balancer(&mut self, event: Event<LoadBalancerPool>) {
        match event {
            Event::Init => self.balancers_seen.clear(),
            Event::InitApply(pool) => {
                self.balancers_seen.insert(pool.name_any());
                self.balancers.set(pool.name_any(), &pool.spec);
            }
            Event::InitDone => {
                let seen = std::mem::take(&mut self.balancers_seen);
                self.balancers.retain(|name| seen.contains(name));
                self.balancers_listed = true;
            }
            Event::Apply(pool) => self.balancers.set(pool.name_any(), &pool.spec),
            Event::Delete(pool) => self.balancers.remove(&pool.name_any()),
        }
    }

    fn config(&mut self, event: Event<BgpConfig>) {
        match event {
            Event::Init => self.config_seen = false,
            Event::InitApply(config) => {
                self.config_seen = true;
                self.config = config.spec;
            }
            Event::InitDone => {
                if !self.config_seen {
                    self.config = BgpConfigSpec::default();
                }
                self.config_listed = true;
            }
            Event::Apply(config) => self.config = config.spec,
            Event::Delete(_) => self.config = BgpConfigSpec::default(),
        }
    }

    /// The Secrets that this node needs now; what is known of others is forgotten.
    pub fn follow_secrets(&mut self) -> BTreeSet<String> {
        let Some(own) = &self.own else {
            return BTreeSet::new();
        };
        let mine = |spec: &&BgpPeerSpec| selects(spec, &own.labels).unwrap_or(false);
        let auth = self.peers.values().filter(mine).flat_map(|spec| &spec.auth);
        let names = auth.map(|auth| auth.secret_ref.name.clone()).collect();
        self.secrets.follow(&names);
        names
    }

    /// `metadata.uid` of this node.
    pub fn uid(&self) -> Option<String> {
        self.own.as_ref().map(|own| own.uid.clone())
    }

    /// All of it, once it is complete.
    pub fn facts(&self, config: &Config, announced: Announced) -> Option<Facts> {
        let own = self.own.as_ref()?;
        let listed = self.peers_listed && self.config_listed && self.balancers_listed;
        let complete = listed && self.secrets.complete();
        complete.then(|| Facts {
            node: config.node_name.clone(),
            labels: own.labels.clone(),
            ips: config.node_ips.clone(),
            drain: own.drain,
            router_id: own.router_id.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            config: self.config.clone(),
            peers: self.peers.clone(),
            secrets: self.secrets.clone(),
            announced,
            balancers: self.balancers.clone(),
            control_socket: config.bgp_socket.clone(),
        })
    }
}

fn own(node: &Node) -> Option<Own> {
    let annotations = node.metadata.annotations.as_ref();
    let wanted = annotations.and_then(|all| all.get(DRAIN));
    let drain = Drain::read(wanted.map(String::as_str));
    Some(Own {
        uid: node.metadata.uid.clone()?,
        labels: node.metadata.labels.clone().unwrap_or_default(),
        drain,
        router_id: annotations.and_then(|all| all.get(ROUTER_ID)).cloned(),
    })
}

/// The watches. They end with this.
pub struct Watches {
    client: Client,
    inputs: mpsc::Sender<Input>,
    _always: JoinSet<()>,
    secrets: BTreeMap<String, AbortOnDropHandle<()>>,
}

// === impl Watches ===

impl Watches {
    /// Starts those that are always needed.
    pub fn start(client: &Client, node: &str, inputs: &mpsc::Sender<Input>) -> Self {
        let mut always = JoinSet::new();
        let peers = watch(
            Api::all(client.clone()),
            listed(),
            inputs.clone(),
            Input::Peer,
        );
        always.spawn(peers);
        let balancers = watch(
            Api::all(client.clone()),
            listed(),
            inputs.clone(),
            Input::Balancer,
        );
        always.spawn(balancers);
        let config = named(DEFAULT_BGP_CONFIG);
        let config = watch(
            Api::all(client.clone()),
            config,
            inputs.clone(),
            Input::Config,
        );
        always.spawn(config);
        let own = watch(
            Api::all(client.clone()),
            named(node),
            inputs.clone(),
            Input::Node,
        );
        always.spawn(own);
        Self {
            client: client.clone(),
            inputs: inputs.clone(),
            _always: always,
            secrets: BTreeMap::new(),
        }
    }

    /// Watches these Secrets and no others.
    pub fn follow_secrets(&mut self, names: &BTreeSet<String>) {
        self.secrets.retain(|name, _| names.contains(name));
        for name in names {
            let (client, inputs) = (&self.client, &self.inputs);
            self.secrets.entry(name.clone()).or_insert_with(|| {
                let api = Api::namespaced(client.clone(), BGP_SECRET_NAMESPACE);
                let task = watch_secret(api, name.clone(), inputs.clone());
                AbortOnDropHandle::new(tokio::spawn(task))
            });
        }
    }
}

fn listed() -> watcher::Config {
    watcher::Config::default().streaming_lists()
}

fn named(name: &str) -> watcher::Config {
    listed().fields(&format!("metadata.name={name}"))
}

/// Watches objects of a kind for ever. A watch that breaks begins again with a list.
async fn watch<K>(
    api: Api<K>,
    config: watcher::Config,
    inputs: mpsc::Sender<Input>,
    input: fn(Box<Event<K>>) -> Input,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    while let Some(event) = events.next().await {
        let sent = match event {
            Ok(event) => inputs.send(input(Box::new(event))).await,
            Err(error) => {
                let kind = K::kind(&());
                tracing::debug!(%kind, %error, "a watch broke and begins again");
                continue;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Watches one Secret for ever; that it cannot be read is told too, since a session waits for it.
async fn watch_secret(api: Api<Secret>, name: String, inputs: mpsc::Sender<Input>) {
    let mut events = std::pin::pin!(watcher(api, named(&name)).default_backoff());
    while let Some(event) = events.next().await {
        let said = event.map_err(|error| reason(&error));
        let input = Input::Secret(name.clone(), Box::new(said));
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// What the innermost error says: the API's own words, where it has answered.
fn reason(error: &watcher::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
