//! Who is meant by the two words of a trace, and what the API knows on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use peapod_api::attach::Protocol;
use peapod_netd::core::facts::ServiceFacts;
use peapod_netd::core::services::Frontend;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{TraceArgs, Wire};
use crate::net::Context;
use crate::net::local::{self, LocalNode};
use crate::net::peers::{self, Session};
use crate::net::policies;
use crate::net::services::Known;
use crate::net::source::{items, key, list, list_if_served, text};

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodEnd {
    /// `namespace/name`
    pub key: String,
    /// Its UID.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it has its node's network.
    pub host_network: bool,
    /// Its first container port.
    pub port: Option<(Protocol, u16)>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Echo requests.
    Icmp,
    /// To a port.
    Port(Protocol, u16),
}

// === impl Kind ===

impl Kind {
    /// What service maps know this by, sent to an address; echo requests are no service's.
    pub fn frontend(self, ip: IpAddr) -> Option<Frontend> {
        let Kind::Port(protocol, port) = self else {
            return None;
        };
        Some(Frontend::Address { ip, protocol, port })
    }
}

/// Everything that the API knows of the way.
#[derive(Debug)]
pub struct Asked {
    /// Where it begins.
    pub from: PodEnd,
    /// The destination, as people call it.
    pub to: String,
    /// The address that is sent to.
    pub address: IpAddr,
    /// What is sent.
    pub kind: Kind,
    /// All pods.
    pub pods: Vec<PodEnd>,
    /// Services and endpoints.
    pub known: Known,
    /// The addresses of nodes.
    pub nodes: BTreeMap<String, Vec<IpAddr>>,
    /// Which node has which block.
    pub blocks: Vec<(IpNet, String)>,
    /// BGP sessions.
    pub sessions: Vec<Session>,
    /// The nodes of this machine.
    pub locals: Vec<LocalNode>,
    /// Policies that select one of the ends.
    pub policies: Vec<String>,
}

/// Asks.
pub async fn ask(context: &Context, args: &TraceArgs) -> Result<Asked> {
    let session = &context.session;
    let objects = list(session, "/api/v1/pods").await?;
    let nodes = list(session, "/api/v1/nodes").await?;
    let blocks = list_if_served(session, "/apis/net.peapod.dev/v1/ipblocks").await?;
    let policies = list(session, "/apis/networking.k8s.io/v1/networkpolicies").await?;
    let known = Known::ask(context).await?;
    let pods: Vec<PodEnd> = objects.iter().filter_map(pod_end).collect();
    let namespace = session.namespace();
    let from = source(&pods, &args.from, namespace)?;
    let (to, address, port) = target(&pods, &known, &args.to, namespace, &from, args.port)?;
    let kind = kind(args, port)?;
    let ends: Vec<&Value> = objects
        .iter()
        .filter(|pod| {
            key(pod) == from.key || pod_end(pod).is_some_and(|one| one.ips.contains(&address))
        })
        .collect();
    let ends: Vec<Value> = ends.into_iter().cloned().collect();
    let selecting = policies::policies_of(&policies, &ends);
    let selecting = selecting
        .into_iter()
        .filter(|policy| !policy.pods.is_empty());
    Ok(Asked {
        from,
        to,
        address,
        kind,
        known,
        nodes: nodes.iter().map(node_addresses).collect(),
        blocks: blocks.iter().filter_map(block).collect(),
        sessions: peers::sessions(context).await?,
        locals: local::nodes(&context.instance)?,
        policies: selecting.map(|policy| policy.policy).collect(),
        pods,
    })
}

