//! `peapod net services`: the service map as it should be by the API, and whether this
//! machine's kernel has it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use peapod_api::attach::Protocol;
use peapod_api::k8s_openapi::api::core::v1::Service;
use peapod_api::k8s_openapi::api::discovery::v1::EndpointSlice;
use peapod_netd::core::facts::{ServiceFacts, ServiceKey, SliceFacts};
use peapod_netd::core::services::{Dispatch, Frontend, ServiceTable};
use peapod_netd::nat;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::local::{self, LocalNode};
use super::show::{Cell, Table, Tone};
use super::source::list;

/// `peapod net services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    /// Only the map of this node of this machine
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

/// The service of the cluster's DNS, as upstream names it.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");

/// The map of a node.
pub type Map = BTreeMap<Frontend, Dispatch>;

/// A frontend, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownFrontend {
    /// The node whose kernel was asked; empty without one.
    pub node: String,
    /// `namespace/name`; empty for what no service claims.
    pub service: String,
    /// `ADDRESS:PORT`, or `*:PORT` for a port of every address of the node.
    pub frontend: String,
    /// `TCP`, `UDP` or `SCTP`
    pub protocol: Protocol,
    /// `balance`, `refuse`, `drop` or `here`
    pub action: &'static str,
    /// Where connections may be led.
    pub endpoints: Vec<SocketAddr>,
    /// Seconds that a client stays with its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity_seconds: Option<u32>,
    /// `yes`, `missing`, `differs`, `extra`; `unknown` where the kernel is not this machine's.
    pub programmed: &'static str,
}

/// The services of a cluster and their endpoints.
#[derive(Debug, Default)]
pub struct Known {
    /// Services.
    pub services: Vec<(ServiceKey, Arc<ServiceFacts>)>,
    /// Slices: namespace, name.
    slices: Vec<(String, String, Arc<SliceFacts>)>,
}

/// Shows it.
pub async fn run(context: &Context, args: &ServicesArgs) -> Result<()> {
    let known = Known::ask(context).await?;
    let locals = local::nodes(&context.instance)?;
    let compared: Vec<&LocalNode> = match &args.node {
        Some(name) => vec![local::node(&locals, Some(name))?],
        None => locals.iter().collect(),
    };
    if compared.is_empty() && context.format.is_table() {
        eprintln!("no node runs on this machine: there is no kernel to compare with");
    }
    let mut shown = match compared.as_slice() {
        [] => compare(&known, "", None),
        _ => Vec::new(),
    };
    for node in compared {
        shown.extend(compare(&known, &node.name, Some(&kernel(node)?)));
    }
    shown.sort_by(|a, b| {
        (&a.service, &a.frontend, a.protocol, &a.node).cmp(&(
            &b.service,
            &b.frontend,
            b.protocol,
            &b.node,
        ))
    });
    let namespace = format!("{}/", context.session.namespace());
    if !context.all_namespaces {
        shown.retain(|one| one.service.starts_with(&namespace) || one.programmed == "extra");
    }
    if let Some(service) = &args.service {
        let name = service.rsplit('/').next();
        shown.retain(|one| one.service.split('/').nth(1) == name);
    }
    context.format.print(&shown, || table(&shown))
}

/// The map that a node's kernel has.
pub fn kernel(node: &LocalNode) -> Result<Map> {
    local::must_be_root("the service map")?;
    node.inside(|| nat::read_services().context("cannot read the service map"))
}

// === impl Known ===

impl Known {
    /// Asks the API.
    pub async fn ask(context: &Context) -> Result<Self> {
        let services = list(&context.session, "/api/v1/services").await?;
        let slices = list(&context.session, "/apis/discovery.k8s.io/v1/endpointslices").await?;
        Ok(Self::read(&services, &slices))
    }

    /// Reads them from objects.
    pub fn read(services: &[Value], slices: &[Value]) -> Self {
        let services = services.iter().filter_map(|one| {
            let (key, facts) = ServiceFacts::of(&Service::deserialize(one).ok()?)?;
            Some((key, Arc::new(facts)))
        });
        let slices = slices.iter().filter_map(|one| {
            let (name, facts) = SliceFacts::of(&EndpointSlice::deserialize(one).ok()?)?;
            Some((facts.service.namespace.clone(), name, Arc::new(facts)))
        });
        Self {
            services: services.collect(),
            slices: slices.collect(),
        }
    }

