//! The pure core of a trace: from what the kernels, the API and the probes say, the hops.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use peapod_api::attach::Protocol;
use peapod_netd::probe::connection::Tracked;
use peapod_netd::probe::route::{Chosen, Fate, NextHop};
use peapod_netd::probe::send::{Met, Step, Walk};
use serde::Serialize;

use super::question::{Kind, PodEnd};
use crate::net::peers::Session;

/// What was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it begins.
    pub from: PodEnd,
    /// The destination, as people call it.
    pub to: String,
    /// The address that is sent to.
    pub address: IpAddr,
    /// What is sent.
    pub kind: Kind,
    /// The pod's address that it is sent from.
    pub source: IpAddr,
    /// The route in the pod.
    pub pod_route: Option<Chosen>,
    /// The node's end of the pod's link.
    pub veth: Option<String>,
    /// What the service map says.
    pub decision: Option<Decision>,
    /// The address after the service map.
    pub destination: IpAddr,
    /// The route on the pod's node.
    pub node_route: Result<Chosen, String>,
    /// The node at the other end, if it is another one.
    pub far: Option<Far>,
    /// The pod at the other end, if it is one.
    pub target: Option<PodEnd>,
    /// The sessions of the pod's node.
    pub leaves: Vec<Session>,
    /// The addresses of nodes.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// The first probe: to the destination as it was asked for.
    pub first: Option<Walk>,
    /// The probes to the address after the service map.
    pub walk: Option<Walk>,
    /// The kernel's memory of the first probe.
    pub connection: Option<Tracked>,
    /// Policies that select one of the ends.
    pub policies: Vec<String>,
}

/// What a service map says of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The service.
    pub service: String,
    /// `balance`, `refuse`, `drop`, `here`; `missing` where the map does not have it.
    pub action: &'static str,
    /// Where it may be led.
    pub endpoints: Vec<SocketAddr>,
    /// Where the first probe was led; without one, the first of them.
    pub chosen: Option<SocketAddr>,
}

/// The node at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// Its name.
    pub name: String,
    /// The route there; `None` for a node of another machine.
    pub route: Option<Result<Chosen, String>>,
}

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
    routes: bool,
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
    let detail = match (decision.action, decision.chosen) {
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

/// Why the packet goes no further than its node; `None` if it does.
fn stops(facts: &Facts) -> Option<String> {
    let decision = facts.decision.as_ref();
    let node = &facts.from.node;
    match decision.map(|decision| decision.action) {
        Some("refuse") => return Some(format!("{node} refuses it: the service has no endpoint")),
        Some("drop") => return Some(format!("{node} drops it: no endpoint on this node")),
        Some("missing") => return Some(format!("the service map of {node} lacks the service")),
        _ => {}
    }
    match &facts.node_route {
        Err(error) => Some(format!("{node} {error}")),
        Ok(route) => match route.fate {
            Fate::Blackhole => Some(format!("{node} drops it: the route is a blackhole")),
            Fate::Refused => Some(format!("{node} refuses it: the route says unreachable")),
            Fate::Local | Fate::Forwarded => None,
        },
    }
}

/// Why a packet to a pod of another node will hardly arrive: only the default route takes it.
fn astray(facts: &Facts) -> Option<String> {
    let far = facts.far.as_ref()?;
    let route = facts.node_route.as_ref().ok()?;
    let astray = route.prefix.is_none_or(|prefix| prefix.prefix_len() == 0);
    let (from, to) = (&facts.from.node, &far.name);
    (astray && route.fate == Fate::Forwarded)
        .then(|| format!("{from} has no route to the pods of {to}, only its default route"))
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
        name: session.remote_name().to_owned(),
        detail,
        source: "bgp",
        routes: true,
        ..Hop::default()
    })
}

fn session<'a>(hop: &NextHop, sessions: &'a [Session]) -> Option<&'a Session> {
    sessions.iter().find(|session| {
        let by_port = session.told.interface.as_deref() == Some(hop.link.as_str());
        let gateway = hop.gateway.map(|ip| ip.to_string());
        by_port || (gateway.is_some() && session.told.neighbor == gateway)
    })
}

