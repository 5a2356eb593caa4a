//! Writes the maps of both families.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_api::attach::Protocol;
use peapod_nft::{Element, Error, Nft, Transaction};

use super::base::{BLOCKS, CLUSTER};
use super::codec;
use super::intervals::intervals;
use super::mirror::Mirror;
use super::pod_elements::{PodElements, PodPorts, pod_elements};
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
