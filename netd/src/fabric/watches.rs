//! What the fabric needs of the API: all `BgpPeer`s, the `BgpConfig`, and the node itself.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use peapod_api::k8s_openapi;
use peapod_api::labels::{DRAIN, DRAIN_GRACEFUL, DRAIN_SERVICES};
use peapod_api::net::{BgpConfig, BgpConfigSpec, BgpPeer, BgpPeerSpec, DEFAULT_BGP_CONFIG};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Announced;
use super::plan::{Drain, Facts};
use crate::config::Config;

/// What happened in the API.
#[derive(Debug)]
pub enum Input {
    /// To a peer.
    Peer(Box<Event<BgpPeer>>),
    /// To the configuration.
    Config(Box<Event<BgpConfig>>),
    /// To this node.
    Node(Box<Event<Node>>),
}

/// What is known of this node.
#[derive(Debug)]
struct Own {
    uid: String,
    labels: BTreeMap<String, String>,
    drain: Drain,
}

/// What is known. Nothing follows from it before every first list is complete.
#[derive(Debug, Default)]
pub struct Known {
    peers: BTreeMap<String, BgpPeerSpec>,
    config: BgpConfigSpec,
    own: Option<Own>,
    peers_listed: bool,
    config_listed: bool,
    /// What the lists that are coming in have so far.
    seen: BTreeSet<String>,
    config_seen: bool,
}

// === impl Known ===

impl Known {
    /// Notes what happened.
    pub fn take(&mut self, input: Input) {
        match input {
            Input::Peer(event) => self.peer(*event),
            Input::Config(event) => self.config(*event),
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

    /// `metadata.uid` of this node.
    pub fn uid(&self) -> Option<String> {
        self.own.as_ref().map(|own| own.uid.clone())
    }

    /// All of it, once it is complete.
    pub fn facts(&self, config: &Config, announced: Announced) -> Option<Facts> {
        let own = self.own.as_ref()?;
        (self.peers_listed && self.config_listed).then(|| Facts {
            node: config.node_name.clone(),
            labels: own.labels.clone(),
            ips: config.node_ips.clone(),
            drain: own.drain,
            pod_cidrs: config.pod_cidrs.clone(),
            config: self.config.clone(),
            peers: self.peers.clone(),
            announced,
            control_socket: config.bgp_socket.clone(),
        })
    }
}

fn own(node: &Node) -> Option<Own> {
    let annotations = node.metadata.annotations.as_ref();
    let wanted = annotations.and_then(|all| all.get(DRAIN));
    let drain = match wanted.map(String::as_str) {
        Some(DRAIN_GRACEFUL) => Drain::Graceful,
        Some(DRAIN_SERVICES) => Drain::Services,
        _ => Drain::None,
    };
    Some(Own {
        uid: node.metadata.uid.clone()?,
        labels: node.metadata.labels.clone().unwrap_or_default(),
        drain,
    })
}

/// Starts the watches; they end with the set.
pub fn spawn(client: &Client, node: &str, inputs: &mpsc::Sender<Input>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = watcher::Config::default().streaming_lists();
    let named = |name: &str| all.clone().fields(&format!("metadata.name={name}"));
    tasks.spawn(watch(client, all.clone(), Input::Peer, inputs.clone()));
    let config = named(DEFAULT_BGP_CONFIG);
    tasks.spawn(watch(client, config, Input::Config, inputs.clone()));
    tasks.spawn(watch(client, named(node), Input::Node, inputs.clone()));
    tasks
}

/// Watches objects of a kind for ever. A watch that breaks begins again with a list.
fn watch<K>(
    client: &Client,
    config: watcher::Config,
    input: fn(Box<Event<K>>) -> Input,
    inputs: mpsc::Sender<Input>,
) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    async move {
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
}
