//! What a node's kernel knows of a packet's way, and the probes from its pods: every look happens
//! in the network namespace that it is about. Questions and answers are plain values, since the
//! node may be another machine: [`super::agent`] asks there.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use peapod_api::attach::Protocol;
use peapod_netd::core::services::Dispatch;
use peapod_netd::links::alias;
use peapod_netd::links::rtnl::Rtnl;
use peapod_netd::probe::connection::{self, Tracked};
use peapod_netd::probe::route::{self, Chosen, Flow};
use peapod_netd::probe::send::{self, Probe, Walk};
use serde::{Deserialize, Serialize};

use super::question::Kind;
use crate::net::local::{self, LocalNode};
use crate::net::services;

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// The way from a pod of the node.
    Leaving(Leaving),
    /// The route of what arrives.
    Arriving(Flow),
}

/// A packet of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaving {
    /// The pod's UID.
    pub uid: String,
    /// Whether it has its node's network.
    pub host_network: bool,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The one that it sends from.
    pub source: IpAddr,
    /// The address that it sends to.
    pub address: IpAddr,
    /// What is sent.
    pub kind: Kind,
    /// Whether probes are sent.
    pub probing: bool,
}

/// What there is to see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// Of the way from a pod.
    Left(Box<Left>),
    /// Of the way to one.
    Arrived(Chosen),
}

/// The way from a pod as far as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The route in the pod.
    pub pod_route: Option<Chosen>,
    /// The node's end of the pod's link.
    pub veth: Option<String>,
    /// What the service map says of the destination, if anything.
    pub mapped: Option<Mapped>,
    /// The flow after the service map.
    pub flow: Flow,
    /// The route on the node, or why there is none.
    pub node_route: Result<Chosen, String>,
    /// The first probe: to the destination as it was asked for.
    pub first: Option<Walk>,
    /// The probes to the address after the service map.
    pub walk: Option<Walk>,
    /// The kernel's memory of the first probe.
    pub connection: Option<Tracked>,
}

/// What a service map says of a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapped {
    /// `balance`, `refuse`, `drop` or `here`.
    pub action: String,
    /// Where it may be led.
    pub endpoints: Vec<SocketAddr>,
    /// Where the first probe was led; without one, the first of them.
    pub chosen: Option<SocketAddr>,
}

/// Looks, on the node itself.
pub fn look(node: &LocalNode, what: &Look) -> Result<Seen> {
    match what {
        Look::Leaving(pod) => Ok(Seen::Left(Box::new(leaving(node, pod)?))),
        Look::Arriving(flow) => node.inside(|| Ok(Seen::Arrived(route::lookup(flow)?))),
    }
}

fn leaving(node: &LocalNode, pod: &Leaving) -> Result<Left> {
    // It names a file.
    if pod.uid.is_empty()
        || !pod
            .uid
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        bail!("{:?} is no UID of a pod", pod.uid);
    }
    let (first, tracked) = match pod.probing {
        true => first_probe(node, pod)?,
        false => (None, None),
    };
    let mapped = mapped(pod, node, tracked.as_ref())?;
    let (address, kind) = match mapped.as_ref().and_then(|mapped| mapped.chosen) {
        Some(endpoint) => (endpoint.ip(), behind(pod.kind, endpoint.port())),
        None => (pod.address, pod.kind),
    };
    // To the endpoint itself: each probe through the service might be led to another one.
    // And one that is led back to the pod itself has no other way to show.
    let leads = mapped.as_ref().is_none_or(|one| one.chosen.is_some()) && address != pod.source;
    let walk = match pod.probing && leads {
        true => Some(in_pod(node, pod, || Ok(send::walk(address, probe(kind))?))?),
        false => None,
    };
    let flow = Flow {
        source: Some(pod.source),
        destination: address,
        protocol: protocol_number(kind),
        source_port: walk
            .as_ref()
            .and_then(|walk| walk.source)
            .map_or(0, |from| from.port()),
        destination_port: port(kind),
        input: None,
    };
    let asked = Flow {
        destination: pod.address,
        ..flow
    };
    let pod_route = match pod.host_network {
        true => None,
        false => Some(in_pod(node, pod, || Ok(route::lookup(&asked)?))?),
    };
    let veth = (!pod.host_network).then(|| alias::link_name(&pod.uid));
    let node_route = forwarded(node, &flow, veth.as_deref()).map_err(|error| format!("{error:#}"));
    Ok(Left {
        pod_route,
        veth,
        mapped,
        flow,
        node_route,
        first,
        walk,
        connection: tracked,
    })
}

