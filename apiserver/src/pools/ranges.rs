//! The ranges that Services get their addresses from: the servers' own, and those of further
//! ServiceCIDRs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_api::labels::DEFAULT_SERVICE_CIDR;
use peapod_store::{Entry, Key};
use serde_json::Value;

use crate::registry::{Registry, claims::Family, value};
use crate::storage::{self, Followed, Meta, Store, View};

/// The ranges, as the store has them now.
pub struct ServiceRanges {
    own: Vec<IpNet>,
    /// None if the kind is not served.
    further: Option<Followed<Further>>,
}

/// The ranges of ServiceCIDRs, by their names.
#[derive(Default)]
struct Further(BTreeMap<String, Vec<IpNet>>);

// === impl ServiceRanges ===

impl ServiceRanges {
    /// Those of the servers, and what the store will have beside them.
    pub fn new(store: Store, registry: &Registry, own: &[IpNet]) -> Self {
        let kind = registry.find("networking.k8s.io", "v1", "servicecidrs");
        let further = kind.map(|kind| {
            let ranges = vec![storage::range(&kind.kind)];
            Followed::new(store, ranges, Further::default())
        });
        Self {
            own: own.to_vec(),
            further,
        }
    }

    /// All ranges, the servers' own first.
    pub fn all(&self) -> Vec<IpNet> {
        let mut all = self.own.clone();
        if let Some(further) = &self.further {
            all.extend(further.read().0.values().flatten());
        }
        all
    }
}

// === impl Further ===

impl View for Further {
    fn clear(&mut self) {
        self.0.clear();
    }

    fn put(&mut self, entry: &Entry<Meta>) {
        let object = serde_json::from_slice(&entry.value).unwrap_or_default();
        self.0.insert(entry.key.name().to_owned(), usable(&object));
    }

    fn remove(&mut self, key: &Key) {
        self.0.remove(key.name());
    }
}

/// The ranges of a ServiceCIDR from which addresses are given: none of one that is going or not
/// ready, and those of the servers' own are known from their configuration. One of which nobody
/// has said yet whether it is ready is taken to be.
fn usable(object: &Value) -> Vec<IpNet> {
    let mut conditions = value::list(object, "status.conditions").iter();
    let unready = conditions
        .any(|one| value::text(one, "type") == "Ready" && value::text(one, "status") != "True");
    let going = value::at(object, "metadata.deletionTimestamp").is_some();
    if unready || going || value::text(object, "metadata.name") == DEFAULT_SERVICE_CIDR {
        return Vec::new();
    }
    let cidrs = value::list(object, "spec.cidrs").iter();
    let cidrs = cidrs.filter_map(|cidr| cidr.as_str()?.parse::<IpNet>().ok());
    cidrs.map(|cidr| cidr.trunc()).collect()
}

/// The family of a range's addresses.
pub fn family(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// How many addresses a range has, as far as they fit.
pub fn size(net: IpNet) -> u64 {
    let bits = u32::from(net.max_prefix_len() - net.prefix_len());
    1 << bits.min(63)
}

/// The address at an offset.
pub fn nth(net: IpNet, offset: u64) -> IpAddr {
    match net {
        IpNet::V4(net) => {
            let base = u32::from(net.network());
            IpAddr::V4(base.wrapping_add(offset as u32).into())
        }
        IpNet::V6(net) => {
            let base = u128::from(net.network());
            IpAddr::V6(base.wrapping_add(u128::from(offset)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_by_offset() {
        let v4: IpNet = "10.96.0.0/16".parse().unwrap();
        assert_eq!(size(v4), 65536);
        assert_eq!(nth(v4, 257).to_string(), "10.96.1.1");
        let v6: IpNet = "fd00:10:96::/112".parse().unwrap();
        assert_eq!(nth(v6, 16).to_string(), "fd00:10:96::10");
    }

    #[test]
    fn ranges_that_are_going_or_not_ready_give_no_addresses() {
        let ranges = |name: &str, gone: Value, ready: Value| {
            let object = json!({
                "metadata": {"name": name, "deletionTimestamp": gone},
                "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            });
            usable(&object).len()
        };
        let when = || json!("2026-01-01T00:00:00Z");
        assert_eq!(ranges("more", Value::Null, json!("True")), 2);
        assert_eq!(ranges("more", Value::Null, json!("False")), 0);
        assert_eq!(ranges("more", when(), json!("True")), 0);
        assert_eq!(ranges(DEFAULT_SERVICE_CIDR, Value::Null, json!("True")), 0);
        let fresh = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.0.2.0/24", "x"]}});
        assert_eq!(usable(&fresh).len(), 1);
    }
}
