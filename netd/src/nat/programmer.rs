//! Writes the maps, and knows what is in them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_api::attach::Protocol;
use peapod_nft::{Data, Element, Error, Nft, Transaction};

use super::base::{self, BLOCKS, CLUSTER, HAIRPIN, HOST_IP_PORTS, HOST_PORTS};
use super::chains::{Chain, Keyed};
use super::codec::{self, Elements};
use super::intervals::{intervals, whole};
use super::pod_elements::{PodElements, PodPorts, pod_element, pod_elements};
use super::source::{self, FABRIC_LINKS, KEPT_LINKS, NAT_OFF_FABRIC, NAT_OUTGOING};
use super::stale_udp::StaleUdp;
use super::{Ip, TABLE};
use crate::core::services::{Change, Dispatch, Frontend};

/// What the tables are made for.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// Ranges of service addresses: what is in them and no service's is refused.
    pub service_cidrs: Vec<IpNet>,
    /// Addresses of this node that answer nobody but this machine and its pods.
    pub private_ips: Vec<IpAddr>,
    /// Addresses of this node that others reach it by, over any of its links to BGP neighbours.
    pub source_ips: Vec<IpAddr>,
    /// Whether pods' links are somebody else's, by any name.
    pub foreign_links: bool,
    /// Whether there is a table for IPv6.
    pub ipv6: bool,
}

/// Ranges of addresses that packets are told by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ranges<'a> {
    /// This node's pods.
    pub blocks: &'a [IpNet],
    /// Pods and nodes of the cluster.
    pub cluster: &'a [IpNet],
    /// Those of `blocks` that are masqueraded wherever they leave the cluster.
    pub masqueraded: &'a [IpNet],
    /// Those of `blocks` that are masqueraded only where they leave by a link that is not one of
    /// [`FabricLinks::kept`].
    pub masqueraded_off_fabric: &'a [IpNet],
}

/// Links to BGP neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FabricLinks {
    /// All: the node is known behind them by its own address.
    pub all: BTreeSet<String>,
    /// Those behind which its pods are known.
    pub kept: BTreeSet<String>,
}

/// The services that the kernel of this thread's network namespace has, changing nothing.
pub fn read_services() -> Result<BTreeMap<Frontend, Dispatch>, Error> {
    let mut nft = Nft::open()?;
    let mut found = BTreeMap::new();
    for ip in [Ip::V4, Ip::V6] {
        if let Some(fingerprint) = nft.table(&ip.table())? {
            found.extend(Mirror::read(&mut nft, ip, fingerprint, true)?.1);
        }
    }
    Ok(found)
}

/// The tables of this node.
pub struct Nat {
    nft: Nft,
    tables: Vec<Mirror>,
    /// As last told; of an earlier run's nothing is known but what the tables have.
    links: Option<FabricLinks>,
}

/// What is in one family's table.
struct Mirror {
    ip: Ip,
    fingerprint: Vec<u8>,
    chains: BTreeSet<Chain>,
    /// How many frontends lead to a chain.
    uses: BTreeMap<Chain, usize>,
    intervals: BTreeMap<&'static str, BTreeSet<Element>>,
    links: BTreeMap<&'static str, BTreeSet<Element>>,
    pods: PodElements,
}

impl Nat {
    /// Makes the tables, or finds them as an earlier run left them; tells what services they
    /// hold. Tables of another layout are replaced in one transaction, contents kept.
    pub fn open(config: &NatConfig) -> Result<(Self, BTreeMap<Frontend, Dispatch>), Error> {
        let mut nft = Nft::open()?;
        let families = [Some(Ip::V4), config.ipv6.then_some(Ip::V6)];
        let mut tables = Vec::new();
        let mut current = BTreeMap::new();
        for ip in families.into_iter().flatten() {
            let (mirror, found) = Mirror::open(&mut nft, ip, config)?;
            tables.push(mirror);
            current.extend(found);
        }
        let links = None;
        Ok((Nat { nft, tables, links }, current))
    }

    /// Reads the kernel back, and makes anew what is missing; tells what services there are.
    /// What was known of pods is written again: nobody else knows it.
    pub fn reopen(&mut self, config: &NatConfig) -> Result<BTreeMap<Frontend, Dispatch>, Error> {
        let (mut anew, current) = Nat::open(config)?;
        for mirror in &mut anew.tables {
            let known = self.tables.iter().find(|known| known.ip == mirror.ip);
            let pods = known.map(|known| known.pods.clone()).unwrap_or_default();
            mirror.change_pods(&mut anew.nft, &|_| true, pods)?;
        }
        if let Some(links) = &self.links {
            anew.set_fabric_links(links)?;
        }
        *self = anew;
        Ok(current)
    }