/// The first probe, and the kernel's memory of it. A service may lead a pod to itself, which
/// shows little: then another is sent, a few times.
fn first_probe(node: &LocalNode, pod: &Leaving) -> Result<(Option<Walk>, Option<Tracked>)> {
    const TRIES: usize = 16;
    let mut outcome = (None, None);
    for _ in 0..TRIES {
        let walk = in_pod(node, pod, || Ok(send::once(pod.address, probe(pod.kind))?))?;
        let tracked = walk
            .source
            .map(|from| tracked(node, from, pod))
            .transpose()?
            .flatten();
        let itself = tracked.is_some_and(|one| pod.ips.contains(&one.answered_by.ip()));
        outcome = (Some(walk), tracked);
        if !itself {
            break;
        }
    }
    Ok(outcome)
}

/// Does something where the pod's programs would do it.
fn in_pod<T: Send>(
    node: &LocalNode,
    pod: &Leaving,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match pod.host_network {
        true => node.inside(work),
        false => local::inside(&node.pod_netns(&pod.uid), work),
    }
}

fn probe(kind: Kind) -> Probe {
    match kind {
        Kind::Icmp => Probe::Icmp,
        Kind::Port(Protocol::Udp, port) => Probe::Udp(port),
        Kind::Port(_, port) => Probe::Tcp(port),
    }
}

fn behind(kind: Kind, port: u16) -> Kind {
    match kind {
        Kind::Icmp => Kind::Icmp,
        Kind::Port(protocol, _) => Kind::Port(protocol, port),
    }
}

fn port(kind: Kind) -> u16 {
    match kind {
        Kind::Icmp => 0,
        Kind::Port(_, port) => port,
    }
}

fn protocol_number(kind: Kind) -> u8 {
    let number = match kind {
        Kind::Icmp => libc::IPPROTO_ICMP,
        Kind::Port(Protocol::Udp, _) => libc::IPPROTO_UDP,
        Kind::Port(..) => libc::IPPROTO_TCP,
    };
    number as u8
}

/// The kernel's memory of the first probe.
fn tracked(node: &LocalNode, from: SocketAddr, pod: &Leaving) -> Result<Option<Tracked>> {
    let to = SocketAddr::new(pod.address, port(pod.kind));
    node.inside(|| connection::find(from, to).context("cannot read the connections"))
}

/// What the node's service map says of the destination; nothing for what is no service there.
fn mapped(pod: &Leaving, node: &LocalNode, tracked: Option<&Tracked>) -> Result<Option<Mapped>> {
    let Some(frontend) = pod.kind.frontend(pod.address) else {
        return Ok(None);
    };
    let kernel = services::kernel(node)?;
    let Some(dispatch) = kernel.get(&frontend) else {
        return Ok(None);
    };
    let mut endpoints = match dispatch {
        Dispatch::Balance(balance) => balance.endpoints.clone(),
        _ => Vec::new(),
    };
    endpoints.sort();
    let led = tracked.map(|one| one.answered_by);
    let led = led.filter(|endpoint| endpoints.contains(endpoint));
    let action = match dispatch {
        Dispatch::Balance(_) => "balance",
        Dispatch::Refuse => "refuse",
        Dispatch::Drop => "drop",
        Dispatch::Here => "here",
    };
    Ok(Some(Mapped {
        action: action.to_owned(),
        chosen: led.or_else(|| endpoints.first().copied()),
        endpoints,
    }))
}

/// The route that a node takes for what a pod sends, or for its own.
fn forwarded(node: &LocalNode, flow: &Flow, veth: Option<&str>) -> Result<Chosen> {
    node.inside(|| {
        let input = match veth {
            Some(veth) => Some(Rtnl::open()?.link(veth)?.index),
            None => None,
        };
        Ok(route::lookup(&Flow { input, ..*flow })?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_leads_to_no_other_file() {
        let node = LocalNode {
            name: "a".into(),
            netns: None,
            sandboxes: "/nowhere".into(),
            control: "/nowhere".into(),
        };
        for uid in ["", "../../proc/1/ns", "a/b", "."] {
            let pod = Leaving {
                uid: uid.to_owned(),
                host_network: false,
                ips: Vec::new(),
                source: "10.0.0.1".parse().unwrap(),
                address: "10.0.0.2".parse().unwrap(),
                kind: Kind::Icmp,
                probing: false,
            };
            let told = look(&node, &Look::Leaving(pod)).unwrap_err().to_string();
            assert!(told.contains("no UID"), "{told}");
        }
    }
}
