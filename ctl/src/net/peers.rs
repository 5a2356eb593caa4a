//! `peapod net peers`: BGP sessions, of every node by the API, or of one router by its socket.

use std::net::Ipv6Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use peapod_api::net::BgpSession;
use peapod_router::control::{self, FamilyView, ShownPeer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::show::{Cell, Format, Table, Tone, age, since};
use super::source::{list_if_served, text};

/// A session of a node, as its network agent reports it in `BgpNode`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The node.
    pub node: String,
    /// The node's AS number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// What the agent says of it.
    #[serde(flatten)]
    pub told: BgpSession,
}

// === impl Session ===

impl Session {
    /// What the neighbour is called: its hostname, router id or address. One behind an interface
    /// has no name before it has told of itself: its link-local address is that of a link.
    pub fn remote_name(&self) -> Option<&str> {
        let told = &self.told;
        let address = told.neighbor.as_ref().filter(|_| !self.is_unnumbered());
        let known = [
            told.remote_hostname.as_ref(),
            told.remote_router_id.as_ref(),
            address,
        ];
        let known = known.into_iter().flatten().find(|name| !name.is_empty());
        known.map(String::as_str)
    }

    /// The same for people, for whom the port is better than nothing.
    pub fn shown_name(&self) -> &str {
        let told = &self.told;
        let name = self.remote_name().or(told.neighbor.as_deref());
        name.or(told.interface.as_deref()).unwrap_or("?")
    }

    fn is_unnumbered(&self) -> bool {
        let address = self.told.neighbor.as_deref().unwrap_or_default();
        let address = address.parse::<Ipv6Addr>();
        address.is_ok_and(|address| address.is_unicast_link_local())
    }
}

/// The sessions of all nodes.
pub async fn sessions(context: &Context) -> Result<Vec<Session>> {
    let nodes = list_if_served(&context.session, "/apis/net.peapod.dev/v1/bgpnodes").await?;
    Ok(read(&nodes))
}

/// The sessions in `BgpNode` objects.
pub fn read(nodes: &[Value]) -> Vec<Session> {
    let mut found = Vec::new();
    for node in nodes {
        let asn = node.pointer("/status/asn").and_then(Value::as_u64);
        for session in super::source::items(node, "/status/sessions") {
            // A field of another type than expected costs that session, not the view.
            if let Ok(told) = BgpSession::deserialize(session) {
                found.push(Session {
                    node: text(node, "/metadata/name").to_owned(),
                    asn: asn.and_then(|asn| u32::try_from(asn).ok()),
                    told: BgpSession { node: None, ..told },
                });
            }
        }
    }
    found
}

/// Shows those of the cluster.
pub async fn of_cluster(context: &Context) -> Result<()> {
    let sessions = sessions(context).await?;
    if sessions.is_empty() && context.format.is_table() {
        eprintln!("no node speaks BGP: make a BgpPeer (peapod explain bgppeers), or use --socket");
    }
    let now = Timestamp::now();
    context.format.print(&sessions, || table(&sessions, now))
}

fn tone(established: bool) -> Tone {
    if established { Tone::Good } else { Tone::Bad }
}

fn table(sessions: &[Session], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NODE",
        "NEIGHBOR",
        "PORT",
        "NAME",
        "AS",
        "STATE",
        "SINCE",
        "BFD",
        "RECEIVED",
        "ADVERTISED",
        "LAST ERROR",
        "+PEER",
        "+ROUTER ID",
    ]);
    let text = |text: &Option<String>| Cell::from(text.clone().unwrap_or_default());
    for Session { node, told, .. } in sessions {
        table.row(vec![
            node.as_str().into(),
            text(&told.neighbor),
            text(&told.interface),
            text(&told.remote_hostname),
            told.remote_as
                .map(|number| number.to_string())
                .unwrap_or_default()
                .into(),
            Cell::toned(told.state.as_str(), tone(told.is_established())),
            told.since
                .as_deref()
                .map(|time| since(time, now))
                .unwrap_or_default()
                .into(),
            text(&told.bfd),
            told.received.to_string().into(),
            told.advertised.to_string().into(),
            text(&told.last_error),
            told.peer.as_str().into(),
            text(&told.remote_router_id),
        ]);
    }
    table
}

/// Shows those of a router.
pub fn of_router(socket: &Path, format: Format) -> Result<()> {
    let peers = control::peers(socket).with_context(|| unreachable(socket))?;
    format.print(&peers, || router_table(&peers))
}

/// Why a router does not answer.
pub fn unreachable(socket: &Path) -> String {
    format!(
        "cannot ask the router at {}; does it run with that controlSocket?",
        socket.display()
    )
}

fn router_table(peers: &[ShownPeer]) -> Table {
    let mut table = Table::new(&[
        "NEIGHBOR",
        "NAME",
        "AS",
        "STATE",
        "SINCE",
        "BFD",
        "RECEIVED",
        "ADVERTISED",
        "LAST ERROR",
    ]);
    for shown in peers {
        let peer = &shown.peer;
        let sum = |count: fn(&FamilyView) -> u32| {
            let counts = peer.families.iter().map(count).map(u64::from);
            Cell::from(counts.sum::<u64>().to_string())
        };
        let state = peer.state.to_string();
        let established = state == "Established";
        table.row(vec![
            peer.name.as_str().into(),
            peer.hostname.clone().unwrap_or_default().into(),
            peer.remote_as.as_str().into(),
            Cell::toned(state, tone(established)),
            age(peer.since_seconds as i64).into(),
            shown.bfd.clone().unwrap_or_default().into(),
            sum(|family| family.received),
            sum(|family| family.advertised),
            peer.last_error.clone().unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sessions_of_nodes_are_shown() {
        let node = json!({"metadata": {"name": "n1"}, "status": {"asn": 65001, "sessions": [
            {"neighbor": "fe80::1", "interface": "eth1", "remoteAs": 65100, "remoteHostname": "leaf1",
             "state": "Established", "since": "2026-01-01T00:00:00Z", "received": 12, "advertised": 2},
            {"neighbor": "10.0.0.9", "state": "Active", "lastError": "hold timer expired"},
        ]}});
        let sessions = read(&[node]);
        assert_eq!(sessions[0].asn, Some(65001));
        assert_eq!(sessions[1].remote_name(), Some("10.0.0.9"));
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(
            table(&sessions, now).render(false, None, false),
            "NODE   NEIGHBOR   PORT   NAME    AS      STATE         SINCE   BFD   RECEIVED   ADVERTISED   LAST ERROR\n\
             n1     fe80::1    eth1   leaf1   65100   Established   60s           12         2\n\
             n1     10.0.0.9                          Active                      0          0            hold timer expired\n"
        );
    }
}
