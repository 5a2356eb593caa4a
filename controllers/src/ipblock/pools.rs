//! Which pools a node's blocks are cut from. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use peapod_api::net::{IpPool, IpPoolSpec};
use peapod_api::selector::Selector;

use crate::config::BlockRange;

/// A pool that gives blocks to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The pool's name.
    pub pool: String,
    /// What blocks are cut from.
    pub range: BlockRange,
}

/// What a pool's blocks are cut from; `None` for one that cannot be read.
pub fn range_of(spec: &IpPoolSpec) -> Option<BlockRange> {
    let cidr: IpNet = spec.cidr.parse().ok()?;
    let default = IpPoolSpec::default_block_size(cidr);
    let block_prefix = spec.block_size.unwrap_or(default);
    let sound = (cidr.prefix_len()..=cidr.max_prefix_len()).contains(&block_prefix);
    sound.then(|| BlockRange {
        cidr: cidr.trunc(),
        block_prefix,
    })
}

/// The pools that give blocks to a node with these labels, in the order in which they are asked:
/// those that name nodes before those for all, then by name. A pool that is disabled or on its way
/// out gives nothing, and a selector that cannot be read selects nothing.
pub fn sources(pools: &[Arc<IpPool>], labels: Option<&BTreeMap<String, String>>) -> Vec<Source> {
    let mut found: Vec<(bool, Source)> = Vec::new();
    for pool in pools {
        let leaving = pool.metadata.deletion_timestamp.is_some();
        if leaving || pool.spec.disabled || !selects(&pool.spec, labels) {
            continue;
        }
        if let Some(range) = range_of(&pool.spec) {
            let pool_name = pool.metadata.name.clone().unwrap_or_default();
            let for_all = pool.spec.node_selector.is_none();
            found.push((
                for_all,
                Source {
                    pool: pool_name,
                    range,
                },
            ));
        }
    }
    found.sort_by(|(a_all, a), (b_all, b)| (a_all, &a.pool).cmp(&(b_all, &b.pool)));
    found.into_iter().map(|(_, source)| source).collect()
}

fn selects(spec: &IpPoolSpec, labels: Option<&BTreeMap<String, String>>) -> bool {
    let Some(selector) = &spec.node_selector else {
        return true;
    };
    let label = |key: &str| labels.and_then(|all| all.get(key)).map(String::as_str);
    let selector = Selector::from_label_selector(selector);
    selector.is_ok_and(|selector| selector.matches_with(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pools(specs: serde_json::Value) -> Vec<Arc<IpPool>> {
        let specs = specs.as_object().unwrap().iter();
        let pool = |(name, spec): (&String, &serde_json::Value)| {
            let pool = json!({"apiVersion": "net.peapod.dev/v1", "kind": "IpPool",
                "metadata": {"name": name}, "spec": spec});
            Arc::new(serde_json::from_value(pool).unwrap())
        };
        specs.map(pool).collect()
    }

    fn asked(pools: &[Arc<IpPool>], labels: &[(&str, &str)]) -> Vec<String> {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let labels = labels.collect();
        let sources = sources(pools, Some(&labels)).into_iter();
        sources.map(|source| source.pool).collect()
    }

    #[test]
    fn pools_that_name_nodes_are_asked_first() {
        let pools = pools(json!({
            "a": {"cidr": "10.0.0.0/16"},
            "b": {"cidr": "10.1.0.0/16", "nodeSelector": {"matchLabels": {"zone": "x"}}},
            "c": {"cidr": "10.2.0.0/16", "disabled": true},
            "d": {"cidr": "10.3.0.0/16", "nodeSelector": {"matchExpressions": [{"key": "zone", "operator": "Is"}]}},
            "e": {"cidr": "fd00::/56", "blockSize": 20},
        }));
        assert_eq!(asked(&pools, &[("zone", "x")]), ["b", "a"]);
        assert_eq!(asked(&pools, &[]), ["a"]);
    }

    #[test]
    fn blocks_have_a_size() {
        let size = |spec: serde_json::Value| {
            let spec = serde_json::from_value(spec).unwrap();
            range_of(&spec).map(|range| range.block_prefix)
        };
        assert_eq!(size(json!({"cidr": "10.0.0.0/16"})), Some(24));
        assert_eq!(size(json!({"cidr": "fd00::/56"})), Some(64));
        assert_eq!(
            size(json!({"cidr": "10.0.0.0/16", "blockSize": 30})),
            Some(30)
        );
        assert_eq!(size(json!({"cidr": "here"})), None);
    }
}
