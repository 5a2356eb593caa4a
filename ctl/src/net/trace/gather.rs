//! Asks the kernels on the way, and sends the probes: every look happens in the network
//! namespace that it is about.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, anyhow};
use peapod_api::attach::Protocol;
use peapod_netd::core::services::{Dispatch, Frontend};
use peapod_netd::links::alias;
use peapod_netd::links::rtnl::Rtnl;
use peapod_netd::probe::connection::{self, Tracked};
use peapod_netd::probe::route::{self, Chosen, Flow};
use peapod_netd::probe::send::{self, Probe, Walk};

use super::facts::{Decision, Facts, Far};
use super::question::{Asked, Kind, PodEnd};
use crate::net::local::{self, LocalNode};
use crate::net::services;

/// Gathers what there is to know; sends probes if asked to.
pub fn gather(asked: &Asked, probing: bool) -> Result<Facts> {
    local::must_be_root("a trace")?;
    let node = local::node(&asked.locals, Some(&asked.from.node))
        .with_context(|| format!("pod {} runs on node {}", asked.from.key, asked.from.node))?;
    let source = own_address(&asked.from, asked.address)?;
    let (first, tracked) = match probing {
        true => first_probe(node, asked)?,
        false => (None, None),
    };
    let decision = decision(asked, node, tracked.as_ref())?;
    let (address, kind) = match decision.as_ref().and_then(|decision| decision.chosen) {
        Some(endpoint) => (endpoint.ip(), behind(asked.kind, endpoint.port())),
        None => (asked.address, asked.kind),
    };
    // To the endpoint itself: each probe through the service might be led to another one.
    // And one that is led back to the pod itself has no other way to show.
    let leads = decision.as_ref().is_none_or(|one| one.chosen.is_some()) && address != source;
    let walk = match probing && leads {
        true => Some(in_pod(node, &asked.from, || {
            Ok(send::walk(address, probe(kind))?)
        })?),
        false => None,
    };
    let flow = Flow {
        source: Some(source),
        destination: address,
        protocol: protocol_number(kind),
        source_port: walk
            .as_ref()
            .and_then(|walk| walk.source)
            .map_or(0, |from| from.port()),
        destination_port: port(kind),
        input: None,
    };
    let pod_route = match asked.from.host_network {
        true => None,
        false => Some(in_pod(node, &asked.from, || {
            Ok(route::lookup(&Flow {
                destination: asked.address,
                ..flow
            })?)
        })?),
    };
    let veth = (!asked.from.host_network).then(|| alias::link_name(&asked.from.uid));
    let node_route = forwarded(node, &flow, veth.as_deref()).map_err(|error| format!("{error:#}"));
    let target = asked
        .pods
        .iter()
        .find(|pod| !pod.host_network && pod.ips.contains(&address));
    Ok(Facts {
        from: asked.from.clone(),
        to: asked.to.clone(),
        address: asked.address,
        kind: asked.kind,
        source,
        pod_route,
        veth,
        decision,
        destination: address,
        node_route,
        far: far(asked, target, &flow)?,
        target: target.cloned(),
        leaves: asked
            .sessions
            .iter()
            .filter(|one| one.node == node.name)
            .cloned()
            .collect(),
        nodes: asked.nodes.clone(),
        first,
        walk,
        connection: tracked,
        policies: asked.policies.clone(),
    })
}

/// The first probe, and the kernel's memory of it. A service may lead a pod to itself, which
/// shows little: then another is sent, a few times.
fn first_probe(node: &LocalNode, asked: &Asked) -> Result<(Option<Walk>, Option<Tracked>)> {
    const TRIES: usize = 16;
    let mut outcome = (None, None);
    for _ in 0..TRIES {
        let walk = in_pod(node, &asked.from, || {
            Ok(send::once(asked.address, probe(asked.kind))?)
        })?;
        let tracked = walk
            .source
            .map(|from| tracked(node, from, asked))
            .transpose()?
            .flatten();
        let itself = tracked.is_some_and(|one| asked.from.ips.contains(&one.answered_by.ip()));
        outcome = (Some(walk), tracked);
        if !itself {
            break;
        }
    }
    Ok(outcome)
}

