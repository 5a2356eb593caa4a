//! The picture, and graphs for others to draw.

use std::fmt::Write as _;

use super::{Link, Topology};

/// What a leaf is called that nothing tells the name of.
const UNKNOWN: &str = "(not known yet)";

/// For people: from the top of the fabric down to the nodes.
pub(super) fn picture(topology: &Topology) -> String {
    let mut out = String::new();
    for one in &topology.beyond {
        let _ = writeln!(out, "AS {} (behind {})", one.asn, one.leaves.join(", "));
    }
    for spine in &topology.spines {
        let asn = spine
            .asn
            .map(|asn| format!(" (AS {asn})"))
            .unwrap_or_default();
        let links = spine
            .links
            .iter()
            .map(|(leaf, state)| match state.as_str() {
                "Established" => leaf.clone(),
                other => format!("{leaf} {other}"),
            });
        let links: Vec<String> = links.collect();
        let _ = writeln!(out, "spine {}{asn} ── {}", spine.name, links.join(", "));
    }
    for rack in &topology.racks {
        let name = if rack.name.is_empty() {
            "(no rack)"
        } else {
            &rack.name
        };
        let leaves = rack.leaves.iter().map(|name| {
            let leaf = topology.leaves.iter().find(|leaf| leaf.name == *name);
            match leaf.and_then(|leaf| leaf.asn) {
                Some(asn) => format!("{name} (AS {asn})"),
                None => name.clone(),
            }
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
            let corner = if last { "└─" } else { "├─" };
            let asn = node
                .asn
                .map(|asn| format!(" (AS {asn})"))
                .unwrap_or_default();
            let ready = if node.ready { "" } else { "  NOT READY" };
            let _ = writeln!(out, "  {corner} {}{asn}{ready}", node.name);
            let bar = if last { "  " } else { "│ " };
            for link in topology.links.iter().filter(|link| link.node == node.name) {
                let port = link.port.as_deref().unwrap_or("-");
                let mark = if link.state == "Established" {
                    "──"
                } else {
                    "╳╳"
                };
                let leaf = link.leaf.as_deref().unwrap_or(UNKNOWN);
                let _ = writeln!(out, "  {bar}   {port} {mark} {leaf}  {}", link.state);
            }
        }
    }
    out
}

/// Links of which both ends are known.
fn edges(topology: &Topology) -> impl Iterator<Item = (&str, &str, &str, bool)> {
    topology.links.iter().filter_map(|link| {
        let port = link.port.as_deref().unwrap_or_default();
        let up = link.state == "Established";
        Some((link.leaf.as_deref()?, link.node.as_str(), port, up))
    })
}

/// Names of nodes and leaves may be the same words; and neither takes every character.
fn id(kind: &str, name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("{kind}_{name}")
}

pub(super) fn mermaid(topology: &Topology) -> String {
    let mut out = "graph TD\n".to_owned();
    for one in &topology.beyond {
        let _ = writeln!(out, "  as_{0}[\"AS {0}\"]", one.asn);
        for leaf in &one.leaves {
            let _ = writeln!(out, "  as_{} --- {}", one.asn, id("leaf", leaf));
        }
    }
    for spine in &topology.spines {
        let name = id("spine", &spine.name);
        let _ = writeln!(out, "  {name}[\"{}\"]", spine.name);
        for (leaf, _) in &spine.links {
            let _ = writeln!(out, "  {name} --- {}", id("leaf", leaf));
        }
    }
    for leaf in &topology.leaves {
        let _ = writeln!(out, "  {}[\"{}\"]", id("leaf", &leaf.name), leaf.name);
    }
    for rack in &topology.racks {
        if !rack.name.is_empty() {
            let _ = writeln!(
                out,
                "  subgraph {}[\"rack {}\"]",
                id("rack", &rack.name),
                rack.name
            );
        }
        for node in &rack.nodes {
            let _ = writeln!(out, "  {}([\"{}\"])", id("node", &node.name), node.name);
        }
        if !rack.name.is_empty() {
            out.push_str("  end\n");
        }
    }
    for (leaf, node, port, up) in edges(topology) {
        let line = if up { "---" } else { "-.-" };
        let label = if port.is_empty() {
            String::new()
        } else {
            format!("|{port}|")
        };
        let _ = writeln!(
            out,
            "  {} {line}{label} {}",
            id("leaf", leaf),
            id("node", node)
        );
    }
    out
}

pub(super) fn dot(topology: &Topology) -> String {
    let mut out = "graph fabric {\n".to_owned();
    for one in &topology.beyond {
        let _ = writeln!(out, "  as_{0} [label=\"AS {0}\"];", one.asn);
        for leaf in &one.leaves {
            let _ = writeln!(out, "  as_{} -- {};", one.asn, id("leaf", leaf));
        }
    }
    for spine in &topology.spines {
        let name = id("spine", &spine.name);
        let _ = writeln!(out, "  {name} [label={:?}, shape=box];", spine.name);
        for (leaf, _) in &spine.links {
            let _ = writeln!(out, "  {name} -- {};", id("leaf", leaf));
        }
    }
    for leaf in &topology.leaves {
        let _ = writeln!(
            out,
            "  {} [label={:?}, shape=box];",
            id("leaf", &leaf.name),
            leaf.name
        );
    }
    for rack in &topology.racks {
        let _ = writeln!(
            out,
            "  subgraph cluster_{} {{ label={:?};",
            id("rack", &rack.name),
            rack.name
        );
        for node in &rack.nodes {
            let _ = writeln!(
                out,
                "    {} [label={:?}];",
                id("node", &node.name),
                node.name
            );
        }
        out.push_str("  }\n");
    }
    for (leaf, node, port, up) in edges(topology) {
        let style = if up { "solid" } else { "dashed" };
        let (leaf, node) = (id("leaf", leaf), id("node", node));
        let _ = writeln!(out, "  {leaf} -- {node} [label={port:?}, style={style}];");
    }
    out.push_str("}\n");
    out
}
