//! The way to the nodes: logs, exec, attach and port-forward are passed on to the kubelet API of
//! the pod's node, upgrades and all, without looking into what flows. [`through`] does the same
//! for `/proxy` of nodes, pods and services, with the [`links`] of what answers; [`exchange`] is the
//! one request that both make.

mod exchange;
mod links;
mod through;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::UPGRADE;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::Api;
use crate::body::Body;
use crate::registry::{Subresource, value};
use crate::rest::call::Call;
use crate::rest::{get, table};
use crate::status::{Result, Status};
use crate::storage;

pub use through::through;

/// How much of a node's error is read, in bytes.
const MESSAGE_MAX: usize = 16 * 1024;
/// How much of a node's document is read, in bytes.
const DOCUMENT_MAX: usize = 16 * 1024 * 1024;
/// The port of a node that names none.
const DEFAULT_PORT: u16 = 10250;
/// The annotation that names the container for `kubectl logs` and `exec`.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Connections to the nodes' kubelet API.
pub struct Kubelets {
    tls: TlsConnector,
}

/// Where a node's kubelet API is.
struct Address {
    ip: IpAddr,
    port: u16,
}

// === impl Kubelets ===

impl Kubelets {
    /// Connects with the client certificate in `tls`.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self {
            tls: TlsConnector::from(tls),
        }
    }

    async fn connect(&self, address: &Address) -> std::io::Result<TlsStream> {
        let tcp = TcpStream::connect((address.ip, address.port)).await?;
        tcp.set_nodelay(true)?;
        self.tls.connect(ServerName::from(address.ip), tcp).await
    }

    /// A connection for one exchange, which errors call `the node`.
    async fn open(&self, address: &Address) -> Result<exchange::Sender> {
        let io = exchange::in_time("the node", address, self.connect(address)).await?;
        exchange::handshake(io).await
    }
}

type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Passes a request on to the pod's node and the answer back.
pub async fn stream(api: &Api, call: &Call, parts: Parts) -> Result<Response<Body>> {
    let entry = get::entry(api, call)?;
    let pod = table::decode(&call.resource, &entry.value)?;
    let subresource = call.subresource.as_ref();
    let path = kubelet_path(call, subresource, &pod)?;
    let address = address_of(api, &pod)?;
    let sender = api.kubelets.open(&address).await?;
    let mut parts = parts;
    if !parts.headers.contains_key(UPGRADE) {
        parts.method = Method::GET;
    }
    let response = exchange::run(api, sender, &address, &path, parts, Bytes::new()).await?;
    match subresource {
        Some(Subresource::Log) if refused(response.status()) => Err(told(response).await),
        _ => Ok(response),
    }
}

/// What a node's kubelet API answers to a GET of a path.
///
/// # Errors
/// 503 when the node does not answer, answers something else, or too much.
pub async fn fetch(api: &Api, node: &str, path: &str) -> Result<Bytes> {
    let address = address_of_node(api, node)?;
    let mut sender = api.kubelets.open(&address).await?;
    let failed = |fault: &dyn std::fmt::Display| {
        Status::unavailable(format!("node {node} does not answer {path}: {fault}"))
    };
    let host = std::net::SocketAddr::new(address.ip, address.port).to_string();
    let request = http::Request::get(path).header(http::header::HOST, host);
    let request = request.body(http_body_util::Full::default());
    let request = request.map_err(|fault| failed(&fault))?;
    let answered = sender.send_request(request).await;
    let response = answered.map_err(|fault| failed(&fault))?;
    if !response.status().is_success() {
        return Err(failed(&response.status()));
    }
    let limited = Limited::new(response.into_body(), DOCUMENT_MAX)
        .collect()
        .await;
    limited
        .map(|body| body.to_bytes())
        .map_err(|fault| failed(&fault))
}

