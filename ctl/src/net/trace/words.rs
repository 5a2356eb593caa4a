//! The words of a trace: routes in a line, why a packet stops, the sum of it, and all of it as
//! text.

use std::fmt::Write as _;

use peapod_api::attach::Protocol;
use peapod_netd::probe::route::{Chosen, Fate, NextHop};
use peapod_netd::probe::send::Met;

use super::facts::Facts;
use super::path::{Trace, session};
use super::question::Kind;
use crate::net::peers::Session;

/// Why the packet goes no further than its node; `None` if it does.
pub(super) fn stops(facts: &Facts) -> Option<String> {
    let decision = facts.decision.as_ref();
    let node = &facts.from.node;
    match decision.map(|decision| decision.action.as_str()) {
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

/// A route in a line.
pub(super) fn taken(route: &Chosen) -> String {
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
pub(super) fn described(route: &Chosen, sessions: &[Session]) -> Vec<String> {
    let mut lines = vec![taken(route)];
    let others = route.alternatives.iter().filter(|hop| {
        let chosen = route.next_hop.as_ref();
        chosen.is_none_or(|chosen| (chosen.gateway, &chosen.link) != (hop.gateway, &hop.link))
    });
    for hop in others {
        let leaf = session(hop, sessions).map(|one| format!(" ({})", one.shown_name()));
        let down = if hop.down { ", down" } else { "" };
        lines.push(format!(
            "other flows {}{}{down}",
            by(hop),
            leaf.unwrap_or_default()
        ));
    }
    lines
}

pub(super) fn policy(policies: &[String]) -> String {
    match policies {
        [] => "none programmed, and none selects these pods".to_owned(),
        some => format!(
            "none programmed: {} select these pods, and nothing enforces them",
            some.join(", ")
        ),
    }
}

pub(super) fn verdict(facts: &Facts, stuck: Option<String>) -> (Option<bool>, String) {
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
