//! Pools of addresses: their ranges do not overlap, and none goes while something of it is held.

use std::collections::BTreeSet;

use async_trait::async_trait;
use ipnet::IpNet;
use peapod_api::net::GROUP;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, all};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// Holders that a refusal names.
const NAMED_MAX: usize = 5;

pub struct AddressPools;

#[async_trait]
impl Plugin for AddressPools {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        if !write.is_on(GROUP, "ippools") {
            return Ok(());
        }
        let checked = match write.operation {
            Operation::Create => apart(object, &all(api, GROUP, "ippools")),
            Operation::Delete => unheld(object, &all(api, GROUP, "ipblocks")),
            // Ranges are immutable.
            Operation::Update | Operation::Connect => Ok(()),
        };
        checked.map_err(|why| write.forbid(why))
    }
}

fn cidr_of(object: &Value) -> Option<IpNet> {
    value::text(object, "spec.cidr").parse().ok()
}

/// Refuses a pool that overlaps with another one.
fn apart(pool: &Value, others: &[Value]) -> Result<(), String> {
    let Some(cidr) = cidr_of(pool) else {
        return Ok(());
    };
    let overlaps = |other: &&Value| {
        cidr_of(other).is_some_and(|other| other.contains(&cidr) || cidr.contains(&other))
    };
    match others.iter().find(overlaps) {
        None => Ok(()),
        Some(other) => {
            let (name, range) = (
                value::text(other, "metadata.name"),
                value::text(other, "spec.cidr"),
            );
            Err(format!(
                "spec.cidr: Invalid value: \"{cidr}\": overlaps with the IpPool {name:?} ({range})"
            ))
        }
    }
}

/// Refuses to let go of a pool of which nodes hold blocks.
fn unheld(pool: &Value, blocks: &[Value]) -> Result<(), String> {
    let Some(range) = cidr_of(pool) else {
        return Ok(());
    };
    let of_pool = |block: &&Value| cidr_of(block).is_some_and(|block| range.contains(&block));
    let held: Vec<&Value> = blocks.iter().filter(of_pool).collect();
    if held.is_empty() {
        return Ok(());
    }
    let holders = held.iter().map(|block| value::text(block, "spec.node"));
    let holders: BTreeSet<&str> = holders.collect();
    let more = if holders.len() > NAMED_MAX {
        ", ..."
    } else {
        ""
    };
    let named: Vec<&str> = holders.into_iter().take(NAMED_MAX).collect();
    Err(format!(
        "{} of its blocks are held by nodes ({}{more}); set spec.disabled, and delete it when these nodes are gone",
        held.len(),
        named.join(", "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(name: &str, cidr: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"cidr": cidr}})
    }

    #[test]
    fn pools_do_not_overlap() {
        let others = [pool("a", "10.0.0.0/16"), pool("b", "fd00::/56")];
        assert_eq!(apart(&pool("c", "10.1.0.0/16"), &others), Ok(()));
        let why = apart(&pool("c", "10.0.0.0/8"), &others).unwrap_err();
        assert_eq!(
            why,
            "spec.cidr: Invalid value: \"10.0.0.0/8\": overlaps with the IpPool \"a\" (10.0.0.0/16)"
        );
        assert!(apart(&pool("c", "fd00:0:0:1::/64"), &others).is_err());
    }

    #[test]
    fn a_pool_in_use_stays() {
        let block = |cidr: &str| json!({"spec": {"cidr": cidr, "node": "n1"}});
        let blocks = [
            block("10.0.1.0/24"),
            block("10.0.2.0/24"),
            block("10.1.0.0/24"),
        ];
        assert_eq!(unheld(&pool("a", "10.2.0.0/16"), &blocks), Ok(()));
        let why = unheld(&pool("a", "10.0.0.0/16"), &blocks).unwrap_err();
        assert!(
            why.starts_with("2 of its blocks are held by nodes (n1);"),
            "{why}"
        );
    }
}
