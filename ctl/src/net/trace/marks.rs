//! Which hop answered which probe.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use peapod_netd::probe::send::{Met, Step, Walk};

use super::path::Hop;

/// What a router that has only IPv6 addresses answers from (RFC 7600): any of them.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));

/// Writes the probes' answers to the hops that they came from: in order from the front, and the
/// destination's and that of the hop before it from the back. What is left over between is a
/// hop that nobody told of.
pub(super) fn mark(hops: &mut Vec<Hop>, walk: &Walk, nodes: &BTreeMap<String, Vec<IpAddr>>) {
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
            (_, Some(ip)) if ip != NOBODY && unknown.iter().any(|(one, _)| *one == ip) => {}
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
            detail: vec![match ip == NOBODY {
                true => "a router without an IPv4 address of its own (RFC 7600)".to_owned(),
                false => "told by its answer only".to_owned(),
            }],
            source: "probe",
            answered_from: Some(ip),
            micros: Some(micros),
            routes: true,
        };
        hops.insert(place.unwrap_or(hops.len()), hop);
    }
}
