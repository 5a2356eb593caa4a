//! `peapod net budget`: routes against the size of a switch's table.
//!
//! Counted from what the cluster has: blocks, pods, service addresses, sessions. With blocks a
//! leaf or spine holds one route for each; without aggregation it would hold one for each pod
//! address. What routes the fabric has besides, only the sessions' own counts tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::endpoints::racks;
use super::peers::{self, Session};
use super::show::{Cell, Table, Tone};
use super::source::{items, list, list_if_served, text};

/// `peapod net budget`.
#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// Routes that a switch's table holds
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    table_size: u64,
}

/// Percent of the table above which a warning is due.
const WARN_PERCENT: u64 = 80;

/// What is counted.
#[derive(Clone, Debug, Default)]
struct Facts {
    /// The blocks of each node.
    blocks: BTreeMap<String, u64>,
    /// The addresses of each node's pods; those on the host's network have none of their own.
    pods: BTreeMap<String, u64>,
    /// Addresses of services that are announced one by one.
    services: u64,
    /// The rack of each node that has one.
    racks: BTreeMap<String, String>,
    sessions: Vec<Session>,
    table_size: u64,
}

/// A speaker's table, as shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// `node`, `leaf` or `spine`
    pub role: &'static str,
    /// Its name; `(each)` for spines.
    pub name: String,
    /// Prefixes that it tells (a node) or is told by nodes (a leaf), by its sessions.
    pub announced: Option<u64>,
    /// Prefixes that a node is told, by its sessions.
    pub received: Option<u64>,
    /// Routes of the cluster in its table, by blocks.
    pub now: u64,
    /// The same if a leaf announced one route for each rack.
    pub by_rack: Option<u64>,
    /// The same with a route for each pod address.
    pub without_aggregation: u64,
    /// Routes that the table holds.
    pub table_size: u64,
    /// Percent of the table in use: by what is received where that is more than the cluster's own.
    pub used_percent: u64,
    /// Above 80 %.
    pub warning: Option<String>,
}

/// Shows it.
pub async fn run(context: &Context, args: &BudgetArgs) -> Result<()> {
    let session = &context.session;
    let nodes = list(session, "/api/v1/nodes").await?;
    let pods = list(session, "/api/v1/pods").await?;
    let services = list(session, "/api/v1/services").await?;
    let blocks = list_if_served(session, "/apis/net.peapod.dev/v1/ipblocks").await?;
    let facts = Facts {
        racks: racks(&nodes),
        sessions: peers::sessions(context).await?,
        table_size: args.table_size.max(1),
        ..count(&nodes, &blocks, &pods, &services)
    };
    let rows = rows(&facts);
    context.format.print(&rows, || table(&rows))
}

fn count(nodes: &[Value], blocks: &[Value], pods: &[Value], services: &[Value]) -> Facts {
    let mut facts = Facts::default();
    for node in nodes {
        facts
            .blocks
            .insert(text(node, "/metadata/name").to_owned(), 0);
    }
    for block in blocks {
        *facts
            .blocks
            .entry(text(block, "/spec/node").to_owned())
            .or_default() += 1;
    }
    for pod in pods {
        let done = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) || done {
            continue;
        }
        let addresses = items(pod, "/status/podIPs").len() as u64;
        *facts
            .pods
            .entry(text(pod, "/spec/nodeName").to_owned())
            .or_default() += addresses;
    }
    let mut announced = BTreeSet::new();
    for service in services {
        let external = items(service, "/spec/externalIPs")
            .iter()
            .filter_map(Value::as_str);
        let balanced = items(service, "/status/loadBalancer/ingress").iter();
        let balanced = balanced.filter_map(|one| one["ip"].as_str());
        announced.extend(
            external
                .chain(balanced)
                .filter_map(|ip| ip.parse::<IpAddr>().ok()),
        );
    }
    facts.services = announced.len() as u64;
    facts
}