fn far_node(far: &Far) -> Hop {
    let detail = match &far.route {
        None => "another machine: run the trace there for its part".to_owned(),
        Some(Err(error)) => error.clone(),
        Some(Ok(route)) => taken(route),
    };
    Hop {
        kind: "node",
        name: far.name.clone(),
        detail: vec![detail],
        source: if far.route.is_some() { "kernel" } else { "api" },
        routes: true,
        ..Hop::default()
    }
}

/// A route in a line.
fn taken(route: &Chosen) -> String {
    let prefix = match (&route.prefix, route.fate) {
        (_, Fate::Local) => return "its own address".to_owned(),
        (_, Fate::Blackhole) => return "blackhole".to_owned(),
        (_, Fate::Refused) => return "unreachable".to_owned(),
        (Some(prefix), _) => prefix.to_string(),
        (None, _) => "default".to_owned(),
    };
    match &route.next_hop {
        Some(hop) => format!("{prefix} ({}) {}", route.protocol, by(hop)),
        None => format!("{prefix} ({})", route.protocol),
    }
}

fn by(hop: &NextHop) -> String {
    match hop.gateway {
        Some(gateway) => format!("via {gateway} dev {}", hop.link),
        None => format!("dev {}", hop.link),
    }
}

/// A route and its other next hops.
fn described(route: &Chosen, sessions: &[Session]) -> Vec<String> {
    let mut lines = vec![taken(route)];
    let others = route.alternatives.iter().filter(|hop| {
        let chosen = route.next_hop.as_ref();
        chosen.is_none_or(|chosen| (chosen.gateway, &chosen.link) != (hop.gateway, &hop.link))
    });
    for hop in others {
        let leaf = session(hop, sessions).map(|one| format!(" ({})", one.remote_name()));
        let down = if hop.down { ", down" } else { "" };
        lines.push(format!(
            "other flows {}{}{down}",
            by(hop),
            leaf.unwrap_or_default()
        ));
    }
    lines
}

/// Writes the probes' answers to the hops that they came from: in order from the front, and the
/// destination's and that of the hop before it from the back. What is left over between is a
/// hop that nobody told of.
fn mark(hops: &mut Vec<Hop>, walk: &Walk, nodes: &BTreeMap<String, Vec<IpAddr>>) {
    let (last, on_the_way): (Option<&Step>, Vec<&Step>) = match walk.steps.split_last() {
        Some((last, rest)) if !matches!(last.met, Met::Hop(_)) => {
            (Some(last), rest.iter().collect())
        }
        _ => (None, walk.steps.iter().collect()),
    };
    let routing: Vec<usize> = (0..hops.len()).filter(|&at| hops[at].routes).collect();
    let (ends, between) = match routing.split_last() {
        Some((end, between)) => (Some(*end), between.to_vec()),
        None => (None, Vec::new()),
    };
    let arrived = last.filter(|step| matches!(step.met, Met::Answered | Met::Refused));
    if let (Some(end), Some(step)) = (ends, arrived) {
        hops[end].micros = Some(step.micros);
        let how = if step.met == Met::Refused {
            "refuses: nobody listens there"
        } else {
            "answers"
        };
        hops[end].detail.push(how.to_owned());
    }
    let mut unknown = Vec::new();
    for (nth, step) in on_the_way.iter().enumerate() {
        let from = match step.met {
            Met::Hop(ip) => Some(ip),
            _ => None,
        };
        // Far nodes are known by their addresses, wherever they stand.
        let named = from.and_then(|ip| {
            let owner = nodes.iter().find(|(_, ips)| ips.contains(&ip))?.0;
            between.iter().copied().find(|&at| hops[at].name == *owner)
        });
        let surplus = on_the_way.len() > between.len();
        let by_place = between
            .get(nth)
            .copied()
            .filter(|&at| nth == 0 || !surplus || hops[at].kind == "leaf");
        match (named.or(by_place), from) {
            (Some(at), Some(ip)) if hops[at].answered_from.is_none() => {
                hops[at].answered_from = Some(ip);
                hops[at].micros = Some(step.micros);
            }
            // A loop passes the same routers again and again.
            (_, Some(ip)) if unknown.iter().any(|(one, _)| *one == ip) => {}
            (_, Some(ip)) => unknown.push((ip, step.micros)),
            (_, None) => {}
        }
    }
    let place = between
        .last()
        .copied()
        .filter(|_| between.len() > 1)
        .or(ends);
    for (ip, micros) in unknown.into_iter().rev() {
        let hop = Hop {
            kind: "router",
            name: ip.to_string(),
            detail: vec!["told by its answer only".to_owned()],
            source: "probe",
            answered_from: Some(ip),
            micros: Some(micros),
            routes: true,
        };
        hops.insert(place.unwrap_or(hops.len()), hop);
    }
}