    /// The map that a node should have. `dns` are the addresses that nodes serve themselves.
    pub fn map(&self, node: &str, dns: &[IpAddr]) -> Map {
        let mut table = ServiceTable::new(node, dns, BTreeMap::new());
        for (key, facts) in &self.services {
            table.set_service(key.clone(), Some(facts.clone()));
        }
        for (namespace, name, facts) in &self.slices {
            table.set_slice(namespace, name, Some(facts.clone()));
        }
        table.plan_all();
        table.current().clone()
    }

    /// The addresses of the cluster's DNS, which every node serves itself.
    fn dns(&self) -> Vec<IpAddr> {
        let dns = |key: &ServiceKey| (key.namespace.as_str(), key.name.as_str()) == DNS_SERVICE;
        let found = self.services.iter().find(|(key, _)| dns(key));
        found
            .map(|(_, facts)| facts.cluster_ips.clone())
            .unwrap_or_default()
    }

    /// The service that a frontend belongs to.
    pub fn owner(&self, frontend: &Frontend) -> Option<&ServiceKey> {
        let owns = |facts: &ServiceFacts| match frontend {
            Frontend::Address { ip, protocol, port } => {
                let ips = facts.cluster_ips.iter().chain(&facts.external_ips);
                let mut ports = facts.ports.iter();
                ips.into_iter().any(|one| one == ip)
                    && ports.any(|one| one.protocol == *protocol && one.port == *port)
            }
            Frontend::NodePort { protocol, port, .. } => facts
                .ports
                .iter()
                .any(|one| one.protocol == *protocol && one.node_port == Some(*port)),
        };
        let found = self.services.iter().find(|(_, facts)| owns(facts));
        found.map(|(key, _)| key)
    }
}

/// The addresses at which a kernel's own node answers DNS.
pub fn served_here(kernel: &Map) -> Vec<IpAddr> {
    let here = kernel
        .iter()
        .filter_map(|(frontend, dispatch)| match frontend {
            Frontend::Address { ip, .. } if *dispatch == Dispatch::Here => Some(*ip),
            _ => None,
        });
    here.collect()
}

/// What should be against what is.
fn compare(known: &Known, node: &str, kernel: Option<&Map>) -> Vec<ShownFrontend> {
    let dns = kernel.map_or_else(|| known.dns(), served_here);
    let wanted = known.map(node, &dns);
    let mut shown: Vec<ShownFrontend> = wanted
        .iter()
        .map(|(frontend, dispatch)| {
            let programmed = match kernel.map(|kernel| kernel.get(frontend)) {
                None => "unknown",
                Some(None) => "missing",
                Some(Some(found)) if same(found, dispatch) => "yes",
                Some(Some(_)) => "differs",
            };
            one(known, node, frontend, dispatch, programmed)
        })
        .collect();
    let extra = kernel.into_iter().flatten();
    let extra = extra.filter(|(frontend, _)| !wanted.contains_key(frontend));
    shown.extend(extra.map(|(frontend, dispatch)| one(known, node, frontend, dispatch, "extra")));
    shown
}

/// Whether two dispatches lead to the same: the order of endpoints is the kernel's own.
fn same(a: &Dispatch, b: &Dispatch) -> bool {
    let sorted = |list: &[SocketAddr]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    match (a, b) {
        (Dispatch::Balance(a), Dispatch::Balance(b)) => {
            sorted(&a.endpoints) == sorted(&b.endpoints)
                && a.outside.as_deref().map(sorted) == b.outside.as_deref().map(sorted)
                && a.affinity_s == b.affinity_s
        }
        (a, b) => a == b,
    }
}

/// A frontend in words.
pub fn frontend_text(frontend: &Frontend) -> String {
    match frontend {
        Frontend::Address { ip, port, .. } => SocketAddr::new(*ip, *port).to_string(),
        Frontend::NodePort { v4: true, port, .. } => format!("*:{port}"),
        Frontend::NodePort { port, .. } => format!("[*]:{port}"),
    }
}

