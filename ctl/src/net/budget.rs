//! `peapod net budget`: routes against the size of a switch's table.
//!
//! Counted from what the cluster has: nodes, blocks, pods, service addresses, and what `BgpConfig`
//! has announced of them; how they fill tables is [`TableFacts`]' to say, here as in the status of
//! the `BgpConfig`. What routes the fabric has besides, only the sessions' own counts tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use peapod_api::net::{Announce, BgpTable, DEFAULT_BGP_CONFIG, NodeRoutes, TableFacts};
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
    told: TableFacts,
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
    let configs = list_if_served(session, "/apis/net.peapod.dev/v1/bgpconfigs").await?;
    let facts = Facts {
        told: count(&announce(&configs), &nodes, &blocks, &pods, &services),
        sessions: peers::sessions(context).await?,
        table_size: args.table_size.max(1),
    };
    let rows = rows(&facts);
    context.format.print(&rows, || table(&rows))
}

/// What nodes announce; without a `BgpConfig`, what they do then.
fn announce(configs: &[Value]) -> Announce {
    let named = |config: &&Value| text(config, "/metadata/name") == DEFAULT_BGP_CONFIG;
    let config = configs.iter().find(named);
    let said = config.and_then(|config| config.pointer("/spec/announce"));
    let read = said.and_then(|said| serde_json::from_value(said.clone()).ok());
    read.unwrap_or_default()
}

fn count(
    announce: &Announce,
    nodes: &[Value],
    blocks: &[Value],
    pods: &[Value],
    services: &[Value],
) -> TableFacts {
    let mut facts = TableFacts {
        announce: announce.clone(),
        ..TableFacts::default()
    };
    let mut racks = racks(nodes);
    for node in nodes {
        let name = text(node, "/metadata/name");
        let addresses = items(node, "/status/addresses").iter();
        let routes = NodeRoutes {
            rack: racks.remove(name),
            ips: addresses.filter(|one| one["type"] == "InternalIP").count() as u64,
            ..NodeRoutes::default()
        };
        facts.nodes.insert(name.to_owned(), routes);
    }
    for block in blocks {
        let Some(routes) = facts.nodes.get_mut(text(block, "/spec/node")) else {
            continue;
        };
        match text(block, "/spec/cidr").contains(':') {
            true => routes.blocks_v6 += 1,
            false => routes.blocks_v4 += 1,
        }
    }
    for pod in pods {
        let done = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        // Those on the host's network have no address of their own.
        if pod.pointer("/spec/hostNetwork") != Some(&Value::Bool(true)) && !done {
            facts.pod_ips += items(pod, "/status/podIPs").len() as u64;
        }
    }
    let ips = |of: fn(&Value) -> Vec<&str>| {
        let texts = services.iter().flat_map(of);
        let parsed = texts.filter_map(|ip| ip.parse::<IpAddr>().ok());
        parsed.collect::<BTreeSet<IpAddr>>().len() as u64
    };
    facts.service_ips = ips(external_ips);
    facts.cluster_ips = ips(|service| {
        let inner = items(service, "/spec/clusterIPs").iter();
        inner.filter_map(Value::as_str).collect()
    });
    facts
}

fn external_ips(service: &Value) -> Vec<&str> {
    let external = items(service, "/spec/externalIPs").iter();
    let balanced = items(service, "/status/loadBalancer/ingress").iter();
    let balanced = balanced.filter_map(|one| one["ip"].as_str());
    external.filter_map(Value::as_str).chain(balanced).collect()
}

fn rows(facts: &Facts) -> Vec<Row> {
    let told = &facts.told;
    let row = |role, name: &str, held: BgpTable| Row {
        role,
        name: name.to_owned(),
        now: held.routes,
        by_rack: held.by_rack,
        without_aggregation: held.without_aggregation,
        table_size: facts.table_size,
        ..Default::default()
    };
    let mut rows = Vec::new();
    for (name, node) in &told.nodes {
        let own = || {
            facts
                .sessions
                .iter()
                .filter(|session| session.node == *name)
        };
        let held = told.below(&node.rack.as_deref().into_iter().collect());
        rows.push(Row {
            announced: own().map(|session| session.told.advertised.into()).max(),
            received: own().map(|session| session.told.received.into()).max(),
            ..row("node", name, held)
        });
    }
    let mut leaves: BTreeMap<&str, Vec<&Session>> = BTreeMap::new();
    // A neighbour that nobody knows by a name yet has no table to speak of.
    for session in &facts.sessions {
        if let Some(leaf) = session.remote_name() {
            leaves.entry(leaf).or_default().push(session);
        }
    }
    for (leaf, sessions) in &leaves {
        let nodes = sessions
            .iter()
            .filter_map(|session| told.nodes.get(&session.node));
        let behind = nodes.filter_map(|node| node.rack.as_deref()).collect();
        let advertised = sessions
            .iter()
            .map(|session| u64::from(session.told.advertised));
        rows.push(Row {
            announced: Some(advertised.sum()),
            ..row("leaf", leaf, told.below(&behind))
        });
    }
    if !leaves.is_empty() {
        rows.push(row("spine", "(each)", told.below(&BTreeSet::new())));
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
        let node = |name: &str, rack: &str| {
            let routes = NodeRoutes {
                rack: Some(rack.to_owned()),
                blocks_v4: 1,
                ..NodeRoutes::default()
            };
            (name.to_owned(), routes)
        };
        Facts {
            told: TableFacts {
                nodes: [node("n1", "r1"), node("n2", "r1"), node("n3", "r2")].into(),
                pod_ips: 90,
                service_ips: 2,
                ..TableFacts::default()
            },
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
        assert_eq!(short[1], "node n1 3 5 5 5 92 6 83%");
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
            &announce(&[]),
            &[json!({"metadata": {"name": "n1"}})],
            &[json!({"spec": {"node": "n1", "cidr": "10.0.0.0/24"}})],
            &[pod("n1", false), pod("n1", true)],
            &[service],
        );
        let blocks = facts.nodes["n1"].blocks_v4;
        assert_eq!((blocks, facts.pod_ips, facts.service_ips), (1, 1, 2));
        let config =
            json!({"metadata": {"name": "default"}, "spec": {"announce": {"nodeIPs": true}}});
        assert!(announce(&[config]).node_ips);
    }
}