fn policy(policies: &[String]) -> String {
    match policies {
        [] => "none programmed, and none selects these pods".to_owned(),
        some => format!(
            "none programmed: {} select these pods, and nothing enforces them",
            some.join(", ")
        ),
    }
}

fn verdict(facts: &Facts, stuck: Option<String>) -> (Option<bool>, String) {
    let served = facts.first.as_ref().and_then(|walk| walk.steps.last());
    let walked = facts.walk.as_ref().and_then(|walk| walk.steps.last());
    let reached = served.map(|step| matches!(step.met, Met::Answered | Met::Refused));
    let text = match (served.map(|step| step.met), stuck) {
        (None, Some(why)) => format!("not probed; {why}"),
        (None, None) => "not probed; the tables lead there".to_owned(),
        (Some(Met::Answered), _) => "reached: the destination answered".to_owned(),
        (Some(Met::Refused), Some(why)) => format!("refused: {why}"),
        (Some(Met::Refused), None) => {
            "reached: the destination refused, nobody listens on that port".to_owned()
        }
        (Some(Met::Unreachable(from)), why) => {
            let teller = from
                .map(|ip| format!(" (told by {ip})"))
                .unwrap_or_default();
            let why = why.map(|why| format!("; {why}")).unwrap_or_default();
            format!("not reached: unreachable{teller}{why}")
        }
        (Some(Met::Hop(ip)), _) => {
            let why = astray(facts)
                .map(|why| format!("; {why}"))
                .unwrap_or_default();
            format!("not reached: the hop limit ran out at {ip}, a loop{why}")
        }
        (Some(Met::Silence), Some(why)) => format!("not reached: {why}"),
        (Some(Met::Silence), None) => match (walked.map(|step| step.met), facts.kind) {
            // UDP services need not answer what they do not understand.
            (_, Kind::Port(Protocol::Udp, _)) => {
                "sent; nobody answered, which UDP services need not".to_owned()
            }
            (Some(Met::Answered | Met::Refused), _) => {
                "the endpoint answers directly, but not through the service".to_owned()
            }
            _ => match astray(facts) {
                Some(why) => format!("not reached: nobody answered; {why}"),
                None => "not reached: nobody answered".to_owned(),
            },
        },
    };
    let unknown = matches!(facts.kind, Kind::Port(Protocol::Udp, _)) && reached == Some(false);
    (reached.filter(|_| !unknown), text)
}

