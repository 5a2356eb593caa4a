//! The pure core of a trace: from what the kernels, the API and the probes say, the hops.

use std::net::{IpAddr, SocketAddr};

use peapod_api::attach::Protocol;
use peapod_netd::probe::route::{Fate, NextHop};
use peapod_netd::probe::send::{Met, Step};
use serde::Serialize;

use super::facts::{Decision, Facts, Far};
use super::marks::mark;
use super::question::Kind;
use super::words::{described, policy, stops, taken, verdict};
use crate::net::peers::Session;

/// A trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// The pod.
    pub from: String,
    /// The address that it sends from.
    pub source: IpAddr,
    /// The destination, as people call it.
    pub to: String,
    /// The address that is sent to.
    pub address: IpAddr,
    /// `TCP 80`, `ICMP`
    pub protocol: String,
    /// The hops, in order.
    pub hops: Vec<Hop>,
    /// The probes to the destination after the service map, in order.
    pub probes: Vec<ShownProbe>,
    /// The kernel's memory of the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<String>,
    /// What of NetworkPolicy is programmed.
    pub policy: String,
    /// Whether the probes got there.
    pub reached: Option<bool>,
    /// The sum of it, for people.
    pub verdict: String,
}

/// A probe, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownProbe {
    /// Its hop limit.
    pub limit: u8,
    /// `hop`, `answered`, `refused`, `unreachable` or `silence`
    pub met: &'static str,
    /// Who told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// After how many microseconds.
    pub micros: u64,
}

/// A hop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// `pod`, `service`, `node`, `leaf`, `router` or `outside`
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What happens there, and by which links and routes.
    pub detail: Vec<String>,
    /// Who says so: `kernel`, `api`, `bgp`, `probe`
    pub source: &'static str,
    /// The address that a probe's answer came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_from: Option<IpAddr>,
    /// After how many microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micros: Option<u64>,
    /// Whether it takes one off the hop limit: a probe can be answered there.
    #[serde(skip)]
    pub(super) routes: bool,
}

/// The trace that facts make.
pub fn trace(facts: &Facts) -> Trace {
    let mut hops = begin(facts);
    let stuck = stops(facts);
    if stuck.is_none() {
        hops.extend(beyond(facts));
    }
    if let Some(walk) = &facts.walk {
        mark(&mut hops, walk, &facts.nodes);
    }
    let (reached, verdict) = verdict(facts, stuck);
    Trace {
        from: format!("pod {} on {}", facts.from.key, facts.from.node),
        source: facts.source,
        to: facts.to.clone(),
        address: facts.address,
        protocol: match facts.kind {
            Kind::Icmp => "ICMP".to_owned(),
            Kind::Port(Protocol::Udp, port) => format!("UDP {port}"),
            Kind::Port(_, port) => format!("TCP {port}"),
        },
        hops,
        probes: facts
            .walk
            .iter()
            .flat_map(|walk| &walk.steps)
            .map(probe)
            .collect(),
        conntrack: facts.connection.map(|one| {
            format!(
                "{} -> {}, answered by {}",
                one.source, one.destination, one.answered_by
            )
        }),
        policy: policy(&facts.policies),
        reached,
        verdict,
    }
}

fn probe(step: &Step) -> ShownProbe {
    let (met, from) = match step.met {
        Met::Hop(ip) => ("hop", Some(ip)),
        Met::Answered => ("answered", None),
        Met::Refused => ("refused", None),
        Met::Unreachable(from) => ("unreachable", from),
        Met::Silence => ("silence", None),
    };
    ShownProbe {
        limit: step.limit,
        met,
        from,
        micros: step.micros,
    }
}

/// Pod, service map, node.
fn begin(facts: &Facts) -> Vec<Hop> {
    let mut pod = Hop {
        kind: "pod",
        name: facts.from.key.clone(),
        source: "kernel",
        ..Hop::default()
    };
    match &facts.pod_route {
        Some(route) => pod.detail.push(taken(route)),
        None => pod.detail.push("on its node's network".to_owned()),
    }
    let mut hops = vec![pod];
    if let Some(decision) = &facts.decision {
        hops.push(service(facts, decision));
    }
    let mut node = Hop {
        kind: "node",
        name: facts.from.node.clone(),
        source: "kernel",
        routes: facts.veth.is_some(),
        ..Hop::default()
    };
    node.detail
        .extend(facts.veth.as_ref().map(|veth| format!("in by {veth}")));
    match &facts.node_route {
        Err(error) => node.detail.push(error.clone()),
        Ok(route) => node.detail.extend(described(route, &facts.leaves)),
    }
    hops.push(node);
    hops
}

