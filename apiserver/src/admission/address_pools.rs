//! Pools of addresses: their ranges do not overlap, and nothing that is held goes from one.

use std::collections::BTreeSet;

use async_trait::async_trait;
use peapod_api::net::{AddressRange, GROUP};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, all};
use crate::api::Api;
use crate::registry::value;
use crate::status::Result;

/// Holders that a refusal names.
const NAMED_MAX: usize = 5;

pub struct AddressPools;

/// What a kind of pools is called, and what is claimed of them.
struct Family {
    kind: &'static str,
    plural: &'static str,
    claims: &'static str,
}

/// Pods' addresses.
const PODS: Family = Family {
    kind: "IpPool",
    plural: "ippools",
    claims: "ipblocks",
};
/// Load balancers' addresses.
const BALANCERS: Family = Family {
    kind: "LoadBalancerPool",
    plural: "loadbalancerpools",
    claims: "loadbalanceraddresses",
};

#[async_trait]
impl Plugin for AddressPools {
    async fn validate(&self, api: &Api, write: &Attributes<'_>, object: &Value) -> Result<()> {
        let of_kind = |family: &&Family| write.is_on(GROUP, family.plural);
        let Some(family) = [&PODS, &BALANCERS].into_iter().find(of_kind) else {
            return Ok(());
        };
        let remaining = match write.operation {
            Operation::Create => Vec::new(),
            Operation::Update => ranges(object),
            Operation::Delete => Vec::new(),
            Operation::Connect => return Ok(()),
        };
        let checked = match write.old {
            Some(old) => {
                let mut claims = all(api, GROUP, family.claims);
                if claims
                    .iter()
                    .any(|claim| claim["spec"]["services"].is_array())
                {
                    forget_gone(&mut claims, &all(api, "", "services"));
                }
                unheld(old, &remaining, &claims)
            }
            None => Ok(()),
        };
        let apart = || match write.operation {
            Operation::Delete => Ok(()),
            _ => [PODS, BALANCERS].iter().try_for_each(|other| {
                let others = all(api, GROUP, other.plural);
                let own = if other.plural == family.plural {
                    write.name
                } else {
                    ""
                };
                apart(object, own, other.kind, &others)
            }),
        };
        checked
            .and_then(|()| apart())
            .map_err(|why| write.forbid(why))
    }
}

