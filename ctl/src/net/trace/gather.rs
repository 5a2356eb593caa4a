//! Has the nodes on the way look at what they know: those of this machine directly, if root asks,
//! others by their agents.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use peapod_netd::probe::route::{Chosen, Flow};

use super::agent;
use super::facts::{Decision, Facts, Far};
use super::look::{Leaving, Left, Look, Mapped, Seen, look};
use super::question::{Asked, PodEnd};
use crate::net::Context;

/// Gathers what there is to know; has probes sent if asked to.
pub async fn gather(context: &Context, asked: &Asked, probing: bool) -> Result<Facts> {
    let from = &asked.from;
    let source = own_address(from, asked.address)?;
    let leaving = Leaving {
        uid: from.uid.clone(),
        host_network: from.host_network,
        ips: from.ips.clone(),
        source,
        address: asked.address,
        kind: asked.kind,
        probing,
    };
    let left = match see(context, asked, &from.node, Look::Leaving(leaving)).await? {
        Seen::Left(left) => *left,
        Seen::Arrived(_) => bail!("node {} answers another question", from.node),
    };
    let Left {
        pod_route,
        veth,
        mapped,
        flow,
        node_route,
        first,
        walk,
        connection,
    } = left;
    let destination = flow.destination;
    let target = asked
        .pods
        .iter()
        .find(|pod| !pod.host_network && pod.ips.contains(&destination));
    Ok(Facts {
        from: from.clone(),
        to: asked.to.clone(),
        address: asked.address,
        kind: asked.kind,
        source,
        pod_route,
        veth,
        decision: decision(asked, mapped),
        destination,
        node_route,
        far: far(context, asked, target, &flow).await,
        target: target.cloned(),
        leaves: asked
            .sessions
            .iter()
            .filter(|one| one.node == from.node)
            .cloned()
            .collect(),
        nodes: asked.nodes.clone(),
        first,
        walk,
        connection,
        policies: asked.policies.clone(),
    })
}

async fn see(context: &Context, asked: &Asked, node: &str, what: Look) -> Result<Seen> {
    let here = asked.locals.iter().find(|one| one.name == node);
    match here.filter(|_| nix::unistd::geteuid().is_root()) {
        Some(node) => look(node, &what),
        None => agent::ask(&context.session, node, &what).await,
    }
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

/// What the node's service map says of the destination; nothing for what is no service.
fn decision(asked: &Asked, mapped: Option<Mapped>) -> Option<Decision> {
    let frontend = asked.kind.frontend(asked.address)?;
    let owner = asked.known.owner(&frontend).map(ToString::to_string);
    decided(owner, mapped)
}

fn decided(owner: Option<String>, mapped: Option<Mapped>) -> Option<Decision> {
    let Some(mapped) = mapped else {
        return owner.map(|service| Decision {
            service,
            action: "missing".to_owned(),
            endpoints: Vec::new(),
            chosen: None,
        });
    };
    Some(Decision {
        service: owner.unwrap_or_else(|| "(no service has it)".to_owned()),
        action: mapped.action,
        endpoints: mapped.endpoints,
        chosen: mapped.chosen,
    })
}

/// What is known of the node at the other end.
async fn far(
    context: &Context,
    asked: &Asked,
    target: Option<&PodEnd>,
    flow: &Flow,
) -> Option<Far> {
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
    let name = name.filter(|name| *name != asked.from.node)?;
    let bare = Flow {
        source: None,
        ..*flow
    };
    let seen = see(context, asked, &name, Look::Arriving(bare)).await;
    let route = seen.and_then(arrived).map_err(|error| format!("{error:#}"));
    Some(Far { name, route })
}

fn arrived(seen: Seen) -> Result<Chosen> {
    match seen {
        Seen::Arrived(route) => Ok(route),
        Seen::Left(_) => bail!("it answers another question"),
    }
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

    #[test]
    fn a_service_that_the_map_lacks_is_missing() {
        let service = Some("default/web".to_owned());
        let mapped = || {
            Some(Mapped {
                action: "refuse".to_owned(),
                endpoints: Vec::new(),
                chosen: None,
            })
        };
        assert_eq!(decided(service.clone(), None).unwrap().action, "missing");
        assert_eq!(decided(service, mapped()).unwrap().action, "refuse");
        assert!(decided(None, mapped()).unwrap().service.starts_with('('));
        assert_eq!(decided(None, None), None);
    }
}