fn service(facts: &Facts, decision: &Decision) -> Hop {
    let at = match facts.kind {
        Kind::Port(_, port) => SocketAddr::new(facts.address, port).to_string(),
        Kind::Icmp => facts.address.to_string(),
    };
    let detail = match (decision.action.as_str(), decision.chosen) {
        ("balance", Some(endpoint)) => {
            let led = match facts.connection {
                Some(one) if one.answered_by == endpoint => "the probe was led to",
                _ => "for example to",
            };
            let count = decision.endpoints.len();
            format!("{at}: {led} {endpoint}, one of {count}")
        }
        ("refuse", _) => format!("{at}: refused, it has no endpoint"),
        ("drop", _) => format!("{at}: dropped, its traffic policy wants an endpoint on this node"),
        ("here", _) => format!("{at}: served by the node itself"),
        ("missing", _) => format!("{at}: NOT in the node's service map (peapod net services)"),
        (other, _) => format!("{at}: {other}"),
    };
    Hop {
        kind: "service",
        name: decision.service.clone(),
        detail: vec![detail],
        source: "kernel",
        ..Hop::default()
    }
}

/// What comes after the pod's node: leaf, far node, far pod.
fn beyond(facts: &Facts) -> Vec<Hop> {
    let mut hops = Vec::new();
    let route = facts.node_route.as_ref().ok();
    let local = route.is_some_and(|route| route.fate == Fate::Local);
    if let (Some(far), Some(hop)) = (&facts.far, route.and_then(|route| route.next_hop.as_ref())) {
        hops.extend(leaf(hop, facts));
        hops.push(far_node(far));
    }
    let last = match (&facts.target, local) {
        (Some(pod), _) => Hop {
            kind: "pod",
            name: pod.key.clone(),
            detail: vec![format!("{} by its eth0", facts.destination)],
            source: "api",
            routes: true,
            ..Hop::default()
        },
        // The node itself is the destination: it answers in its own hop.
        (None, true) => {
            return hops;
        }
        // The far node is.
        (None, false) if facts.far.is_some() => return hops,
        (None, false) => Hop {
            kind: "outside",
            name: facts.destination.to_string(),
            detail: vec!["no pod, node or block of this cluster".to_owned()],
            source: "api",
            routes: true,
            ..Hop::default()
        },
    };
    hops.push(last);
    hops
}

/// The leaf behind a next hop, if it is one.
fn leaf(hop: &NextHop, facts: &Facts) -> Option<Hop> {
    let session = session(hop, &facts.leaves)?;
    let mut detail = vec![match session.told.remote_as {
        Some(number) => format!("AS {number}, session {}", session.told.state),
        None => format!("session {}", session.told.state),
    }];
    detail.push("what it does with the packet, only its own tables tell".to_owned());
    Some(Hop {
        kind: "leaf",
        name: session.shown_name().to_owned(),
        detail,
        source: "bgp",
        routes: true,
        ..Hop::default()
    })
}

pub(super) fn session<'a>(hop: &NextHop, sessions: &'a [Session]) -> Option<&'a Session> {
    sessions.iter().find(|session| {
        let by_port = session.told.interface.as_deref() == Some(hop.link.as_str());
        let gateway = hop.gateway.map(|ip| ip.to_string());
        by_port || (gateway.is_some() && session.told.neighbor == gateway)
    })
}

fn far_node(far: &Far) -> Hop {
    let detail = match &far.route {
        Err(error) => error.clone(),
        Ok(route) => taken(route),
    };
    Hop {
        kind: "node",
        name: far.name.clone(),
        detail: vec![detail],
        source: if far.route.is_ok() { "kernel" } else { "api" },
        routes: true,
        ..Hop::default()
    }
}

#[cfg(test)]
mod tests;
