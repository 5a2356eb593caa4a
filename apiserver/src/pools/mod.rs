//! Service addresses and node ports: where free ones come from.
//!
//! A pool is ranges (of addresses: [`ranges`]; of ports: the configuration's) minus the claims in
//! the store ([`crate::registry::claims`]). Picks are random, so that an address is not reused
//! soon. Of each address that is held there is an IPAddress ([`addresses`]).

pub mod addresses;
mod pick;
pub mod ranges;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_store::{Resource as Range, Snapshot};

use self::pick::Band;
use self::ranges::{family, nth, size};
use crate::api::Api;
use crate::random;
use crate::registry::claims::{CLUSTER_IP, Claim, Family, NODE_PORT, Pools};
use crate::rest::write::claim_key;
use crate::storage::Meta;

/// How many random picks are tried in a range before it is scanned.
const TRIES: usize = 64;

/// The pools as the store has them now.
pub struct StorePools<'a> {
    api: &'a Api,
    families: Vec<Family>,
    ranges: Vec<IpNet>,
    addresses: Option<Snapshot<Meta>>,
    ports: Option<Snapshot<Meta>>,
    /// What was picked already in this write.
    picked: BTreeSet<Claim>,
}

// === impl Api ===

impl Api {
    /// The pools as the store has them now.
    pub fn pools(&self) -> StorePools<'_> {
        let claims = |pool| Some(self.store.snapshot(&Range::new("claims", pool).ok()?));
        StorePools {
            api: self,
            families: self.config.service_cidrs.iter().map(family).collect(),
            ranges: self.service_ranges.all(),
            addresses: claims(CLUSTER_IP),
            ports: claims(NODE_PORT),
            picked: BTreeSet::new(),
        }
    }
}

// === impl StorePools ===

impl StorePools<'_> {
    fn take(&mut self, claim: Claim) -> bool {
        !self.is_taken(&claim) && self.picked.insert(claim)
    }

    /// Takes the address at an offset, if it is free.
    fn take_address(&mut self, net: IpNet, offset: u64) -> Option<IpAddr> {
        let address = nth(net, offset);
        let usable = address != net.network() && address != net.broadcast();
        let item = address.to_string();
        let pool = CLUSTER_IP;
        (usable && self.take(Claim { pool, item })).then_some(address)
    }
}

impl Pools for StorePools<'_> {
    fn families(&self) -> &[Family] {
        &self.families
    }

    fn pick_address(&mut self, wanted: Family) -> Option<IpAddr> {
        let ranges = self.ranges.iter().filter(|net| family(net) == wanted);
        let ranges = ranges.map(|net| (*net, Band::of_addresses(size(*net))));
        let ranges: Vec<(IpNet, Band)> = ranges.collect();
        let random = ranges
            .iter()
            .flat_map(|(net, band)| (0..TRIES).map(move |_| (*net, band.random(random::below))));
        let upper = ranges
            .iter()
            .flat_map(|(net, band)| band.upper().map(move |offset| (*net, offset)));
        let lower = ranges
            .iter()
            .flat_map(|(net, band)| band.lower().map(move |offset| (*net, offset)));
        random
            .chain(upper)
            .chain(lower)
            .find_map(|(net, offset)| self.take_address(net, offset))
    }

    fn pick_port(&mut self) -> Option<u16> {
        let range = self.api.config.node_ports.clone();
        let start = *range.start();
        let band = Band::of_ports(u64::from(range.end() - start) + 1);
        let random = (0..TRIES).map(|_| band.random(random::below));
        let all = random.chain(band.upper()).chain(band.lower());
        all.map(|offset| start + offset as u16).find(|port| {
            self.take(Claim {
                pool: NODE_PORT,
                item: port.to_string(),
            })
        })
    }

    fn holds_address(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|net| net.contains(&address))
    }

    fn is_taken(&self, claim: &Claim) -> bool {
        let snapshot = match claim.pool {
            CLUSTER_IP => &self.addresses,
            _ => &self.ports,
        };
        let (Some(snapshot), Ok(key)) = (snapshot, claim_key(claim)) else {
            return false;
        };
        snapshot.get(&key).is_some()
            || self.picked.contains(claim)
            || (claim.pool == CLUSTER_IP && addresses::is_reserved(self.api, &claim.item))
    }

    fn port_range(&self) -> String {
        let range = &self.api.config.node_ports;
        format!("{}-{}", range.start(), range.end())
    }

    fn holds_port(&self, port: u16) -> bool {
        self.api.config.node_ports.contains(&port)
    }
}