fn one(
    known: &Known,
    node: &str,
    frontend: &Frontend,
    dispatch: &Dispatch,
    programmed: &'static str,
) -> ShownFrontend {
    let (action, endpoints, affinity_seconds) = match dispatch {
        Dispatch::Balance(balance) => {
            let mut endpoints = balance.endpoints.clone();
            endpoints.sort();
            ("balance", endpoints, balance.affinity_s)
        }
        Dispatch::Refuse => ("refuse", Vec::new(), None),
        Dispatch::Drop => ("drop", Vec::new(), None),
        Dispatch::Here => ("here", Vec::new(), None),
    };
    ShownFrontend {
        node: node.to_owned(),
        service: known
            .owner(frontend)
            .map(ServiceKey::to_string)
            .unwrap_or_default(),
        frontend: frontend_text(frontend),
        protocol: frontend.protocol(),
        action,
        endpoints,
        affinity_seconds,
        programmed,
    }
}

fn table(shown: &[ShownFrontend]) -> Table {
    let mut table = Table::wrapping(&["SERVICE", "FRONTEND", "LEADS TO", "NODES", "KERNEL"]);
    // What several nodes have alike is said once.
    let mut rows: Vec<(&ShownFrontend, Vec<&str>)> = Vec::new();
    for one in shown {
        let alike = |(other, _): &&mut (&ShownFrontend, Vec<&str>)| {
            let node = other.node.clone();
            **other
                == ShownFrontend {
                    node,
                    ..one.clone()
                }
        };
        match rows
            .iter_mut()
            .rev()
            .take_while(|(other, _)| other.frontend == one.frontend)
            .find(alike)
        {
            Some((_, nodes)) => nodes.push(&one.node),
            None => rows.push((one, vec![&one.node])),
        }
    }
    for (one, nodes) in rows {
        let tone = match one.programmed {
            "yes" => Tone::Good,
            "unknown" => Tone::Plain,
            _ => Tone::Bad,
        };
        let mut leads: Vec<String> = one.endpoints.iter().map(SocketAddr::to_string).collect();
        match (one.action, one.affinity_seconds) {
            ("balance", Some(seconds)) => leads.push(format!("(affinity {seconds}s)")),
            ("balance", None) => {}
            (other, _) => leads.push(other.to_owned()),
        }
        let protocol = format!("{:?}", one.protocol).to_lowercase();
        table.row(vec![
            one.service.as_str().into(),
            format!("{}/{protocol}", one.frontend).into(),
            leads.join(",").into(),
            nodes.join(" ").into(),
            Cell::toned(one.programmed, tone),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known() -> Known {
        let service = json!({
            "metadata": {"namespace": "default", "name": "web"},
            "spec": {"clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "protocol": "TCP"}]},
        });
        let slice = json!({
            "metadata": {"namespace": "default", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}],
        });
        Known::read(&[service], &[slice])
    }

    #[test]
    fn the_kernel_is_held_against_the_api() {
        let known = known();
        let wanted = known.map("n1", &[]);
        let text = table(&compare(&known, "n1", Some(&wanted))).render(false, None, false);
        assert_eq!(
            text,
            "SERVICE       FRONTEND           LEADS TO        NODES   KERNEL\n\
             default/web   10.96.0.5:80/tcp   10.0.0.1:8080   n1      yes\n"
        );
        let mut other = wanted.clone();
        let stray = Frontend::NodePort {
            v4: true,
            protocol: Protocol::Udp,
            port: 30_000,
        };
        for dispatch in other.values_mut() {
            *dispatch = Dispatch::Refuse;
        }
        other.insert(stray, Dispatch::Drop);
        let states: Vec<&str> = compare(&known, "n1", Some(&other))
            .iter()
            .map(|one| one.programmed)
            .collect();
        assert_eq!(states, ["differs", "extra"]);
        assert_eq!(
            compare(&known, "n1", Some(&Map::new()))[0].programmed,
            "missing"
        );
        assert_eq!(compare(&known, "n1", None)[0].programmed, "unknown");
    }
}
