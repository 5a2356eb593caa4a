//! `peapod net endpoints`: the endpoints of services, with the pods and nodes behind them.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::Args;
use peapod_api::labels;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::show::{Cell, Table, Tone};
use super::source::{items, list, namespaced, text};

/// `peapod net endpoints`.
#[derive(Debug, Args)]
pub struct EndpointsArgs {
    /// Only this service's
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

/// An endpoint of a port of a service, as shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownEndpoint {
    /// `namespace/name`
    pub service: String,
    /// Name of the port; empty for an only one.
    pub port_name: String,
    /// `TCP`, `UDP` or `SCTP`
    pub protocol: String,
    /// Its address.
    pub address: String,
    /// Its port; 0 for all.
    pub port: u16,
    /// `ready`, `terminating` (serves what is left), `not ready`
    pub state: &'static str,
    /// Its pod, where it is one.
    pub pod: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Its node's rack.
    pub rack: Option<String>,
}

/// Shows it.
pub async fn run(context: &Context, args: &EndpointsArgs) -> Result<()> {
    let slices = namespaced(context, "/apis/discovery.k8s.io/v1", "endpointslices").await?;
    let nodes = list(&context.session, "/api/v1/nodes").await?;
    let mut shown = endpoints(&slices, &racks(&nodes));
    if let Some(service) = &args.service {
        let name = service.rsplit('/').next().unwrap_or(service);
        shown.retain(|one| one.service.split('/').nth(1) == Some(name));
        if shown.is_empty() && context.format.is_table() {
            bail!(
                "service {name:?} has no endpoints; does it exist (peapod get service {name}), and does its selector match ready pods?"
            );
        }
    }
    context.format.print(&shown, || table(&shown))
}

/// The rack of each node that has one.
pub fn racks(nodes: &[Value]) -> BTreeMap<String, String> {
    let racks = nodes.iter().filter_map(|node| {
        let rack = node["metadata"]["labels"][labels::RACK].as_str()?;
        Some((text(node, "/metadata/name").to_owned(), rack.to_owned()))
    });
    racks.collect()
}

/// The endpoints of slices, in order.
pub fn endpoints(slices: &[Value], racks: &BTreeMap<String, String>) -> Vec<ShownEndpoint> {
    let mut shown = Vec::new();
    for slice in slices {
        let Some(service) = slice["metadata"]["labels"][labels::SERVICE_NAME].as_str() else {
            continue;
        };
        let service = format!("{}/{service}", text(slice, "/metadata/namespace"));
        for (port, endpoint) in items(slice, "/ports").iter().flat_map(|port| {
            items(slice, "/endpoints")
                .iter()
                .map(move |one| (port, one))
        }) {
            let owned = |pointer| match text(endpoint, pointer) {
                "" => None,
                text => Some(text.to_owned()),
            };
            let node = owned("/nodeName");
            shown.push(ShownEndpoint {
                service: service.clone(),
                port_name: text(port, "/name").to_owned(),
                protocol: text(port, "/protocol").to_owned(),
                address: text(endpoint, "/addresses/0").to_owned(),
                port: port["port"].as_u64().unwrap_or(0) as u16,
                state: state(&endpoint["conditions"]),
                pod: owned("/targetRef/name"),
                rack: node.as_ref().and_then(|node| racks.get(node).cloned()),
                node,
            });
        }
    }
    shown.sort();
    shown
}

fn state(conditions: &Value) -> &'static str {
    let is = |name: &str, otherwise: bool| conditions[name].as_bool().unwrap_or(otherwise);
    match (
        is("ready", true),
        is("serving", true),
        is("terminating", false),
    ) {
        (true, _, _) => "ready",
        (false, true, true) => "terminating",
        _ => "not ready",
    }
}

fn table(shown: &[ShownEndpoint]) -> Table {
    let mut table = Table::new(&[
        "SERVICE", "PORT", "ENDPOINT", "STATE", "POD", "NODE", "RACK",
    ]);
    for one in shown {
        let tone = match one.state {
            "ready" => Tone::Good,
            "terminating" => Tone::Warn,
            _ => Tone::Bad,
        };
        let port = match one.port_name.as_str() {
            "" => one.protocol.clone(),
            name => format!("{name}/{}", one.protocol),
        };
        let address = match one.address.contains(':') {
            true => format!("[{}]:{}", one.address, one.port),
            false => format!("{}:{}", one.address, one.port),
        };
        table.row(vec![
            one.service.as_str().into(),
            port.into(),
            address.into(),
            Cell::toned(one.state, tone),
            one.pod.clone().unwrap_or_default().into(),
            one.node.clone().unwrap_or_default().into(),
            one.rack.clone().unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_show_what_is_behind_them() {
        let slice = json!({
            "metadata": {"namespace": "default", "name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.2"], "nodeName": "n2", "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.1"], "nodeName": "n1", "targetRef": {"kind": "Pod", "name": "web-a"}, "conditions": {"ready": true}},
                {"addresses": ["fd00::3"], "conditions": {"ready": false, "serving": false}},
            ],
        });
        let nodes = [json!({"metadata": {"name": "n1", "labels": {"net.peapod.dev/rack": "r1"}}})];
        let text = table(&endpoints(&[slice], &racks(&nodes))).render(false, None, false);
        assert_eq!(
            text,
            "SERVICE       PORT       ENDPOINT         STATE         POD     NODE   RACK\n\
             default/web   http/TCP   10.0.0.1:8080    ready         web-a   n1     r1\n\
             default/web   http/TCP   10.0.0.2:8080    terminating           n2\n\
             default/web   http/TCP   [fd00::3]:8080   not ready\n"
        );
    }
}
