//! The routes that the cluster brings into the tables of nodes, leaves and spines, with and without
//! aggregation: what an AS plan and its announcements lead to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Announce;

/// Routes of the cluster in the tables of each role. What else the fabric carries comes on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpTables {
    /// Of a node: of one in the largest rack.
    pub node: BgpTable,
    /// Of a leaf: of one above the largest rack.
    pub leaf: BgpTable,
    /// Of a spine.
    pub spine: BgpTable,
}

/// The routes of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpTable {
    /// As nodes announce now: a route for each block.
    #[serde(default)]
    pub routes: u64,
    /// If leaves announced one summary of each family for their rack; of nodes in racks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_rack: Option<u64>,
    /// If there were no blocks: a route for each pod address.
    #[serde(default)]
    pub without_aggregation: u64,
}

/// What a node brings in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRoutes {
    /// The rack that it is in.
    pub rack: Option<String>,
    /// Its blocks of IPv4 addresses.
    pub blocks_v4: u64,
    /// Its blocks of IPv6 addresses.
    pub blocks_v6: u64,
    /// Its own addresses.
    pub ips: u64,
}

/// What the tables follow from.
#[derive(Clone, Debug, Default)]
pub struct TableFacts {
    /// What nodes announce.
    pub announce: Announce,
    /// The nodes, by name.
    pub nodes: BTreeMap<String, NodeRoutes>,
    /// Addresses that pods have.
    pub pod_ips: u64,
    /// Load balancer and external addresses of services.
    pub service_ips: u64,
    /// Cluster addresses of services.
    pub cluster_ips: u64,
}

// === impl TableFacts ===

impl TableFacts {
    /// The tables of each role.
    pub fn tables(&self) -> BgpTables {
        let racks = self.racks();
        let largest = racks.iter().max_by_key(|rack| self.blocks_in(Some(rack)));
        let leaf = self.below(&largest.copied().into_iter().collect());
        BgpTables {
            node: leaf,
            leaf,
            spine: self.below(&BTreeSet::new()),
        }
    }

    /// The table of a leaf above these racks; of a spine, above none: of other racks it would have
    /// summaries.
    pub fn below(&self, racks: &BTreeSet<&str>) -> BgpTable {
        let singly = self.singly();
        let blocks: u64 = self.nodes.values().map(|node| self.blocks(node)).sum();
        let all = self.racks();
        let by_rack = (!all.is_empty()).then(|| {
            let whole = self.blocks_in(None)
                + racks
                    .iter()
                    .map(|rack| self.blocks_in(Some(rack)))
                    .sum::<u64>();
            let others = all.difference(racks);
            whole + others.map(|rack| self.families_in(rack)).sum::<u64>() + singly
        });
        let pods = if self.announce.pod_cidrs {
            self.pod_ips
        } else {
            0
        };
        BgpTable {
            routes: blocks + singly,
            by_rack,
            without_aggregation: pods + singly,
        }
    }

    /// Addresses that are announced one by one, whatever is done about blocks.
    fn singly(&self) -> u64 {
        let announce = &self.announce;
        let nodes = self.nodes.values().map(|node| node.ips).sum::<u64>();
        let parts = [
            (announce.services, self.service_ips),
            (announce.cluster_ips, self.cluster_ips),
            (announce.node_ips, nodes),
        ];
        parts
            .iter()
            .filter(|(wanted, _)| *wanted)
            .map(|(_, count)| count)
            .sum()
    }

    fn racks(&self) -> BTreeSet<&str> {
        self.nodes
            .values()
            .filter_map(|node| node.rack.as_deref())
            .collect()
    }

    fn blocks(&self, node: &NodeRoutes) -> u64 {
        match self.announce.pod_cidrs {
            true => node.blocks_v4 + node.blocks_v6,
            false => 0,
        }
    }

    fn of_rack<'a>(&'a self, rack: Option<&'a str>) -> impl Iterator<Item = &'a NodeRoutes> {
        self.nodes
            .values()
            .filter(move |node| node.rack.as_deref() == rack)
    }

    fn blocks_in(&self, rack: Option<&str>) -> u64 {
        self.of_rack(rack).map(|node| self.blocks(node)).sum()
    }

    /// How many families a rack has blocks of.
    fn families_in(&self, rack: &str) -> u64 {
        let has = |of: fn(&NodeRoutes) -> u64| self.of_rack(Some(rack)).any(|node| of(node) > 0);
        match self.announce.pod_cidrs {
            true => u64::from(has(|node| node.blocks_v4)) + u64::from(has(|node| node.blocks_v6)),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of two families: rack r1 has two, r2 one with two IPv4 blocks, one node has no rack.
    fn facts() -> TableFacts {
        let node = |rack: Option<&str>, blocks_v4| NodeRoutes {
            rack: rack.map(str::to_owned),
            blocks_v4,
            blocks_v6: 1,
            ips: 1,
        };
        let nodes = [
            ("a", node(Some("r1"), 1)),
            ("b", node(Some("r1"), 1)),
            ("c", node(Some("r2"), 2)),
            ("d", node(None, 1)),
        ];
        TableFacts {
            announce: Announce::default(),
            nodes: nodes.map(|(name, node)| (name.to_owned(), node)).into(),
            pod_ips: 200,
            service_ips: 5,
            cluster_ips: 40,
        }
    }

    fn shown(facts: &TableFacts) -> String {
        let tables = facts.tables();
        let table = |table: BgpTable| {
            let by_rack = table
                .by_rack
                .map_or("-".to_owned(), |count| count.to_string());
            format!("{} {by_rack} {}", table.routes, table.without_aggregation)
        };
        format!(
            "{} | {} | {}",
            table(tables.node),
            table(tables.leaf),
            table(tables.spine)
        )
    }

    #[test]
    fn what_a_plan_leads_to() {
        let mut facts = facts();
        // Nine blocks and five services. A leaf of r1 has its own four blocks, two of d, two
        // summaries of r2; a spine two and two summaries, and two of d.
        assert_eq!(shown(&facts), "14 13 205 | 14 13 205 | 14 11 205");
        facts.announce.node_ips = true;
        facts.announce.cluster_ips = true;
        assert_eq!(shown(&facts), "58 57 249 | 58 57 249 | 58 55 249");
        facts.announce = Announce {
            pod_cidrs: false,
            services: false,
            ..Announce::default()
        };
        assert_eq!(shown(&facts), "0 0 0 | 0 0 0 | 0 0 0");
        facts.announce = Announce::default();
        for node in facts.nodes.values_mut() {
            node.rack = None;
            node.blocks_v6 = 0;
        }
        assert_eq!(shown(&facts), "10 - 205 | 10 - 205 | 10 - 205");
        assert_eq!(shown(&TableFacts::default()), "0 - 0 | 0 - 0 | 0 - 0");
    }

    #[test]
    fn a_fabric_of_750_racks() {
        let mut facts = TableFacts::default();
        for node in 0..750 * 16 {
            let routes = NodeRoutes {
                rack: Some(format!("r{}", node / 16)),
                blocks_v4: 1,
                ..NodeRoutes::default()
            };
            facts.nodes.insert(format!("n{node}"), routes);
        }
        facts.pod_ips = 750 * 16 * 100;
        // As the simulated fabric has it: `cargo bench -p peapod-router`.
        assert_eq!(
            shown(&facts),
            "12000 765 1200000 | 12000 765 1200000 | 12000 750 1200000"
        );
    }
}