fn own_address(pod: &PodEnd, to: IpAddr) -> Result<IpAddr> {
    let own = pod.ips.iter().find(|ip| ip.is_ipv4() == to.is_ipv4());
    own.copied().ok_or_else(|| {
        anyhow!(
            "pod {} has no address of {to}'s family; trace to an address of the other",
            pod.key
        )
    })
}

/// Does something where the pod's programs would do it.
fn in_pod<T: Send>(
    node: &LocalNode,
    pod: &PodEnd,
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
fn tracked(node: &LocalNode, from: SocketAddr, asked: &Asked) -> Result<Option<Tracked>> {
    let to = SocketAddr::new(asked.address, port(asked.kind));
    node.inside(|| connection::find(from, to).context("cannot read the connections"))
}

/// What the node's service map says of the destination; nothing for what is no service.
fn decision(
    asked: &Asked,
    node: &LocalNode,
    tracked: Option<&Tracked>,
) -> Result<Option<Decision>> {
    let Kind::Port(protocol, port) = asked.kind else {
        return Ok(None);
    };
    let frontend = Frontend::Address {
        ip: asked.address,
        protocol,
        port,
    };
    let kernel = services::kernel(node)?;
    let owner = asked.known.owner(&frontend).map(ToString::to_string);
    let Some(dispatch) = kernel.get(&frontend) else {
        return Ok(owner.map(|service| Decision {
            service,
            action: "missing",
            endpoints: Vec::new(),
            chosen: None,
        }));
    };
    let mut endpoints = match dispatch {
        Dispatch::Balance(balance) => balance.endpoints.clone(),
        _ => Vec::new(),
    };
    endpoints.sort();
    let led = tracked.map(|one| one.answered_by);
    let led = led.filter(|endpoint| endpoints.contains(endpoint));
    Ok(Some(Decision {
        service: owner.unwrap_or_else(|| "(no service has it)".to_owned()),
        action: match dispatch {
            Dispatch::Balance(_) => "balance",
            Dispatch::Refuse => "refuse",
            Dispatch::Drop => "drop",
            Dispatch::Here => "here",
        },
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

/// What is known of the node at the other end.
fn far(asked: &Asked, target: Option<&PodEnd>, flow: &Flow) -> Result<Option<Far>> {
    let destination = flow.destination;
    let by_block = asked
        .blocks
        .iter()
        .find(|(block, _)| block.contains(&destination));
    let by_address = asked
        .nodes
        .iter()
        .find(|(_, ips)| ips.contains(&destination));
    let name = target
        .map(|pod| pod.node.clone())
        .or(by_block.map(|(_, node)| node.clone()))
        .or(by_address.map(|(node, _)| node.clone()));
    let Some(name) = name.filter(|name| *name != asked.from.node) else {
        return Ok(None);
    };
    let Some(node) = asked.locals.iter().find(|node| node.name == name) else {
        return Ok(Some(Far { name, route: None }));
    };
    let bare = Flow {
        source: None,
        ..*flow
    };
    let route = node.inside(|| Ok(route::lookup(&bare)?));
    Ok(Some(Far {
        name,
        route: Some(route.map_err(|error| format!("{error:#}"))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_that_the_pod_lacks_is_named() {
        let pod = PodEnd {
            key: "default/web".into(),
            ips: vec!["10.0.0.1".parse().unwrap()],
            ..Default::default()
        };
        assert!(own_address(&pod, "10.0.0.2".parse().unwrap()).is_ok());
        let told = own_address(&pod, "fd00::1".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(told.contains("default/web"), "{told}");
    }
}