/// The ranges of a pool, or of a claim of one.
fn ranges(object: &Value) -> Vec<AddressRange> {
    let spec = &object["spec"];
    let one = [&spec["cidr"], &spec["address"]].into_iter();
    let many = value::list(object, "spec.addresses").iter();
    let texts = one.chain(many).filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// Refuses a pool that overlaps with another one of a kind; `own` is its name if it is of that kind.
fn apart(pool: &Value, own: &str, kind: &str, others: &[Value]) -> Result<(), String> {
    for range in ranges(pool) {
        for other in others
            .iter()
            .filter(|other| value::text(other, "metadata.name") != own)
        {
            if ranges(other).iter().any(|other| other.overlaps(&range)) {
                return Err(format!(
                    "the addresses {}-{} overlap with the {kind} {:?}",
                    range.first(),
                    range.last(),
                    value::text(other, "metadata.name"),
                ));
            }
        }
    }
    Ok(())
}

/// Refuses to take from a pool what somebody holds; `remaining` is what stays.
fn unheld(pool: &Value, remaining: &[AddressRange], claims: &[Value]) -> Result<(), String> {
    let before = ranges(pool);
    let lost = |claim: &&Value| {
        let within = |all: &[AddressRange], held: &AddressRange| {
            all.iter().any(|range| range.contains(held.first()))
        };
        let held = ranges(claim);
        held.iter()
            .any(|held| within(&before, held) && !within(remaining, held))
    };
    let held: Vec<&Value> = claims.iter().filter(lost).collect();
    if held.is_empty() {
        return Ok(());
    }
    let holders: BTreeSet<String> = held.iter().flat_map(|claim| holders(claim)).collect();
    let more = if holders.len() > NAMED_MAX {
        ", ..."
    } else {
        ""
    };
    let named: Vec<String> = holders.into_iter().take(NAMED_MAX).collect();
    let named = named.join(", ");
    Err(match value::text(&pool["spec"], "cidr") {
        "" => format!(
            "{} of its addresses are held by services ({named}{more})",
            held.len()
        ),
        _ => format!(
            "{} of its blocks are held by nodes ({named}{more}); set spec.disabled, and delete it when these nodes are gone",
            held.len(),
        ),
    })
}

/// Claims of services that are all gone are about to go themselves.
fn forget_gone(claims: &mut Vec<Value>, services: &[Value]) {
    let there: BTreeSet<String> = services.iter().map(|one| named(&one["metadata"])).collect();
    claims.retain(|claim| {
        let services = value::list(claim, "spec.services");
        services.is_empty() || services.iter().any(|one| there.contains(&named(one)))
    });
}

fn named(one: &Value) -> String {
    format!(
        "{}/{}",
        value::text(one, "namespace"),
        value::text(one, "name")
    )
}

fn holders(claim: &Value) -> Vec<String> {
    let node = value::text(claim, "spec.node");
    let services = value::list(claim, "spec.services").iter().map(named);
    let node = (!node.is_empty()).then(|| node.to_owned());
    node.into_iter().chain(services).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pool(name: &str, cidr: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"cidr": cidr}})
    }

    fn balancers(addresses: &[&str]) -> Value {
        json!({"metadata": {"name": "lb"}, "spec": {"addresses": addresses}})
    }

    #[test]
    fn pools_do_not_overlap() {
        let others = [pool("a", "10.0.0.0/16"), pool("b", "fd00::/56")];
        let apart = |pool: &Value, own: &str| apart(pool, own, "IpPool", &others);
        assert_eq!(apart(&pool("c", "10.1.0.0/16"), "c"), Ok(()));
        let why = apart(&pool("c", "10.0.0.0/8"), "c").unwrap_err();
        assert_eq!(
            why,
            "the addresses 10.0.0.0-10.255.255.255 overlap with the IpPool \"a\""
        );
        assert!(apart(&pool("c", "fd00:0:0:1::/64"), "c").is_err());
        assert_eq!(apart(&pool("a", "10.0.0.0/16"), "a"), Ok(()), "itself");
        assert!(apart(&balancers(&["10.1.0.0/24", "10.0.0.9"]), "").is_err());
    }

    #[test]
    fn a_pool_in_use_stays() {
        let block = |cidr: &str| json!({"spec": {"cidr": cidr, "node": "n1"}});
        let blocks = [
            block("10.0.1.0/24"),
            block("10.0.2.0/24"),
            block("10.1.0.0/24"),
        ];
        assert_eq!(unheld(&pool("a", "10.2.0.0/16"), &[], &blocks), Ok(()));
        let why = unheld(&pool("a", "10.0.0.0/16"), &[], &blocks).unwrap_err();
        assert!(
            why.starts_with("2 of its blocks are held by nodes (n1);"),
            "{why}"
        );
    }

    #[test]
    fn what_a_service_has_stays_in_its_pool() {
        let claim = json!({"spec": {"address": "192.0.2.7", "services": [{"namespace": "ns", "name": "web"}]}});
        let pool = balancers(&["192.0.2.0/24"]);
        let mut claims = vec![claim];
        let web = json!({"metadata": {"namespace": "ns", "name": "web"}});
        forget_gone(&mut claims, &[web]);
        let remains = |text: &str| unheld(&pool, &[text.parse().unwrap()], &claims);
        assert_eq!(remains("192.0.2.4-192.0.2.8"), Ok(()));
        let why = remains("192.0.2.8-192.0.2.255").unwrap_err();
        assert_eq!(why, "1 of its addresses are held by services (ns/web)");
        // The service is gone, and its claim not yet.
        forget_gone(&mut claims, &[]);
        assert_eq!(unheld(&pool, &[], &claims), Ok(()));
    }
}