    /// Whether the tables exist, with the base that was written.
    pub fn is_intact(&mut self) -> Result<bool, Error> {
        for mirror in &self.tables {
            if self.nft.table(&mirror.ip.table())?.as_ref() != Some(&mirror.fingerprint) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Applies changes of services: one transaction for each family.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        for mirror in &mut self.tables {
            mirror.apply(&mut self.nft, changes)?;
        }
        self.forget_stale_connections(changes)
    }

    /// Sets which addresses are this node's pods', which are the cluster's, and which are
    /// masqueraded.
    pub fn set_ranges(&mut self, ranges: Ranges<'_>) -> Result<(), Error> {
        for mirror in &mut self.tables {
            let mut transaction = Transaction::new();
            let mut replaced = Vec::new();
            for (set, ranges) in [
                (BLOCKS, ranges.blocks),
                (CLUSTER, ranges.cluster),
                (NAT_OUTGOING, ranges.masqueraded),
                (NAT_OFF_FABRIC, ranges.masqueraded_off_fabric),
            ] {
                let wanted = intervals(mirror.ip, ranges);
                mirror.replace_intervals(&mut transaction, set, &wanted);
                replaced.push((set, wanted));
            }
            self.nft.commit(transaction)?;
            mirror.intervals.extend(replaced);
        }
        Ok(())
    }

    /// Sets which links lead to BGP neighbours.
    pub fn set_fabric_links(&mut self, links: &FabricLinks) -> Result<(), Error> {
        let elements = |names: &BTreeSet<String>| -> BTreeSet<Element> {
            let key = |name: &String| Element::key(source::link_key(name));
            names.iter().map(key).collect()
        };
        for mirror in &mut self.tables {
            let mut transaction = Transaction::new();
            let table = mirror.ip.table();
            let mut replaced = Vec::new();
            for (set, names) in [(FABRIC_LINKS, &links.all), (KEPT_LINKS, &links.kept)] {
                let wanted = elements(names);
                let present = mirror.links.get(set).cloned().unwrap_or_default();
                let gone: Vec<Element> = present.difference(&wanted).cloned().collect();
                let new: Vec<Element> = wanted.difference(&present).cloned().collect();
                transaction.delete_elements(&table, set, &gone);
                transaction.add_elements(&table, set, &new);
                replaced.push((set, wanted));
            }
            self.nft.commit(transaction)?;
            mirror.links.extend(replaced);
        }
        self.links = Some(links.clone());
        Ok(())
    }

    /// Adds a pod's host ports and its way to itself. Repeating it changes nothing.
    pub fn attach(&mut self, pod: &PodPorts<'_>) -> Result<(), Error> {
        self.set_pod(pod.ips, |ip| pod_elements(ip, pod))
    }

    /// Removes what [`attach`](Self::attach) added for these addresses.
    pub fn detach(&mut self, ips: &[IpAddr]) -> Result<(), Error> {
        self.set_pod(ips, |_| BTreeMap::new())
    }

    /// Removes what earlier runs left of pods that are gone.
    pub fn retain_pods(&mut self, ips: &BTreeSet<IpAddr>) -> Result<(), Error> {
        for mirror in &mut self.tables {
            let of_gone = |pod: Option<IpAddr>| pod.is_none_or(|pod| !ips.contains(&pod));
            mirror.change_pods(&mut self.nft, &of_gone, BTreeMap::new())?;
        }
        Ok(())
    }

    fn set_pod(&mut self, ips: &[IpAddr], wanted: impl Fn(Ip) -> PodElements) -> Result<(), Error> {
        for mirror in &mut self.tables {
            let of_pod = |pod: Option<IpAddr>| pod.is_some_and(|pod| ips.contains(&pod));
            mirror.change_pods(&mut self.nft, &of_pod, wanted(mirror.ip))?;
        }
        Ok(())
    }

    /// UDP has no end of a connection: the kernel would go on translating a client's packets
    /// to an endpoint that is gone for as long as they keep coming.
    fn forget_stale_connections(&mut self, changes: &[Change]) -> Result<(), Error> {
        let udp = codec::protocol_number(Protocol::Udp);
        for mirror in &self.tables {
            let stale = StaleUdp::of(changes, mirror.ip.v4);
            if !stale.is_empty() {
                let family = mirror.ip.family();
                self.nft.delete_connections(family, udp, |connection| {
                    stale.contains(connection.destination, connection.answered_by)
                })?;
            }
        }
        Ok(())
    }
}

/// Deletes the tables; what is not there is fine.
pub fn remove() -> Result<(), Error> {
    let mut nft = Nft::open()?;
    for ip in [Ip::V4, Ip::V6] {
        if nft.table(&ip.table())?.is_some() {
            let mut transaction = Transaction::new();
            transaction.delete_table(&ip.table());
            nft.commit(transaction)?;
        }
    }
    tracing::debug!(table = TABLE, "nftables tables removed");
    Ok(())
}

impl Mirror {
    fn open(
        nft: &mut Nft,
        ip: Ip,
        config: &NatConfig,
    ) -> Result<(Self, BTreeMap<Frontend, Dispatch>), Error> {
        let fingerprint = base::fingerprint(ip, config);
        let found = nft.table(&ip.table())?;
        let (mut mirror, current) = Self::read(nft, ip, fingerprint.clone(), found.is_some())?;
        if found.as_ref() == Some(&fingerprint) {
            return Ok((mirror, current));
        }
        let mut transaction = Transaction::new();
        if found.is_some() {
            transaction.delete_table(&ip.table());
        }
        base::write(&mut transaction, ip, config, &fingerprint);
        mirror.write_all(&mut transaction, &current);
        nft.commit(transaction)?;
        Ok((mirror, current))
    }