/// Whether an answer is neither what was asked for nor the way to it (a WebSocket).
fn refused(status: StatusCode) -> bool {
    !status.is_success() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// What a node says of logs that it cannot give, as a status: it answers in plain text.
async fn told(response: Response<Body>) -> Status {
    let code = response.status();
    let limited = Limited::new(response.into_body(), MESSAGE_MAX)
        .collect()
        .await;
    let bytes = limited.map(|body| body.to_bytes()).unwrap_or_default();
    let message = String::from_utf8_lossy(&bytes).trim().to_owned();
    let mut status = Status::bad_request(message);
    if code.is_server_error() {
        status = Status::internal(status.message);
    }
    status
}

fn kubelet_path(call: &Call, subresource: Option<&Subresource>, pod: &Value) -> Result<String> {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let place = format!("{}/{}", call.target.namespace, call.target.name);
    match subresource {
        Some(Subresource::Log) => {
            let container = container(call, pod)?;
            let query = passed(call, &LOG_OPTIONS);
            Ok(format!(
                "/containerLogs/{place}/{}{query}",
                encode(&container)
            ))
        }
        Some(Subresource::PortForward) => {
            let query = passed(call, &[("ports", "port")]);
            Ok(format!("/portForward/{place}{query}"))
        }
        Some(subresource @ (Subresource::Exec | Subresource::Attach)) => {
            let container = container(call, pod)?;
            let query = passed(call, &STREAM_OPTIONS);
            let verb = subresource.name();
            Ok(format!("/{verb}/{place}/{}{query}", encode(&container)))
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The options of logs: the API's name, the kubelet's name.
const LOG_OPTIONS: [(&str, &str); 9] = [
    ("follow", "follow"),
    ("previous", "previous"),
    ("timestamps", "timestamps"),
    ("tailLines", "tailLines"),
    ("limitBytes", "limitBytes"),
    ("sinceSeconds", "sinceSeconds"),
    ("sinceTime", "sinceTime"),
    ("stream", "stream"),
    (
        "insecureSkipTLSVerifyBackend",
        "insecureSkipTLSVerifyBackend",
    ),
];

/// The options of exec and attach.
const STREAM_OPTIONS: [(&str, &str); 5] = [
    ("stdin", "input"),
    ("stdout", "output"),
    ("stderr", "error"),
    ("tty", "tty"),
    ("command", "command"),
];

/// The query for the node: the options that the client gave, under the kubelet's names. Flags
/// become 1, and those that are false are left out.
fn passed(call: &Call, options: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, kubelet) in options {
        for given in call.query.all(name) {
            let given = match (*kubelet, given) {
                ("input" | "output" | "error" | "tty", "false" | "0") => continue,
                ("input" | "output" | "error" | "tty", _) => "1",
                (_, other) => other,
            };
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(kubelet);
            query.push('=');
            query.extend(utf8_percent_encode(given, NON_ALPHANUMERIC));
        }
    }
    query
}

/// The container that is meant: the one named, the pod's default, or its only one.
fn container(call: &Call, pod: &Value) -> Result<String> {
    let pod_name = &call.target.name;
    let names = |list: &str| -> Vec<String> {
        let all = value::list(pod, list).iter();
        all.map(|one| value::text(one, "name").to_owned()).collect()
    };
    let own = names("spec.containers");
    let init = names("spec.initContainers");
    let ephemeral = names("spec.ephemeralContainers");
    let asked = call.query.get("container");
    if !asked.is_empty() {
        let known = own
            .iter()
            .chain(&init)
            .chain(&ephemeral)
            .any(|name| name == asked);
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(Status::bad_request(format!(
                "container {asked} is not valid for pod {pod_name}"
            ))),
        };
    }
    if let [only] = own.as_slice() {
        return Ok(only.clone());
    }
    let default = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(default) = default.filter(|name| own.iter().any(|one| one == name)) {
        return Ok(default.to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        own.join(" ")
    );
    if !init.is_empty() {
        message += &format!(" or one of the init containers: [{}]", init.join(" "));
    }
    Err(Status::bad_request(message))
}

/// Where the kubelet API of a pod's node is.
fn address_of(api: &Api, pod: &Value) -> Result<Address> {
    let name = value::text(pod, "spec.nodeName");
    let pod_name = value::text(pod, "metadata.name");
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "pod {pod_name} does not have a host assigned"
        )));
    }
    address_of_node(api, name)
}

fn address_of_node(api: &Api, name: &str) -> Result<Address> {
    let node = find(api, "nodes", "", name)?;
    address(&node).ok_or_else(|| {
        Status::unavailable(format!(
            "node {name} has no InternalIP in its status yet; try again"
        ))
    })
}

/// An object of a core kind.
fn find(api: &Api, plural: &str, namespace: &str, name: &str) -> Result<Value> {
    let resource = api.registry.find("", "v1", plural);
    let resource = resource.ok_or_else(Status::no_such_path)?;
    let key = storage::key(&resource.kind, namespace, name)?;
    let entry = api.store.get(&key);
    let entry = entry.ok_or_else(|| Status::not_found(resource.kind.group_resource(), name))?;
    table::decode(&resource, &entry.value)
}

fn address(node: &Value) -> Option<Address> {
    let all = value::list(node, "status.addresses").iter();
    let mut internal = all.filter(|one| value::text(one, "type") == "InternalIP");
    let port = value::integer(node, "status.daemonEndpoints.kubeletEndpoint.Port");
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    Some(Address {
        ip: internal.find_map(|one| value::text(one, "address").parse().ok())?,
        port: port.unwrap_or(DEFAULT_PORT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_found_by_their_internal_address() {
        let node = json!({"status": {
            "addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "10.0.0.1"},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}},
        }});
        let found = address(&node).unwrap();
        assert_eq!(
            (found.ip.to_string().as_str(), found.port),
            ("10.0.0.1", 10260)
        );
        assert!(address(&json!({"status": {}})).is_none());
    }
}
