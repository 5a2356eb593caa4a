//! What the node could announce: its blocks, and the addresses of services that it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::core::services::{Dispatch, Frontend, ServiceTable};

/// What the node could announce.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Its blocks of pod addresses.
    pub blocks: Vec<IpNet>,
    /// Addresses outside of the ranges of cluster addresses: of load balancers, and external ones.
    pub external: BTreeSet<IpAddr>,
    /// Cluster addresses.
    pub cluster: BTreeSet<IpAddr>,
}

// === impl Announced ===

impl Announced {
    /// Reads them off the service map. An address counts while one of its ports leads, from
    /// outside of the cluster, to an endpoint: by `externalTrafficPolicy: Local` one of this node,
    /// and one that stays, so that nobody is led here any more when the last one ends.
    pub fn of(blocks: &[IpNet], service_cidrs: &[IpNet], services: &ServiceTable) -> Self {
        Self::told(
            blocks,
            service_cidrs,
            services.current(),
            services.leaving(),
        )
    }

    /// All addresses of services.
    pub fn services(&self) -> impl Iterator<Item = IpAddr> {
        self.external.iter().chain(&self.cluster).copied()
    }

    fn told(
        blocks: &[IpNet],
        service_cidrs: &[IpNet],
        map: &BTreeMap<Frontend, Dispatch>,
        leaving: &BTreeSet<Frontend>,
    ) -> Self {
        let mut announced = Self {
            blocks: blocks.to_vec(),
            ..Self::default()
        };
        for (frontend, dispatch) in map {
            let Frontend::Address { ip, .. } = frontend else {
                continue;
            };
            if leaving.contains(frontend) || !answers_outside(dispatch) {
                continue;
            }
            let cluster = service_cidrs.iter().any(|range| range.contains(ip));
            match cluster {
                true => announced.cluster.insert(*ip),
                false => announced.external.insert(*ip),
            };
        }
        announced
    }
}

fn answers_outside(dispatch: &Dispatch) -> bool {
    match dispatch {
        Dispatch::Balance(balance) => match &balance.outside {
            Some(local) => !local.is_empty(),
            None => !balance.endpoints.is_empty(),
        },
        Dispatch::Refuse | Dispatch::Drop | Dispatch::Here => false,
    }
}

#[cfg(test)]
mod tests {
    use peapod_api::attach::Protocol;

    use super::*;
    use crate::core::services::Balance;

    #[test]
    fn only_what_is_answered() {
        let balance = |outside: Option<&[&str]>| {
            let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
            Dispatch::Balance(Balance {
                endpoints: addresses(&["10.244.0.1:80"]),
                outside: outside.map(addresses),
                affinity_s: None,
            })
        };
        let at = |ip: &str| Frontend::Address {
            ip: ip.parse().unwrap(),
            protocol: Protocol::Tcp,
            port: 80,
        };
        let map = BTreeMap::from([
            (at("192.0.2.1"), balance(None)),
            (at("192.0.2.2"), balance(Some(&[]))),
            (at("192.0.2.3"), balance(Some(&["10.244.0.1:80"]))),
            (at("192.0.2.4"), Dispatch::Refuse),
            (at("192.0.2.5"), balance(Some(&["10.244.0.1:80"]))),
            (at("10.96.0.7"), balance(None)),
            (at("10.96.0.10"), Dispatch::Here),
        ]);
        let range = "10.96.0.0/16".parse().unwrap();
        let leaving = BTreeSet::from([at("192.0.2.5")]);
        let announced = Announced::told(&[], &[range], &map, &leaving);
        let text = |ips: &BTreeSet<IpAddr>| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(text(&announced.external), ["192.0.2.1", "192.0.2.3"]);
        assert_eq!(text(&announced.cluster), ["10.96.0.7"]);
    }
}