    /// Reads a table; one that does not exist reads as empty, and so does a map that a table
    /// of another layout lacks.
    fn read(
        nft: &mut Nft,
        ip: Ip,
        fingerprint: Vec<u8>,
        exists: bool,
    ) -> Result<(Self, BTreeMap<Frontend, Dispatch>), Error> {
        let table = ip.table();
        let mut list = |set: &str| match nft.elements(&table, set) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        };
        let mut mirror = Mirror {
            ip,
            fingerprint,
            chains: BTreeSet::new(),
            uses: BTreeMap::new(),
            intervals: BTreeMap::new(),
            links: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        let mut current = BTreeMap::new();
        if !exists {
            return Ok((mirror, current));
        }
        for keyed in [Keyed::Address, Keyed::NodePort] {
            let services = list(keyed.services())?;
            let endpoints = list(keyed.endpoints())?;
            current.extend(codec::decode(ip, keyed, &services, &endpoints));
        }
        for set in [BLOCKS, CLUSTER, NAT_OUTGOING, NAT_OFF_FABRIC] {
            let elements = list(set)?.into_iter().collect();
            mirror.intervals.insert(set, elements);
        }
        for set in [FABRIC_LINKS, KEPT_LINKS] {
            let elements = list(set)?.into_iter().collect();
            mirror.links.insert(set, elements);
        }
        for set in [HAIRPIN, HOST_PORTS, HOST_IP_PORTS] {
            for element in list(set)? {
                let value = match element.data {
                    Some(Data::Value(bytes)) => Some(bytes),
                    _ => None,
                };
                mirror.pods.insert((set, element.key), value);
            }
        }
        for (frontend, dispatch) in &current {
            mirror.count(frontend, Some(dispatch), 1);
        }
        let chains = nft.chains(Some(ip.family()))?;
        let ours = chains.iter().filter(|chain| chain.table == table);
        mirror.chains = ours.filter_map(|chain| Chain::parse(&chain.name)).collect();
        Ok((mirror, current))
    }

    /// Writes all contents into a table that holds nothing but its base.
    fn write_all(&mut self, transaction: &mut Transaction, current: &BTreeMap<Frontend, Dispatch>) {
        self.chains.clear();
        self.add_chains(transaction);
        let mut elements = Elements::new();
        for (frontend, dispatch) in current {
            codec::encode(frontend, dispatch, &mut elements);
        }
        let table = self.ip.table();
        add(transaction, self.ip, elements);
        for (set, elements) in self.intervals.iter().chain(&self.links) {
            let elements: Vec<Element> = elements.iter().cloned().collect();
            transaction.add_elements(&table, set, &elements);
        }
        for ((set, key), value) in &self.pods {
            transaction.add_elements(&table, set, &[pod_element(key, value)]);
        }
    }

    fn count(&mut self, frontend: &Frontend, dispatch: Option<&Dispatch>, by: isize) {
        if let Some(Dispatch::Balance(balance)) = dispatch {
            let chain = codec::chain(frontend, balance);
            let uses = self.uses.entry(chain).or_default();
            *uses = uses.saturating_add_signed(by);
            if *uses == 0 {
                self.uses.remove(&chain);
            }
        }
    }

    /// The chains in use, and those that they lead to.
    fn needed(&self) -> BTreeSet<Chain> {
        let mut needed = BTreeSet::new();
        let mut queue: Vec<Chain> = self.uses.keys().copied().collect();
        while let Some(chain) = queue.pop() {
            if needed.insert(chain) {
                queue.extend(chain.leads_to());
            }
        }
        needed
    }