fn pod_end(pod: &Value) -> Option<PodEnd> {
    let node = text(pod, "/spec/nodeName");
    if node.is_empty() || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return None;
    }
    let ips = items(pod, "/status/podIPs").iter();
    let containers = items(pod, "/spec/containers").iter();
    let mut ports = containers.flat_map(|one| items(one, "/ports").iter());
    Some(PodEnd {
        key: key(pod),
        uid: text(pod, "/metadata/uid").to_owned(),
        node: node.to_owned(),
        ips: ips
            .filter_map(|one| text(one, "/ip").parse().ok())
            .collect(),
        host_network: pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
        port: ports.next().and_then(|port| {
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            Some((protocol(text(port, "/protocol")), number))
        }),
    })
}

fn protocol(name: &str) -> Protocol {
    match name {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn node_addresses(node: &Value) -> (String, Vec<IpAddr>) {
    let addresses = items(node, "/status/addresses").iter();
    let addresses = addresses.filter_map(|one| text(one, "/address").parse().ok());
    (text(node, "/metadata/name").to_owned(), addresses.collect())
}

fn block(block: &Value) -> Option<(IpNet, String)> {
    Some((
        text(block, "/spec/cidr").parse().ok()?,
        text(block, "/spec/node").to_owned(),
    ))
}

/// `name`, `namespace/name` or `pod/name`, as a key.
fn pod_key(word: &str, namespace: &str) -> String {
    match word.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => format!("{namespace}/{name}"),
        Some(_) => word.to_owned(),
        None => format!("{namespace}/{word}"),
    }
}

fn source(pods: &[PodEnd], word: &str, namespace: &str) -> Result<PodEnd> {
    let found = match word.parse::<IpAddr>() {
        Ok(ip) => pods
            .iter()
            .find(|pod| !pod.host_network && pod.ips.contains(&ip)),
        Err(_) => {
            let key = pod_key(word, namespace);
            pods.iter().find(|pod| pod.key == key)
        }
    };
    let found = found.cloned().ok_or_else(|| {
        anyhow!(
            "no running pod is {word:?} (in namespace {namespace}); a trace begins at a pod: peapod get pods -o wide"
        )
    })?;
    if found.ips.is_empty() {
        bail!("pod {} has no address yet; wait until it runs", found.key);
    }
    Ok(found)
}

type Target = (String, IpAddr, Option<(Protocol, u16)>);

fn target(
    pods: &[PodEnd],
    known: &Known,
    word: &str,
    namespace: &str,
    from: &PodEnd,
    wanted: Option<u16>,
) -> Result<Target> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok((named_address(pods, known, ip), ip, first_port(known, ip)));
    }
    let family = |ips: &[IpAddr]| {
        let has = |v4: bool| from.ips.iter().any(|ip| ip.is_ipv4() == v4);
        ips.iter().copied().find(|ip| has(ip.is_ipv4()))
    };
    let as_service = ["svc/", "service/", "services/"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix));
    let key = pod_key(word, namespace);
    if as_service.is_none()
        && let Some(pod) = pods.iter().find(|pod| pod.key == key)
    {
        let ip = family(&pod.ips)
            .ok_or_else(|| anyhow!("pod {key} has no address that {} can send to", from.key))?;
        return Ok((format!("pod {key}"), ip, pod.port));
    }
    let key = match as_service {
        Some(name) => format!("{namespace}/{name}"),
        None => key,
    };
    let Some((_, facts)) = known
        .services
        .iter()
        .find(|(one, _)| one.to_string() == key)
    else {
        bail!(
            "{word:?} is no pod, service or address (in namespace {namespace}); say NAMESPACE/NAME for another"
        );
    };
    let Some(ip) = family(&facts.cluster_ips) else {
        bail!(
            "service {key} has no cluster address ({}); trace to one of its pods: peapod net endpoints {word}",
            if facts.headless {
                "it is headless"
            } else {
                "not one of the pod's family"
            }
        );
    };
    let port = facts
        .ports
        .iter()
        .find(|port| wanted.is_none_or(|wanted| port.port == wanted));
    let Some(port) = port else {
        bail!(
            "service {key} has no port {}; it has {}",
            wanted.unwrap_or(0),
            ports(facts)
        );
    };
    Ok((
        format!("service {key}"),
        ip,
        Some((port.protocol, port.port)),
    ))
}

