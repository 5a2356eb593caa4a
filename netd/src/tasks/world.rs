//! What is known of the API, and what follows from it for the kernel and for DNS. Without IO:
//! inputs go in, and nothing is told before every first list is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use parking_lot::RwLock;

use super::inputs::{Input, SeenSlice, SliceId};
use crate::config::Config;
use crate::core::facts::{ServiceFacts, ServiceKey, SliceFacts};
use crate::core::neighbourhood::Neighbourhood;
use crate::core::services::ServiceTable;
use crate::core::ways;
use crate::core::zone::Zone;
use crate::nat::Ranges;

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
    /// Ranges that Services have addresses of.
    pub(crate) services: Vec<IpNet>,
    /// Those of `blocks` that are masqueraded wherever they leave the cluster.
    pub(crate) masqueraded: Vec<IpNet>,
    /// Those of `blocks` that are masqueraded only where pods' addresses are not known.
    pub(crate) masqueraded_off_fabric: Vec<IpNet>,
}

impl Addresses {
    /// The same, of a node whose pods have addresses of somebody else.
    pub(crate) fn without_blocks(self) -> Self {
        Self {
            cluster: self.cluster,
            services: self.services,
            ..Self::default()
        }
    }

    pub(crate) fn ranges(&self) -> Ranges<'_> {
        Ranges {
            blocks: &self.blocks,
            cluster: &self.cluster,
            masqueraded: &self.masqueraded,
            masqueraded_off_fabric: &self.masqueraded_off_fabric,
        }
    }
}

/// What is known.
pub(crate) struct World {
    node_name: String,
    node_ips: Vec<IpAddr>,
    pod_cidrs: Vec<IpNet>,
    service_cidrs: Vec<IpNet>,
    /// Those that the API tells of, by the names of the ServiceCIDRs.
    further_service_cidrs: BTreeMap<String, Vec<IpNet>>,
    pub(crate) services: ServiceTable,
    /// What DNS answers from; it reads while we write.
    zone: Arc<RwLock<Zone>>,
    neighbourhood: Neighbourhood,
    /// Those that follow from it.
    addresses: Option<Addresses>,
    /// What slices tell of that may not be in the kernel yet, and when the first of it happened.
    triggered: BTreeMap<SliceId, Timestamp>,
    /// The ways may be others since they were last asked for.
    ways_changed: bool,
    listed_services: Listing<ServiceKey>,
    listed_slices: Listing<(String, String)>,
    listed_nodes: Listing<String>,
    listed_blocks: Listing<String>,
    listed_pools: Listing<String>,
    listed_service_cidrs: Listing<String>,
    listed_peers: Listing<String>,
}

impl World {
    pub(crate) fn new(config: &Config, services: ServiceTable, zone: Arc<RwLock<Zone>>) -> Self {
        World {
            node_name: config.node_name.clone(),
            node_ips: config.node_ips.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            service_cidrs: config.service_cidrs.clone(),
            further_service_cidrs: BTreeMap::new(),
            services,
            zone,
            neighbourhood: Neighbourhood::default(),
            addresses: None,
            triggered: BTreeMap::new(),
            ways_changed: false,
            listed_services: Listing::new(),
            listed_slices: Listing::new(),
            listed_nodes: Listing::new(),
            listed_blocks: Listing::new(),
            listed_pools: Listing::new(),
            listed_service_cidrs: Listing::new(),
            listed_peers: Listing::new(),
        }
    }

    /// Whether every service and endpoint that there was at start is known.
    pub(crate) fn knows_services(&self) -> bool {
        self.listed_services.complete && self.listed_slices.complete
    }

    /// The addresses, once all of them are known: before that, an address of the cluster
    /// could be taken for one of the outside.
    pub(crate) fn addresses(&mut self) -> Option<&Addresses> {
        let complete = self.listed_nodes.complete
            && self.listed_blocks.complete
            && self.listed_pools.complete
            && self.listed_service_cidrs.complete;
        if complete && self.addresses.is_none() {
            self.addresses = Some(self.read_addresses());
        }
        self.addresses.as_ref()
    }

    fn read_addresses(&self) -> Addresses {
        let pool_order = |block: &IpNet| {
            let mut pools = self.pod_cidrs.iter();
            pools.position(|pool| pool.contains(block))
        };
        let mut blocks: Vec<IpNet> = self.neighbourhood.blocks_of(&self.node_name).collect();
        blocks.sort_by_key(|block| (pool_order(block).unwrap_or(usize::MAX), *block));
        let nodes = self.neighbourhood.node_ips();
        let nodes = nodes.chain(self.node_ips.iter().copied());
        let mut cluster: Vec<IpNet> = nodes.map(IpNet::from).collect();
        cluster.extend(&self.pod_cidrs);
        cluster.extend(self.neighbourhood.pools());
        cluster.extend(&blocks);
        cluster.sort();
        cluster.dedup();
        let nat = |wanted| {
            let blocks = self.neighbourhood.nat_of(&self.node_name);
            let alike = blocks.filter(move |(_, nat)| *nat == wanted);
            alike.map(|(block, _)| block).collect()
        };
        let mut services = self.service_cidrs.clone();
        let further = self.further_service_cidrs.values().flatten();
        let further: BTreeSet<IpNet> = further.copied().collect();
        services.extend(
            further
                .into_iter()
                .filter(|net| !self.service_cidrs.contains(net)),
        );
        Addresses {
            services,
            masqueraded: nat(Some(true)),
            masqueraded_off_fabric: nat(None),
            blocks,
            cluster,
        }
    }

