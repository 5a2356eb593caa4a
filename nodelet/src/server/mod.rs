//! The kubelet's HTTPS API: what the API server asks a node for on behalf of its clients.
//!
//! | path | answers |
//! | --- | --- |
//! | `/containerLogs/NAMESPACE/POD/CONTAINER` | [`logs`] |
//! | `/exec/...`, `/attach/...` | [`exec`], over WebSocket ([`channels`]) or SPDY ([`exec_spdy`]) |
//! | `/portForward/NAMESPACE/POD` | [`port_forward`], over WebSocket or SPDY |
//! | `/csi/DRIVER` | [`csi`]: a storage driver's own gRPC |
//! | `/stats/summary`, `/metrics/resource` | [`stats`] |
//! | `/metrics`: of the network agent, which may be another process, and of claims | here |
//! | `/agents/NAME` | [`agents`]: what another agent of the node says |
//! | `/pods`, `/healthz` | here |
//!
//! It listens on the node's InternalIP only, and answers no one but who shows a certificate of
//! the cluster's CA that is the API server's or an administrator's ([`tls`]).

mod agents;
mod cadvisor;
pub mod channels;
pub mod csi;
pub mod dial;
pub mod exec;
pub mod exec_spdy;
pub mod logs;
mod metrics;
mod net_dev;
pub mod port_forward;
pub mod stats;
pub mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use peapod_api::k8s_openapi;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::ServerConfig;
use crate::error::Error;
use crate::pods::{Context, Entry, Table};

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 1024;
/// Longest time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What handlers share.
#[derive(Clone)]
pub struct Shared {
    /// The node.
    pub context: Arc<Context>,
    /// Its pods.
    pub table: Table,
    /// Sockets of other agents of the node, by name.
    pub agents: Arc<BTreeMap<String, PathBuf>>,
}

/// A server that has its socket.
pub struct Server {
    listener: TcpListener,
    port: u16,
    tls: TlsAcceptor,
    config: ServerConfig,
}

/// A refusal: its status and sentence.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

impl Refusal {
    /// There is no such thing on this node.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    /// The request makes no sense now.
    pub fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    /// Something on the node failed.
    pub fn failed(error: impl ToString) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl Shared {
    /// The pod of a name.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Entry>, Refusal> {
        let found = self.table.find(namespace, name);
        found.ok_or_else(|| Refusal::not_found(format!("pod \"{name}_{namespace}\" not found")))
    }
}

// === impl Server ===

impl Server {
    /// Binds the socket and reads the certificates.
    pub async fn bind(ip: IpAddr, config: &ServerConfig) -> Result<Self, Error> {
        let address = SocketAddr::new(ip, config.port);
        let fault = |e: std::io::Error| {
            Error::Server(format!(
                "cannot listen on {address}: {e}; is another node agent running?"
            ))
        };
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let port = listener.local_addr().map_err(fault)?.port();
        let mut config = config.clone();
        config.serving.mark_unchanged();
        let tls = TlsAcceptor::from(tls::config(&config).map_err(Error::Server)?);
        tracing::info!(%ip, port, "serving the kubelet API");
        Ok(Self {
            listener,
            port,
            tls,
            config,
        })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves for ever. Dropping it ends every connection.
    pub async fn run(mut self, context: Arc<Context>, table: Table) {
        let agents = Arc::new(self.config.agents.clone());
        let router = router(Shared {
            context,
            table,
            agents,
        });
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _peer)) => {
                        let (tls, router) = (self.tls.clone(), router.clone());
                        connections.spawn(async move {
                            serve(tls, router, stream).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                Ok(()) = self.config.serving.changed() => match tls::config(&self.config) {
                    Ok(tls) => self.tls = TlsAcceptor::from(tls),
                    Err(error) => tracing::error!(%error, "the old serving certificate stays"),
                },
            }
        }
    }
}

async fn serve(tls: TlsAcceptor, router: Router, stream: TcpStream) {
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let router = match tls::allowed(stream.get_ref().1) {
        true => router,
        false => Router::new().fallback(async || {
            (
                StatusCode::FORBIDDEN,
                "Forbidden: the client certificate is not the API server's",
            )
        }),
    };
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a connection ended");
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/pods", get(pods))
        .route("/timing/{namespace}/{pod}", get(timing))
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::logs),
        )
        .route("/exec/{namespace}/{pod}/{container}", any(exec::exec))
        .route("/attach/{namespace}/{pod}/{container}", any(exec::attach))
        .route(
            "/portForward/{namespace}/{pod}",
            any(port_forward::port_forward),
        )
        .route("/csi/{driver}", get(csi::csi))
        .route("/agents/{name}", get(agents::ask))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics))
        .route("/metrics/resource", get(stats::resource))
        .route("/metrics/cadvisor", get(stats::cadvisor))
        .route("/metrics/probes", get(stats::probes))
        .with_state(shared)
}

/// Every pod of the node with its present status.
async fn pods(State(shared): State<Shared>) -> Response {
    let items: Vec<_> = shared
        .table
        .all()
        .iter()
        .map(|entry| {
            let machine = entry.machine.lock();
            let mut pod = k8s_openapi::api::core::v1::Pod::clone(machine.pod());
            pod.status = Some(machine.status(&shared.context.config.node_ips));
            pod
        })
        .collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
        .into_response()
}

/// What can be measured of the node's network, wherever its agent runs, and how full claims are.
async fn metrics(State(shared): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match shared.context.network.metrics().await {
        Ok(text) => {
            let network = text.trim_end().trim_end_matches("# EOF");
            let text = format!("{network}{}# EOF\n", stats::claims(&shared).await);
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => Refusal(StatusCode::SERVICE_UNAVAILABLE, error.message).into_response(),
    }
}

/// Where the time of a pod's start went.
async fn timing(
    State(shared): State<Shared>,
    Path((namespace, pod)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let entry = shared.pod(&namespace, &pod)?;
    Ok(axum::Json(entry.timing.document()).into_response())
}

/// The values of a query's key, percent-decoded.
pub fn values(query: Option<&str>, key: &str) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == key).then(|| {
                let spaced = value.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced)
                    .decode_utf8_lossy()
                    .into_owned()
            })
        })
        .collect()
}

/// Whether a flag of a query is set: `1`, `true`, or named without a value.
pub fn flag(query: Option<&str>, key: &str) -> bool {
    let given = values(query, key);
    given
        .first()
        .is_some_and(|value| matches!(value.as_str(), "" | "1" | "t" | "true" | "True"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query = Some("command=sh&command=-c&command=echo%20a%2Bb+c&input=1&tty=false&x");
        assert_eq!(values(query, "command"), ["sh", "-c", "echo a+b c"]);
        assert!(flag(query, "input") && flag(query, "x"));
        assert!(!flag(query, "tty") && !flag(query, "output"));
        assert!(values(None, "command").is_empty());
    }
}