fn ports(facts: &ServiceFacts) -> String {
    let ports: Vec<String> = facts
        .ports
        .iter()
        .map(|port| port.port.to_string())
        .collect();
    if ports.is_empty() {
        "none".to_owned()
    } else {
        ports.join(", ")
    }
}

fn named_address(pods: &[PodEnd], known: &Known, ip: IpAddr) -> String {
    let pod = pods
        .iter()
        .find(|pod| !pod.host_network && pod.ips.contains(&ip));
    if let Some(pod) = pod {
        return format!("pod {}", pod.key);
    }
    let service = known
        .services
        .iter()
        .find(|(_, facts)| facts.cluster_ips.contains(&ip));
    match service {
        Some((key, _)) => format!("service {key}"),
        None => ip.to_string(),
    }
}

fn first_port(known: &Known, ip: IpAddr) -> Option<(Protocol, u16)> {
    let service = known
        .services
        .iter()
        .find(|(_, facts)| facts.cluster_ips.contains(&ip) || facts.external_ips.contains(&ip));
    let port = service?.1.ports.first()?;
    Some((port.protocol, port.port))
}

fn kind(args: &TraceArgs, port: Option<(Protocol, u16)>) -> Result<Kind> {
    let number = args.port.or(port.map(|(_, port)| port));
    let of_port = port.map(|(protocol, _)| protocol);
    Ok(match (args.protocol, number) {
        (Some(Wire::Icmp), _) | (None, None) => Kind::Icmp,
        (Some(wire), None) => bail!("{wire:?} needs a port; say which with --port"),
        (Some(Wire::Udp), Some(port)) => Kind::Port(Protocol::Udp, port),
        (Some(Wire::Tcp), Some(port)) => Kind::Port(Protocol::Tcp, port),
        (None, Some(port)) => match of_port {
            Some(Protocol::Sctp) => bail!("SCTP is not traced; say --protocol icmp"),
            of_port => Kind::Port(of_port.unwrap_or(Protocol::Tcp), port),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world() -> (Vec<PodEnd>, Known) {
        let pod = |name: &str, ip: &str| {
            pod_end(&json!({
                "metadata": {"namespace": "default", "name": name, "uid": name},
                "spec": {"nodeName": "n1", "containers": [{"ports": [{"containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
            }))
            .unwrap()
        };
        let service = json!({
            "metadata": {"namespace": "default", "name": "api"},
            "spec": {"clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}, {"port": 443}]},
        });
        let known = Known::read(&[service], &[]);
        (vec![pod("web", "10.0.0.1"), pod("db", "10.0.0.2")], known)
    }

    #[test]
    fn words_are_pods_then_services() {
        let (pods, known) = world();
        let from = source(&pods, "web", "default").unwrap();
        assert_eq!(source(&pods, "10.0.0.1", "other").unwrap(), from);
        assert!(source(&pods, "web", "other").is_err());
        let to = |word, port| target(&pods, &known, word, "default", &from, port);
        assert_eq!(to("db", None).unwrap().2, Some((Protocol::Tcp, 8080)));
        let (name, ip, port) = to("svc/api", Some(443)).unwrap();
        assert_eq!(
            (name.as_str(), ip.to_string().as_str()),
            ("service default/api", "10.96.0.7")
        );
        assert_eq!(port, Some((Protocol::Tcp, 443)));
        assert_eq!(to("10.0.0.2", None).unwrap().0, "pod default/db");
        assert_eq!(to("10.96.0.7", None).unwrap().2, Some((Protocol::Tcp, 80)));
        assert!(
            to("api", Some(1))
                .unwrap_err()
                .to_string()
                .contains("80, 443")
        );
        assert!(to("nobody", None).is_err());
    }
}