/// For people.
pub fn text(trace: &Trace) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "from   {} ({})", trace.from, trace.source);
    let _ = writeln!(
        out,
        "to     {} ({}, {})\n",
        trace.to, trace.address, trace.protocol
    );
    let width = trace
        .hops
        .iter()
        .map(|hop| hop.name.chars().count())
        .max()
        .unwrap_or(0);
    for (nth, hop) in trace.hops.iter().enumerate() {
        let mut lines = hop.detail.clone();
        if let Some(micros) = hop.micros {
            let from = hop
                .answered_from
                .map(|ip| format!(" from {ip}"))
                .unwrap_or_default();
            lines.push(format!(
                "probe answered{from} in {:.2} ms",
                micros as f64 / 1000.0
            ));
        }
        let _ = writeln!(
            out,
            "{:>2}  {:<8} {:<width$}  {}",
            nth + 1,
            hop.kind,
            hop.name,
            lines.first().map(String::as_str).unwrap_or_default()
        );
        for line in lines.iter().skip(1) {
            let _ = writeln!(out, "{:indent$}{line}", "", indent = 15 + width);
        }
    }
    out.push('\n');
    if let Some(conntrack) = &trace.conntrack {
        let _ = writeln!(out, "conntrack  {conntrack}");
    }
    let _ = writeln!(out, "policy     {}", trace.policy);
    let _ = writeln!(out, "verdict    {}", trace.verdict);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::BgpSession;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(gateway: Option<&str>, link: &str) -> NextHop {
        NextHop {
            gateway: gateway.map(ip),
            link: link.into(),
            down: false,
        }
    }

    fn route(prefix: &str, protocol: &str, hops: &[NextHop]) -> Chosen {
        Chosen {
            fate: Fate::Forwarded,
            next_hop: hops.first().cloned(),
            source: None,
            prefix: prefix.parse().ok(),
            protocol: protocol.into(),
            alternatives: hops.to_vec(),
        }
    }

    fn pod(key: &str, node: &str, address: &str) -> PodEnd {
        PodEnd {
            key: key.into(),
            uid: key.into(),
            node: node.into(),
            ips: vec![ip(address)],
            ..Default::default()
        }
    }

    fn walk(met: &[Met]) -> Walk {
        let steps = met.iter().enumerate().map(|(nth, met)| Step {
            limit: nth as u8 + 1,
            met: *met,
            micros: 100,
        });
        Walk {
            steps: steps.collect(),
            source: Some("10.244.0.5:40000".parse().unwrap()),
        }
    }

    /// A pod of n1 sends to a service whose endpoint is a pod of n1.
    fn one_node() -> Facts {
        let endpoint: SocketAddr = "10.244.0.6:8080".parse().unwrap();
        Facts {
            from: pod("default/web", "n1", "10.244.0.5"),
            to: "service default/api".into(),
            address: ip("10.96.0.7"),
            kind: Kind::Port(Protocol::Tcp, 80),
            source: ip("10.244.0.5"),
            pod_route: Some(route("", "static", &[hop(Some("169.254.1.1"), "eth0")])),
            veth: Some("pea01".into()),
            decision: Some(Decision {
                service: "default/api".into(),
                action: "balance",
                endpoints: vec![endpoint, "10.244.0.9:8080".parse().unwrap()],
                chosen: Some(endpoint),
            }),
            destination: endpoint.ip(),
            node_route: Ok(route("10.244.0.6/32", "peapod", &[hop(None, "pea02")])),
            far: None,
            target: Some(pod("default/api-1", "n1", "10.244.0.6")),
            leaves: Vec::new(),
            nodes: [("n1".to_owned(), vec![ip("10.0.0.1")])].into(),
            first: Some(walk(&[Met::Answered])),
            walk: Some(walk(&[Met::Hop(ip("10.0.0.1")), Met::Answered])),
            connection: Some(Tracked {
                source: "10.244.0.5:40000".parse().unwrap(),
                destination: "10.96.0.7:80".parse().unwrap(),
                answered_by: endpoint,
            }),
            policies: Vec::new(),
        }
    }

    #[test]
    fn one_node_by_a_service() {
        assert_eq!(
            text(&trace(&one_node())),
            "from   pod default/web on n1 (10.244.0.5)
to     service default/api (10.96.0.7, TCP 80)

 1  pod      default/web    default (static) via 169.254.1.1 dev eth0
 2  service  default/api    10.96.0.7:80: the probe was led to 10.244.0.6:8080, one of 2
 3  node     n1             in by pea01
                            10.244.0.6/32 (peapod) dev pea02
                            probe answered from 10.0.0.1 in 0.10 ms
 4  pod      default/api-1  10.244.0.6 by its eth0
                            answers
                            probe answered in 0.10 ms

conntrack  10.244.0.5:40000 -> 10.96.0.7:80, answered by 10.244.0.6:8080
policy     none programmed, and none selects these pods
verdict    reached: the destination answered
"
        );
    }

    fn fabric() -> Facts {
        let session = |port: &str, name: &str| Session {
            node: "n1".into(),
            asn: None,
            told: BgpSession {
                interface: Some(port.into()),
                remote_hostname: Some(name.into()),
                remote_as: Some(65100),
                state: "Established".into(),
                ..Default::default()
            },
        };
        let ways = [hop(Some("fe80::1"), "eth1"), hop(Some("fe80::2"), "eth2")];
        Facts {
            to: "pod default/db".into(),
            address: ip("10.244.1.6"),
            kind: Kind::Icmp,
            decision: None,
            destination: ip("10.244.1.6"),
            node_route: Ok(route("10.244.1.0/24", "bgp", &ways)),
            far: Some(Far {
                name: "n2".into(),
                route: Some(Ok(route("10.244.1.6/32", "peapod", &[hop(None, "pea03")]))),
            }),
            target: Some(pod("default/db", "n2", "10.244.1.6")),
            leaves: vec![session("eth1", "leaf1"), session("eth2", "leaf2")],
            nodes: [
                ("n1".to_owned(), vec![ip("10.0.0.1")]),
                ("n2".to_owned(), vec![ip("10.0.0.2")]),
            ]
            .into(),
            connection: None,
            policies: vec!["default/deny".into()],
            ..one_node()
        }
    }

    #[test]
    fn two_nodes_over_a_leaf() {
        let hops = [
            Met::Hop(ip("10.0.0.1")),
            Met::Hop(ip("10.9.0.1")),
            Met::Hop(ip("10.0.0.2")),
            Met::Answered,
        ];
        let facts = Facts {
            walk: Some(walk(&hops)),
            ..fabric()
        };
        let trace = trace(&facts);
        let told: Vec<String> = trace
            .hops
            .iter()
            .map(|hop| {
                format!(
                    "{} {} {:?}",
                    hop.kind,
                    hop.name,
                    hop.answered_from.map(|ip| ip.to_string())
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "pod default/web None",
                "node n1 Some(\"10.0.0.1\")",
                "leaf leaf1 Some(\"10.9.0.1\")",
                "node n2 Some(\"10.0.0.2\")",
                "pod default/db None",
            ]
        );
        assert!(
            trace.hops[1]
                .detail
                .contains(&"other flows via fe80::2 dev eth2 (leaf2)".to_owned())
        );
        assert!(trace.policy.contains("default/deny"));
        assert_eq!(trace.reached, Some(true));
    }

    #[test]
    fn spines_show_by_their_answers() {
        let hops = [
            Met::Hop(ip("10.0.0.1")),
            Met::Hop(ip("10.9.0.1")),
            Met::Hop(ip("10.9.0.9")),
            Met::Hop(ip("10.9.0.2")),
            Met::Hop(ip("10.0.0.2")),
            Met::Answered,
        ];
        let facts = Facts {
            walk: Some(walk(&hops)),
            ..fabric()
        };
        let trace = trace(&facts);
        let kinds: Vec<&str> = trace.hops.iter().map(|hop| hop.kind).collect();
        assert_eq!(
            kinds,
            ["pod", "node", "leaf", "router", "router", "node", "pod"]
        );
        assert_eq!(trace.hops[2].answered_from, Some(ip("10.9.0.1")));
        assert_eq!(trace.hops[5].answered_from, Some(ip("10.0.0.2")));
    }

    #[test]
    fn what_stops_a_packet_is_named() {
        let mut facts = one_node();
        facts.decision = Some(Decision {
            service: "default/api".into(),
            action: "refuse",
            endpoints: Vec::new(),
            chosen: None,
        });
        facts.walk = None;
        facts.first = Some(walk(&[Met::Refused]));
        let refused = trace(&facts);
        assert_eq!(refused.hops.len(), 3);
        assert_eq!(
            refused.verdict,
            "refused: n1 refuses it: the service has no endpoint"
        );
        let mut facts = fabric();
        facts.node_route = Ok(Chosen {
            fate: Fate::Blackhole,
            ..route("10.244.1.0/24", "peapod", &[])
        });
        facts.first = Some(walk(&[Met::Silence]));
        facts.walk = None;
        assert_eq!(
            trace(&facts).verdict,
            "not reached: n1 drops it: the route is a blackhole"
        );
        facts.first = None;
        assert_eq!(trace(&facts).reached, None);
        let mut facts = fabric();
        facts.node_route = Ok(route("", "static", &[hop(Some("10.0.0.254"), "eth0")]));
        facts.first = Some(walk(&[Met::Silence]));
        facts.walk = None;
        let verdict = trace(&facts).verdict;
        assert!(
            verdict.contains("n1 has no route to the pods of n2"),
            "{verdict}"
        );
    }
}
