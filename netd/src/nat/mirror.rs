//! One family's table, and what is known to be in it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use peapod_nft::{Data, Element, Error, Nft, Transaction};

use super::Ip;
use super::base::{self, BLOCKS, CLUSTER, HAIRPIN, HOST_IP_PORTS, HOST_PORTS};
use super::chains::{Chain, Keyed};
use super::codec::{self, Elements};
use super::intervals::whole;
use super::pod_elements::{PodElements, pod_element};
use super::programmer::NatConfig;
use super::source::{FABRIC_LINKS, KEPT_LINKS, NAT_OFF_FABRIC, NAT_OUTGOING};
use crate::core::services::{Change, Dispatch, Frontend};

/// What is in one family's table.
pub(super) struct Mirror {
    pub(super) ip: Ip,
    pub(super) fingerprint: Vec<u8>,
    chains: BTreeSet<Chain>,
    /// How many frontends lead to a chain.
    uses: BTreeMap<Chain, usize>,
    pub(super) intervals: BTreeMap<&'static str, BTreeSet<Element>>,
    pub(super) links: BTreeMap<&'static str, BTreeSet<Element>>,
    pub(super) pods: PodElements,
}

impl Mirror {
    /// Makes a table, or finds it; tells what services it holds.
    pub(super) fn open(
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
    pub(super) fn read(
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

    /// Applies changes of services in one transaction.
    pub(super) fn apply(&mut self, nft: &mut Nft, changes: &[Change]) -> Result<(), Error> {
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

    /// Puts into a transaction what makes the intervals of a set the wanted ones.
    pub(super) fn replace_intervals(
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
    pub(super) fn change_pods(
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
