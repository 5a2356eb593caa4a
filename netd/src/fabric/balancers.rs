//! Which nodes announce the addresses of load balancers: those that their pool selects. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use peapod_api::net::{AddressRange, LoadBalancerPoolSpec};
use peapod_api::selector::Selector;

/// What a node must know of the pools, by their names.
#[derive(Clone, Debug, Default)]
pub struct Balancers(BTreeMap<String, Pool>);

#[derive(Clone, Debug)]
struct Pool {
    ranges: Vec<AddressRange>,
    /// Which nodes announce them; none, if it cannot be read.
    nodes: Option<Selector>,
}

// === impl Balancers ===

impl Balancers {
    /// Notes a pool.
    pub fn set(&mut self, name: String, spec: &LoadBalancerPoolSpec) {
        let ranges = spec.addresses.iter();
        let nodes = match &spec.node_selector {
            None => Some(Selector::everything()),
            Some(selector) => Selector::from_label_selector(selector).ok(),
        };
        let pool = Pool {
            ranges: ranges.filter_map(|range| range.parse().ok()).collect(),
            nodes,
        };
        self.0.insert(name, pool);
    }

    /// Forgets a pool.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Forgets the pools that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// Whether a node with these labels announces an address. Those of no pool are everybody's to
    /// announce: `externalIPs` need none.
    pub fn announces(&self, labels: &BTreeMap<String, String>, ip: IpAddr) -> bool {
        let holds = |pool: &&Pool| pool.ranges.iter().any(|range| range.contains(ip));
        let Some(pool) = self.0.values().find(holds) else {
            return true;
        };
        let nodes = pool.nodes.as_ref();
        nodes.is_some_and(|nodes| nodes.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_selected_nodes_announce() {
        let mut balancers = Balancers::default();
        for (name, spec) in [
            (
                "a",
                json!({"addresses": ["192.0.2.0/28"], "nodeSelector": {"matchLabels": {"edge": "yes"}}}),
            ),
            ("b", json!({"addresses": ["192.0.2.64-192.0.2.70"]})),
        ] {
            balancers.set(name.to_owned(), &serde_json::from_value(spec).unwrap());
        }
        let edge = BTreeMap::from([("edge".to_owned(), "yes".to_owned())]);
        let inner = BTreeMap::new();
        let announces = |labels, ip: &str| balancers.announces(labels, ip.parse().unwrap());
        assert!(announces(&edge, "192.0.2.7"));
        assert!(!announces(&inner, "192.0.2.7"));
        assert!(announces(&inner, "192.0.2.64"));
        assert!(announces(&inner, "198.51.100.1"), "an external address");
        balancers.retain(|name| name != "a");
        assert!(balancers.announces(&inner, "192.0.2.7".parse().unwrap()));
    }
}
