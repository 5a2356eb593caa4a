//! The topology as a graph, for programs that draw.

use std::fmt::Write as _;

use super::Topology;

/// In Mermaid's notation (<https://mermaid.js.org/syntax/flowchart.html>).
pub(super) fn mermaid(topology: &Topology) -> String {
    graph(topology, Mermaid)
}

/// In Graphviz' (<https://graphviz.org/doc/info/lang.html>).
pub(super) fn dot(topology: &Topology) -> String {
    graph(topology, Dot)
}

/// What a vertex stands for.
#[derive(Clone, Copy, PartialEq)]
enum Vertex {
    /// An autonomous system behind the leaves.
    Beyond,
    /// A leaf or a spine.
    Switch,
    Node,
}

/// A leaf's link to a node.
struct Port<'a> {
    /// Its name at the node; empty if it is not known.
    name: &'a str,
    /// Whether the session over it is established.
    up: bool,
}

/// How the parts of a graph are written. Identifiers are words of letters, digits and `_`.
trait Notation {
    const BEGIN: &'static str;
    const END: &'static str;
    fn vertex(&self, out: &mut String, vertex: Vertex, id: &str, label: &str);
    fn edge(&self, out: &mut String, from: &str, to: &str, port: Option<&Port<'_>>);
    /// What is written until the rack ends stands in it. The name may be empty.
    fn begin_rack(&self, out: &mut String, id: &str, name: &str);
    fn end_rack(&self, out: &mut String, name: &str);
}

/// From the top of the fabric down to the nodes, then the links whose both ends are known.
fn graph<N: Notation>(topology: &Topology, notation: N) -> String {
    let mut out = format!("{}\n", N::BEGIN);
    for one in &topology.beyond {
        let name = format!("as_{}", one.asn);
        notation.vertex(&mut out, Vertex::Beyond, &name, &format!("AS {}", one.asn));
        for leaf in &one.leaves {
            notation.edge(&mut out, &name, &id("leaf", leaf), None);
        }
    }
    for spine in &topology.spines {
        let name = id("spine", &spine.name);
        notation.vertex(&mut out, Vertex::Switch, &name, &spine.name);
        for (leaf, _) in &spine.links {
            notation.edge(&mut out, &name, &id("leaf", leaf), None);
        }
    }
    for leaf in &topology.leaves {
        let name = id("leaf", &leaf.name);
        notation.vertex(&mut out, Vertex::Switch, &name, &leaf.name);
    }
    for rack in &topology.racks {
        notation.begin_rack(&mut out, &id("rack", &rack.name), &rack.name);
        for node in &rack.nodes {
            let name = id("node", &node.name);
            notation.vertex(&mut out, Vertex::Node, &name, &node.name);
        }
        notation.end_rack(&mut out, &rack.name);
    }
    for link in &topology.links {
        let Some(leaf) = link.leaf.as_deref() else {
            continue;
        };
        let port = Port {
            name: link.port.as_deref().unwrap_or_default(),
            up: link.state == "Established",
        };
        let (leaf, node) = (id("leaf", leaf), id("node", &link.node));
        notation.edge(&mut out, &leaf, &node, Some(&port));
    }
    out.push_str(N::END);
    out
}

/// Names of nodes and leaves may be the same words; and neither notation takes every character.
fn id(kind: &str, name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    format!("{kind}_{name}")
}

struct Mermaid;

impl Notation for Mermaid {
    const BEGIN: &'static str = "graph TD";
    const END: &'static str = "";

    fn vertex(&self, out: &mut String, vertex: Vertex, id: &str, label: &str) {
        let _ = match vertex {
            Vertex::Node => writeln!(out, "  {id}([\"{label}\"])"),
            Vertex::Beyond | Vertex::Switch => writeln!(out, "  {id}[\"{label}\"]"),
        };
    }

    fn edge(&self, out: &mut String, from: &str, to: &str, port: Option<&Port<'_>>) {
        let line = if port.is_none_or(|port| port.up) {
            "---"
        } else {
            "-.-"
        };
        let label = match port {
            Some(port) if !port.name.is_empty() => format!("|{}|", port.name),
            _ => String::new(),
        };
        let _ = writeln!(out, "  {from} {line}{label} {to}");
    }

    fn begin_rack(&self, out: &mut String, id: &str, name: &str) {
        if !name.is_empty() {
            let _ = writeln!(out, "  subgraph {id}[\"rack {name}\"]");
        }
    }

    fn end_rack(&self, out: &mut String, name: &str) {
        if !name.is_empty() {
            out.push_str("  end\n");
        }
    }
}

struct Dot;

impl Notation for Dot {
    const BEGIN: &'static str = "graph fabric {";
    const END: &'static str = "}\n";

    fn vertex(&self, out: &mut String, vertex: Vertex, id: &str, label: &str) {
        let _ = match vertex {
            Vertex::Beyond => writeln!(out, "  {id} [label={label:?}];"),
            Vertex::Switch => writeln!(out, "  {id} [label={label:?}, shape=box];"),
            Vertex::Node => writeln!(out, "    {id} [label={label:?}];"),
        };
    }

    fn edge(&self, out: &mut String, from: &str, to: &str, port: Option<&Port<'_>>) {
        let _ = match port {
            None => writeln!(out, "  {from} -- {to};"),
            Some(Port { name, up }) => {
                let style = if *up { "solid" } else { "dashed" };
                writeln!(out, "  {from} -- {to} [label={name:?}, style={style}];")
            }
        };
    }

    fn begin_rack(&self, out: &mut String, id: &str, name: &str) {
        let _ = writeln!(out, "  subgraph cluster_{id} {{ label={name:?};");
    }

    fn end_rack(&self, out: &mut String, _name: &str) {
        out.push_str("  }\n");
    }
}