fn rows(facts: &Facts) -> Vec<Row> {
    let blocks: u64 = facts.blocks.values().sum();
    let pods: u64 = facts.pods.values().sum();
    let all_racks: BTreeSet<&String> = facts.racks.values().collect();
    let now = blocks + facts.services;
    let without = pods + facts.services;
    // Two families at most: a summary for each.
    let families = if blocks > facts.blocks.len() as u64 {
        2
    } else {
        1
    };
    let summaries = (!all_racks.is_empty()).then_some(all_racks.len() as u64 * families);
    let row = |role, name: &str| Row {
        role,
        name: name.to_owned(),
        now,
        without_aggregation: without,
        table_size: facts.table_size,
        ..Default::default()
    };
    let mut rows = Vec::new();
    for node in facts.blocks.keys() {
        let own = || {
            facts
                .sessions
                .iter()
                .filter(|session| session.node == *node)
        };
        rows.push(Row {
            announced: own().map(|session| session.told.advertised.into()).max(),
            received: own().map(|session| session.told.received.into()).max(),
            ..row("node", node)
        });
    }
    let mut leaves: BTreeMap<&str, Vec<&Session>> = BTreeMap::new();
    for session in &facts.sessions {
        leaves
            .entry(session.remote_name())
            .or_default()
            .push(session);
    }
    for (leaf, sessions) in &leaves {
        let behind: BTreeSet<&String> = sessions
            .iter()
            .filter_map(|session| facts.racks.get(&session.node))
            .collect();
        let own: u64 = sessions
            .iter()
            .map(|session| facts.blocks.get(&session.node).copied().unwrap_or(0))
            .sum();
        let others = (all_racks.len() - behind.len()) as u64 * families;
        rows.push(Row {
            announced: Some(
                sessions
                    .iter()
                    .map(|session| u64::from(session.told.advertised))
                    .sum(),
            ),
            by_rack: summaries.map(|_| own + others + facts.services),
            ..row("leaf", leaf)
        });
    }
    if !leaves.is_empty() {
        rows.push(Row {
            by_rack: summaries.map(|count| count + facts.services),
            ..row("spine", "(each)")
        });
    }
    rows.into_iter().map(weighed).collect()
}

fn weighed(row: Row) -> Row {
    let held = row.now.max(row.received.unwrap_or(0));
    let used_percent = held * 100 / row.table_size;
    let warning = (used_percent > WARN_PERCENT).then(|| {
        format!(
            "{held} routes of {}: announce summaries, use larger blocks, or a larger table",
            row.table_size
        )
    });
    Row {
        used_percent,
        warning,
        ..row
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "ROLE",
        "NAME",
        "ANNOUNCED",
        "RECEIVED",
        "NOW",
        "BY RACK",
        "UNAGGREGATED",
        "TABLE",
        "USED",
        "WARNING",
    ]);
    let number = |number: Option<u64>| {
        Cell::from(number.map(|number| number.to_string()).unwrap_or_default())
    };
    for row in rows {
        let tone = if row.warning.is_some() {
            Tone::Bad
        } else {
            Tone::Good
        };
        table.row(vec![
            row.role.into(),
            row.name.as_str().into(),
            number(row.announced),
            number(row.received),
            row.now.to_string().into(),
            number(row.by_rack),
            row.without_aggregation.to_string().into(),
            row.table_size.to_string().into(),
            Cell::toned(format!("{}%", row.used_percent), tone),
            row.warning.clone().unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::BgpSession;
    use serde_json::json;

    fn facts() -> Facts {
        let session = |node: &str, leaf: &str| Session {
            node: node.into(),
            told: BgpSession {
                remote_hostname: Some(leaf.into()),
                advertised: 3,
                received: 5,
                ..Default::default()
            },
            ..Default::default()
        };
        let counts = |pairs: &[(&str, u64)]| {
            pairs
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect()
        };
        Facts {
            blocks: counts(&[("n1", 1), ("n2", 1), ("n3", 1)]),
            pods: counts(&[("n1", 30), ("n2", 30), ("n3", 30)]),
            services: 2,
            racks: [("n1", "r1"), ("n2", "r1"), ("n3", "r2")]
                .map(|(node, rack)| (node.to_owned(), rack.to_owned()))
                .into(),
            sessions: vec![
                session("n1", "leaf1"),
                session("n2", "leaf1"),
                session("n3", "leaf2"),
            ],
            table_size: 6,
        }
    }

    #[test]
    fn tables_are_weighed() {
        let rows = rows(&facts());
        let text = table(&rows).render(false, None, false);
        let short: Vec<String> = text
            .lines()
            .map(|line| {
                line.split_whitespace()
                    .take(9)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(short[1], "node n1 3 5 5 92 6 83% 5");
        assert_eq!(rows[3].name, "leaf1");
        assert_eq!(rows[3].announced, Some(6));
        // Its own two blocks, a summary of the other rack, two services.
        assert_eq!(rows[3].by_rack, Some(5));
        assert_eq!(rows[5].role, "spine");
        assert_eq!(rows[5].by_rack, Some(4));
        assert_eq!(rows[5].without_aggregation, 92);
        assert!(
            rows.iter().all(|row| row.warning.is_some()),
            "5 of 6 is above 80 %"
        );
    }

    #[test]
    fn counts_what_is_announced() {
        let pod = |node: &str, host| json!({"spec": {"nodeName": node, "hostNetwork": host}, "status": {"podIPs": [{"ip": "10.0.0.1"}]}});
        let service = json!({"spec": {"externalIPs": ["1.1.1.1"]}, "status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}]}}});
        let facts = count(
            &[json!({"metadata": {"name": "n1"}})],
            &[json!({"spec": {"node": "n1"}})],
            &[pod("n1", false), pod("n1", true)],
            &[service],
        );
        assert_eq!(
            (facts.blocks["n1"], facts.pods["n1"], facts.services),
            (1, 1, 2)
        );
    }
}
