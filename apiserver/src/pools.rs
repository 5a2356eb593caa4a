//! Service addresses and node ports: where free ones come from.
//!
//! A pool is a range in the configuration minus the claims in the store
//! ([`crate::registry::claims`]). Picks are random, so that an address is not reused soon.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_store::{Resource as Range, Snapshot};

use crate::api::Api;
use crate::random;
use crate::registry::claims::{CLUSTER_IP, Claim, Family, NODE_PORT, Pools};
use crate::rest::write::claim_key;
use crate::storage::Meta;

/// How many random picks are tried before the range is scanned.
const TRIES: usize = 64;
/// How many addresses of a range are scanned at most.
const SCAN_MAX: u128 = 1 << 16;

/// The pools as the store has them now.
pub struct StorePools<'a> {
    api: &'a Api,
    families: Vec<Family>,
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
            addresses: claims(CLUSTER_IP),
            ports: claims(NODE_PORT),
            picked: BTreeSet::new(),
        }
    }
}

fn family(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

// === impl StorePools ===

impl StorePools<'_> {
    fn take(&mut self, claim: Claim) -> bool {
        !self.is_taken(&claim) && self.picked.insert(claim)
    }
}

impl Pools for StorePools<'_> {
    fn families(&self) -> &[Family] {
        &self.families
    }

    fn pick_address(&mut self, wanted: Family) -> Option<IpAddr> {
        let cidrs = &self.api.config.service_cidrs;
        let net = *cidrs.iter().find(|net| family(net) == wanted)?;
        let size = size(net);
        let random = (0..TRIES).map(|_| u128::from(random::below(size as u64)));
        let scan = 0..size.min(SCAN_MAX);
        for offset in random.chain(scan) {
            let address = nth(net, offset);
            let usable = address != net.network() && address != net.broadcast();
            let claim = Claim {
                pool: CLUSTER_IP,
                item: address.to_string(),
            };
            if usable && self.take(claim) {
                return Some(address);
            }
        }
        None
    }

    fn pick_port(&mut self) -> Option<u16> {
        let range = self.api.config.node_ports.clone();
        let count = u64::from(range.end() - range.start()) + 1;
        let start = *range.start();
        let random = (0..TRIES).map(|_| start + random::below(count) as u16);
        random.chain(range).find(|port| {
            self.take(Claim {
                pool: NODE_PORT,
                item: port.to_string(),
            })
        })
    }

    fn holds_address(&self, address: IpAddr) -> bool {
        let mut cidrs = self.api.config.service_cidrs.iter();
        cidrs.any(|net| net.contains(&address))
    }

    fn is_taken(&self, claim: &Claim) -> bool {
        let snapshot = match claim.pool {
            CLUSTER_IP => &self.addresses,
            _ => &self.ports,
        };
        let (Some(snapshot), Ok(key)) = (snapshot, claim_key(claim)) else {
            return false;
        };
        snapshot.get(&key).is_some() || self.picked.contains(claim)
    }

    fn port_range(&self) -> String {
        let range = &self.api.config.node_ports;
        format!("{}-{}", range.start(), range.end())
    }

    fn holds_port(&self, port: u16) -> bool {
        self.api.config.node_ports.contains(&port)
    }
}

/// How many addresses a range has, as far as they fit.
fn size(net: IpNet) -> u128 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1u128 << bits.min(63)
}

/// The address at an offset.
fn nth(net: IpNet, offset: u128) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let base = u32::from(net.network());
            IpAddr::V4((base.wrapping_add(offset as u32)).into())
        }
        IpNet::V6(net) => {
            let base = u128::from(net.network());
            IpAddr::V6((base.wrapping_add(offset)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_by_offset() {
        let v4: IpNet = "10.96.0.0/16".parse().unwrap();
        assert_eq!(size(v4), 65536);
        assert_eq!(nth(v4, 257).to_string(), "10.96.1.1");
        let v6: IpNet = "fd00:10:96::/112".parse().unwrap();
        assert_eq!(nth(v6, 16).to_string(), "fd00:10:96::10");
    }
}