    /// Adds the chains that are missing.
    fn add_chains(&mut self, transaction: &mut Transaction) {
        let table = self.ip.table();
        let needed = self.needed();
        let missing: Vec<&Chain> = needed.difference(&self.chains).collect();
        for chain in &missing {
            transaction.add_chain(&table, &chain.name());
        }
        for chain in missing {
            for rule in chain.rules(self.ip) {
                transaction.append_rule(&table, &chain.name(), &rule);
            }
        }
        self.chains.extend(needed);
    }

    /// Deletes the chains that nothing leads to any more.
    fn delete_chains(&mut self, transaction: &mut Transaction) {
        let table = self.ip.table();
        let needed = self.needed();
        let idle: Vec<Chain> = self.chains.difference(&needed).copied().collect();
        for chain in &idle {
            transaction.flush_chain(&table, &chain.name());
        }
        for chain in &idle {
            transaction.delete_chain(&table, &chain.name());
        }
        self.chains = needed;
    }

    fn apply(&mut self, nft: &mut Nft, changes: &[Change]) -> Result<(), Error> {
        let mut old = Elements::new();
        let mut new = Elements::new();
        let v4 = self.ip.v4;
        for change in changes.iter().filter(|c| c.frontend.is_v4() == v4) {
            if let Some(from) = &change.from {
                codec::encode(&change.frontend, from, &mut old);
            }
            if let Some(to) = &change.to {
                codec::encode(&change.frontend, to, &mut new);
            }
            self.count(&change.frontend, change.from.as_ref(), -1);
            self.count(&change.frontend, change.to.as_ref(), 1);
        }
        let kept: Vec<_> = old
            .iter()
            .filter(|(key, data)| new.get(*key) == Some(data))
            .map(|(key, _)| key.clone())
            .collect();
        for key in kept {
            old.remove(&key);
            new.remove(&key);
        }
        let mut transaction = Transaction::new();
        self.add_chains(&mut transaction);
        delete(&mut transaction, self.ip, old);
        add(&mut transaction, self.ip, new);
        self.delete_chains(&mut transaction);
        nft.commit(transaction)
    }

    fn replace_intervals(
        &self,
        transaction: &mut Transaction,
        set: &'static str,
        wanted: &BTreeSet<Element>,
    ) {
        let none = BTreeSet::new();
        let present = self.intervals.get(set).unwrap_or(&none);
        let table = self.ip.table();
        // Whole intervals: one that is half replaced overlaps with itself.
        let (present, wanted) = (whole(present), whole(wanted));
        let gone: Vec<Element> = present.difference(&wanted).flatten().cloned().collect();
        let new: Vec<Element> = wanted.difference(&present).flatten().cloned().collect();
        transaction.delete_elements(&table, set, &gone);
        transaction.add_elements(&table, set, &new);
    }

    /// Makes `wanted` the elements of the pods that `selected` takes.
    fn change_pods(
        &mut self,
        nft: &mut Nft,
        selected: &dyn Fn(Option<IpAddr>) -> bool,
        wanted: PodElements,
    ) -> Result<(), Error> {
        let table = self.ip.table();
        let mut transaction = Transaction::new();
        let mut after = self.pods.clone();
        for (id, value) in &self.pods {
            let keep = match wanted.get(id) {
                Some(new) => new == value,
                None => !selected(self.pod_of(id, value)),
            };
            if !keep {
                let key = Element::key(id.1.clone());
                transaction.delete_elements(&table, id.0, &[key]);
                after.remove(id);
            }
        }
        for (id, value) in wanted {
            if let Entry::Vacant(place) = after.entry(id) {
                let (set, key) = place.key();
                transaction.add_elements(&table, set, &[pod_element(key, &value)]);
                place.insert(value);
            }
        }
        nft.commit(transaction)?;
        self.pods = after;
        Ok(())
    }

    /// The address of the pod that an element is about.
    fn pod_of(&self, id: &(&'static str, Vec<u8>), value: &Option<Vec<u8>>) -> Option<IpAddr> {
        let bytes = value.as_ref().unwrap_or(&id.1);
        codec::read_endpoint(self.ip, bytes).map(|endpoint| endpoint.ip())
    }
}

fn add(transaction: &mut Transaction, ip: Ip, elements: Elements) {
    for (map, elements) in by_map(elements) {
        transaction.add_elements(&ip.table(), map, &elements);
    }
}

fn delete(transaction: &mut Transaction, ip: Ip, elements: Elements) {
    for (map, elements) in by_map(elements) {
        transaction.delete_elements(&ip.table(), map, &elements);
    }
}

fn by_map(elements: Elements) -> BTreeMap<&'static str, Vec<Element>> {
    let mut maps: BTreeMap<&'static str, Vec<Element>> = BTreeMap::new();
    for ((map, key), data) in elements {
        let elements = maps.entry(map).or_default();
        elements.push(Element::entry(key, data));
    }
    maps
}