    /// What the ways to other nodes follow from, if it may have changed since it was last asked
    /// for, and once all of it is known.
    pub(crate) fn changed_ways(&mut self) -> Option<ways::Facts> {
        let complete = self.listed_nodes.complete
            && self.listed_blocks.complete
            && self.listed_pools.complete
            && self.listed_peers.complete;
        if !complete || !std::mem::take(&mut self.ways_changed) {
            return None;
        }
        self.neighbourhood.ways(&self.node_name, &self.node_ips)
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
            Input::Slice(event) => {
                // What a list tells of may have happened long ago.
                if let Event::Apply(seen) = &event
                    && let Some(at) = seen.triggered
                {
                    self.triggered.entry(seen.id.clone()).or_insert(at);
                }
                self.take_slice(event);
            }
            Input::Node(_) | Input::Block(_) | Input::Pool(_) | Input::Peer(_) => {
                if self.take_neighbour(input) {
                    self.addresses = None;
                    self.ways_changed = true;
                }
            }
            Input::ServiceCidr(event) => self.take_service_cidr(event),
            // Nothing of the API; whoever programs the kernel reads it back.
            Input::TablesLost => {}
        }
        if self.knows_services() {
            self.zone.write().complete();
        }
    }

    /// Also of one that is going, since Services may have addresses of it still.
    fn take_service_cidr(&mut self, event: Event<(String, Vec<IpNet>)>) {
        let known = &mut self.further_service_cidrs;
        let step = self
            .listed_service_cidrs
            .step(event, |(name, _)| name.clone());
        match step {
            Step::Present((name, nets)) => drop(known.insert(name, nets)),
            Step::Absent((name, _)) => drop(known.remove(&name)),
            Step::Listed(all) => known.retain(|name, _| all.contains(name)),
            Step::Nothing => return,
        }
        self.addresses = None;
    }

    fn take_slice(&mut self, event: Event<SeenSlice>) {
        match self.listed_slices.step(event, |seen| seen.id.clone()) {
            Step::Present(seen) => self.set_slice(&seen.id, seen.facts),
            Step::Absent(seen) => self.set_slice(&seen.id, None),
            Step::Listed(all) => {
                self.services.retain(None, Some(&all));
                self.zone.write().retain_slices(&all);
            }
            Step::Nothing => {}
        }
    }

    /// When those things happened that slices have told of since this was last asked.
    pub(crate) fn take_triggers(&mut self) -> impl Iterator<Item = Timestamp> + use<> {
        std::mem::take(&mut self.triggered).into_values()
    }

    fn set_service(&mut self, key: ServiceKey, facts: Option<Arc<ServiceFacts>>) {
        self.zone.write().set_service(&key, facts.clone());
        let ours = facts.filter(|facts| !facts.other_proxy);
        self.services.set_service(key, ours);
    }

    fn set_slice(&mut self, (namespace, name): &(String, String), facts: Option<Arc<SliceFacts>>) {
        self.zone.write().set_slice(namespace, name, facts.clone());
        self.services.set_slice(namespace, name, facts);
    }

    /// Notes what concerns other nodes; whether that is a change.
    fn take_neighbour(&mut self, input: Input) -> bool {
        let known = &mut self.neighbourhood;
        match input {
            Input::Node(event) => match self.listed_nodes.step(event, |(name, _)| name.clone()) {
                Step::Present((name, node)) => known.set_node(&name, Some(node)),
                Step::Absent((name, _)) => known.set_node(&name, None),
                Step::Listed(all) => known.retain_nodes(&all),
                Step::Nothing => false,
            },
            Input::Block(event) => match self.listed_blocks.step(event, |(name, _)| name.clone()) {
                Step::Present((name, block)) => known.set_block(&name, block),
                Step::Absent((name, _)) => known.set_block(&name, None),
                Step::Listed(all) => known.retain_blocks(&all),
                Step::Nothing => false,
            },
            Input::Pool(event) => match self.listed_pools.step(event, |(name, _)| name.clone()) {
                Step::Present((name, pool)) => known.set_pool(&name, pool),
                Step::Absent((name, _)) => known.set_pool(&name, None),
                Step::Listed(all) => known.retain_pools(&all),
                Step::Nothing => false,
            },
            Input::Peer(event) => match self.listed_peers.step(event, |(name, _)| name.clone()) {
                Step::Present((name, peer)) => known.set_peer(&name, Some(&peer)),
                Step::Absent((name, _)) => known.set_peer(&name, None),
                Step::Listed(all) => known.retain_peers(&all),
                Step::Nothing => false,
            },
            _ => false,
        }
    }
}
