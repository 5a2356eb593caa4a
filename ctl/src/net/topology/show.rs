//! The picture for people.

use std::fmt::Write as _;

use super::{Link, Rack, Spine, Topology};

/// What a leaf is called that nothing tells the name of.
const UNKNOWN: &str = "(not known yet)";

/// From the top of the fabric down to the nodes.
pub(super) fn picture(topology: &Topology) -> String {
    let mut out = String::new();
    for one in &topology.beyond {
        let _ = writeln!(out, "AS {} (behind {})", one.asn, one.leaves.join(", "));
    }
    for spine in &topology.spines {
        show_spine(&mut out, spine);
    }
    for rack in &topology.racks {
        show_rack(&mut out, topology, rack);
    }
    out
}

/// ` (AS 64512)`, or nothing.
fn in_as(asn: Option<u32>) -> String {
    asn.map(|asn| format!(" (AS {asn})")).unwrap_or_default()
}

fn show_spine(out: &mut String, spine: &Spine) {
    let links = spine
        .links
        .iter()
        .map(|(leaf, state)| match state.as_str() {
            "Established" => leaf.clone(),
            other => format!("{leaf} {other}"),
        });
    let links: Vec<String> = links.collect();
    let asn = in_as(spine.asn);
    let _ = writeln!(out, "spine {}{asn} ── {}", spine.name, links.join(", "));
}

fn show_rack(out: &mut String, topology: &Topology, rack: &Rack) {
    let name = if rack.name.is_empty() {
        "(no rack)"
    } else {
        &rack.name
    };
    let leaves = rack.leaves.iter().map(|name| {
        let leaf = topology.leaves.iter().find(|leaf| leaf.name == *name);
        format!("{name}{}", in_as(leaf.and_then(|leaf| leaf.asn)))
    });
    let _ = writeln!(out, "rack {name}");
    let leaves: Vec<String> = leaves.collect();
    let sought = |link: &Link| rack.nodes.iter().any(|node| node.name == link.node);
    if !leaves.is_empty() {
        let _ = writeln!(out, "  leaves: {}", leaves.join(", "));
    } else if topology.links.iter().any(sought) {
        let _ = writeln!(
            out,
            "  leaves: none is known before a session with it is up"
        );
    }
    for (nth, node) in rack.nodes.iter().enumerate() {
        let last = nth + 1 == rack.nodes.len();
        let (corner, bar) = if last {
            ("└─", "  ")
        } else {
            ("├─", "│ ")
        };
        let ready = if node.ready { "" } else { "  NOT READY" };
        let asn = in_as(node.asn);
        let _ = writeln!(out, "  {corner} {}{asn}{ready}", node.name);
        for link in topology.links.iter().filter(|link| link.node == node.name) {
            show_link(out, bar, link);
        }
    }
}

fn show_link(out: &mut String, bar: &str, link: &Link) {
    let port = link.port.as_deref().unwrap_or("-");
    let mark = if link.state == "Established" {
        "──"
    } else {
        "╳╳"
    };
    let leaf = link.leaf.as_deref().unwrap_or(UNKNOWN);
    let _ = writeln!(out, "  {bar}   {port} {mark} {leaf}  {}", link.state);
}
