//! The table sizes that the cluster's BGP plan leads to, in the status of the `BgpConfig`. What
//! decides is [`TableFacts`]; here is what it is told.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use peapod_api::labels::RACK;
use peapod_api::net::{Announce, BgpConfigStatus, IpBlock, IpPool, NodeRoutes, TableFacts};

use crate::common::Key;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

/// How far the sizes may be behind: many changes at once are counted once.
const LAG: Duration = Duration::from_secs(1);

struct Tables(Context);

/// Wires the loop; its keys are `BgpConfig`s, of which there is one.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let informers = &ctx.informers;
    let wired = Loop::new(ctx, "bgp-tables")
        .on_self(&informers.bgp_configs)
        .reads(&informers.nodes)
        .reads(&informers.ip_blocks)
        .reads(&informers.ip_pools)
        .reads(&informers.services);
    let (queue, configs) = (wired.queue(), informers.bgp_configs.clone());
    let later = move || {
        for config in configs.all() {
            queue.add_after(Key::of(&*config), LAG);
        }
    };
    let soon = later.clone();
    informers.nodes.on_change(move |change: &Change<Node>| {
        let told = |node: &Arc<Node>| (rack(node), ips(node));
        if change.old.as_ref().map(told) != change.new.as_ref().map(told) {
            soon();
        }
    });
    let soon = later.clone();
    informers.ip_blocks.on_change(move |_| soon());
    let soon = later.clone();
    informers.ip_pools.on_change(move |_| soon());
    informers
        .services
        .on_change(move |change: &Change<Service>| {
            let told = |service: &Arc<Service>| addresses(service);
            if change.old.as_ref().map(told) != change.new.as_ref().map(told) {
                later();
            }
        });
    wired.workers(1).run(tasks, Tables(ctx.clone()));
}

impl Controller for Tables {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(config) = informers.bgp_configs.get(key) else {
            return Ok(Outcome::Done);
        };
        let facts = facts(
            &config.spec.announce,
            &informers.nodes.all(),
            &informers.ip_blocks.all(),
            &informers.ip_pools.all(),
            &informers.services.all(),
        );
        let status = BgpConfigStatus {
            tables: facts.tables(),
        };
        write::status(&self.0, &*config, config.status.as_ref(), &status).await?;
        Ok(Outcome::Done)
    }
}

fn facts(
    announce: &Announce,
    nodes: &[Arc<Node>],
    blocks: &[Arc<IpBlock>],
    pools: &[Arc<IpPool>],
    services: &[Arc<Service>],
) -> TableFacts {
    let mut facts = TableFacts {
        announce: announce.clone(),
        ..TableFacts::default()
    };
    for node in nodes {
        let routes = NodeRoutes {
            rack: rack(node),
            ips: ips(node) as u64,
            ..NodeRoutes::default()
        };
        let name = node.metadata.name.clone().unwrap_or_default();
        facts.nodes.insert(name, routes);
    }
    for block in blocks {
        // One that outlives its node is announced by nobody.
        let Some(routes) = facts.nodes.get_mut(&block.spec.node) else {
            continue;
        };
        match block.spec.cidr.contains(':') {
            true => routes.blocks_v6 += 1,
            false => routes.blocks_v4 += 1,
        }
    }
    let in_use = pools.iter().filter_map(|pool| pool.status.as_ref());
    facts.pod_ips = in_use.map(|status| status.addresses_in_use).sum();
    let (mut external, mut cluster) = (BTreeSet::new(), BTreeSet::new());
    for service in services {
        let (outer, inner) = addresses(service);
        external.extend(outer);
        cluster.extend(inner);
    }
    facts.service_ips = external.len() as u64;
    facts.cluster_ips = cluster.len() as u64;
    facts
}

fn rack(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get(RACK).cloned()
}

fn ips(node: &Node) -> usize {
    let status = node.status.as_ref();
    let all = status.and_then(|status| status.addresses.as_deref());
    let internal = all
        .into_iter()
        .flatten()
        .filter(|one| one.type_ == "InternalIP");
    internal.count()
}

/// A service's addresses: load balancer and external ones, and those in the cluster.
fn addresses(service: &Service) -> (BTreeSet<IpAddr>, BTreeSet<IpAddr>) {
    let spec = service.spec.as_ref();
    let outer = spec.and_then(|spec| spec.external_ips.as_deref());
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref());
    let balancer = balancer
        .into_iter()
        .flatten()
        .filter_map(|one| one.ip.as_ref());
    let inner = spec.and_then(|spec| spec.cluster_ips.as_deref());
    let outer = outer.into_iter().flatten().chain(balancer);
    (
        outer.filter_map(|ip| ip.parse().ok()).collect(),
        inner
            .into_iter()
            .flatten()
            .filter_map(|ip| ip.parse().ok())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    fn all<K: DeserializeOwned>(objects: &[Value]) -> Vec<Arc<K>> {
        let read = |object: &Value| Arc::new(serde_json::from_value(object.clone()).unwrap());
        objects.iter().map(read).collect()
    }

    #[test]
    fn what_counts() {
        let node = |name: &str, rack: &str| {
            json!({
            "metadata": {"name": name, "labels": {"net.peapod.dev/rack": rack}},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "Hostname", "address": name}]}})
        };
        let block = |cidr: &str, node: &str| {
            json!({"apiVersion": "net.peapod.dev/v1",
            "kind": "IpBlock", "metadata": {"name": "b"}, "spec": {"cidr": cidr, "node": node}})
        };
        let pool = json!({"apiVersion": "net.peapod.dev/v1", "kind": "IpPool",
            "metadata": {"name": "p"}, "spec": {"cidr": "10.244.0.0/16"},
            "status": {"addressesInUse": 7}});
        let service = json!({"metadata": {"name": "s"},
            "spec": {"externalIPs": ["192.0.2.1"], "clusterIPs": ["10.96.0.1"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}}});
        let headless = json!({"metadata": {"name": "h"}, "spec": {"clusterIPs": ["None"]}});
        let facts = facts(
            &Announce::default(),
            &all(&[node("a", "r1"), node("b", "r2")]),
            &all(&[
                block("10.244.0.0/24", "a"),
                block("fd00::/64", "a"),
                block("10.244.9.0/24", "gone"),
            ]),
            &all(&[pool]),
            &all(&[service, headless]),
        );
        let told = (facts.pod_ips, facts.service_ips, facts.cluster_ips);
        assert_eq!(told, (7, 2, 1));
        let a = &facts.nodes["a"];
        assert_eq!(
            (a.blocks_v4, a.blocks_v6, a.ips, a.rack.as_deref()),
            (1, 1, 1, Some("r1"))
        );
        assert_eq!(facts.tables().spine.routes, 4);
    }
}
