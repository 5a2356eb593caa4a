//! What is known of the API, and what follows from it for the kernel and for DNS. Without IO:
//! inputs go in, and nothing is told before every first list is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;

use super::inputs::Input;
use crate::config::Config;
use crate::core::facts::{ServiceFacts, ServiceKey, SliceFacts};
use crate::core::services::ServiceTable;
use crate::core::zone::Zone;

/// Where a watch stands with its list.
#[derive(Debug)]
struct Listing<K> {
    /// What the list that is coming in has so far.
    seen: Option<BTreeSet<K>>,
    /// Whether a first list has come in whole.
    complete: bool,
}

impl<K: Ord> Listing<K> {
    fn new() -> Self {
        Listing {
            seen: None,
            complete: false,
        }
    }
}

/// A change of one object, as a watch tells it.
enum Step<K, T> {
    Present(T),
    Absent(T),
    /// All there is.
    Listed(BTreeSet<K>),
    Nothing,
}

impl<K: Ord> Listing<K> {
    fn step<T>(&mut self, event: Event<T>, key: impl Fn(&T) -> K) -> Step<K, T> {
        match event {
            Event::Init => {
                self.seen = Some(BTreeSet::new());
                Step::Nothing
            }
            Event::InitApply(object) => {
                self.seen.get_or_insert_default().insert(key(&object));
                Step::Present(object)
            }
            Event::InitDone => {
                self.complete = true;
                Step::Listed(self.seen.take().unwrap_or_default())
            }
            Event::Apply(object) => Step::Present(object),
            Event::Delete(object) => Step::Absent(object),
        }
    }
}

/// The addresses that the kernel must know of, besides services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Blocks of this node, in the order of the cluster's ranges.
    pub(crate) blocks: Vec<IpNet>,
    /// Pods and nodes of the cluster.
    pub(crate) cluster: Vec<IpNet>,
}

/// What is known.
pub(crate) struct World {
    node_name: String,
    node_ips: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    pub(crate) services: ServiceTable,
    /// What DNS answers from; it reads while we write.
    zone: Arc<RwLock<Zone>>,
    nodes: BTreeMap<String, Vec<IpAddr>>,
    blocks: BTreeMap<String, IpNet>,
    listed_services: Listing<ServiceKey>,
    listed_slices: Listing<(String, String)>,
    listed_nodes: Listing<String>,
    listed_blocks: Listing<String>,
}

impl World {
    pub(crate) fn new(config: &Config, services: ServiceTable, zone: Arc<RwLock<Zone>>) -> Self {
        World {
            node_name: config.node_name.clone(),
            node_ips: config.node_ips.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            services,
            zone,
            nodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
            listed_services: Listing::new(),
            listed_slices: Listing::new(),
            listed_nodes: Listing::new(),
            listed_blocks: Listing::new(),
        }
    }

    /// Whether every service and endpoint that there was at start is known.
    pub(crate) fn knows_services(&self) -> bool {
        self.listed_services.complete && self.listed_slices.complete
    }

    /// The addresses, once all of them are known: before that, an address of the cluster
    /// could be taken for one of the outside.
    pub(crate) fn addresses(&self) -> Option<Addresses> {
        if !self.listed_nodes.complete || !self.listed_blocks.complete {
            return None;
        }
        let pool_order = |block: &IpNet| {
            let mut pools = self.pod_cidrs.iter();
            pools.position(|pool| pool.contains(block))
        };
        let mut blocks: Vec<IpNet> = self.blocks.values().copied().collect();
        blocks.sort_by_key(|block| (pool_order(block).unwrap_or(usize::MAX), *block));
        let nodes = self.nodes.values().flatten().chain(&self.node_ips);
        let mut cluster: Vec<IpNet> = nodes.map(|&ip| ip.into()).collect();
        cluster.extend(&self.pod_cidrs);
        cluster.extend(&blocks);
        cluster.sort();
        cluster.dedup();
        Some(Addresses { blocks, cluster })
    }

    /// Notes what happened.
    pub(crate) fn take(&mut self, input: Input) {
        match input {
            Input::Service(event) => {
                match self.listed_services.step(event, |(key, _)| key.clone()) {
                    Step::Present((key, facts)) => self.set_service(key, facts),
                    Step::Absent((key, _)) => self.set_service(key, None),
                    Step::Listed(all) => {
                        self.services.retain(Some(&all), None);
                        self.zone.write().retain_services(&all);
                    }
                    Step::Nothing => {}
                }
            }
            Input::Slice(event) => match self.listed_slices.step(event, |(id, _)| id.clone()) {
                Step::Present((id, facts)) => self.set_slice(&id, facts),
                Step::Absent((id, _)) => self.set_slice(&id, None),
                Step::Listed(all) => {
                    self.services.retain(None, Some(&all));
                    self.zone.write().retain_slices(&all);
                }
                Step::Nothing => {}
            },
            Input::Node(event) => match self.listed_nodes.step(event, |(name, _)| name.clone()) {
                Step::Present((name, ips)) => drop(self.nodes.insert(name, ips)),
                Step::Absent((name, _)) => drop(self.nodes.remove(&name)),
                Step::Listed(all) => self.nodes.retain(|name, _| all.contains(name)),
                Step::Nothing => {}
            },
            Input::Block(event) => self.take_block(event),
            // Nothing of the API; whoever programs the kernel reads it back.
            Input::TablesLost => {}
        }
        if self.knows_services() {
            self.zone.write().complete();
        }
    }

    fn set_service(&mut self, key: ServiceKey, facts: Option<Arc<ServiceFacts>>) {
        self.zone.write().set_service(&key, facts.clone());
        self.services.set_service(key, facts);
    }

    fn set_slice(&mut self, (namespace, name): &(String, String), facts: Option<Arc<SliceFacts>>) {
        self.zone.write().set_slice(namespace, name, facts.clone());
        self.services.set_slice(namespace, name, facts);
    }

    fn take_block(&mut self, event: Event<(String, Option<(String, IpNet)>)>) {
        match self.listed_blocks.step(event, |(name, _)| name.clone()) {
            Step::Present((name, Some((node, block)))) if node == self.node_name => {
                self.blocks.insert(name, block.trunc());
            }
            Step::Present((name, _)) | Step::Absent((name, _)) => drop(self.blocks.remove(&name)),
            Step::Listed(all) => self.blocks.retain(|name, _| all.contains(name)),
            Step::Nothing => {}
        }
    }
}
