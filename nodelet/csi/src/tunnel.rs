//! The way to a driver on another node: `GET /api/v1/nodes/NODE/proxy/csi/DRIVER` with
//! `Upgrade: csi` is passed by the API server to the node's agent, which connects it with the
//! driver's socket and answers 101; from then on it is gRPC.
//!
//! Who asks needs `get` of `nodes/proxy`, or of the finer `nodes/csi`, which allows this and
//! nothing else of the node.

use std::io;

use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;

use crate::{Driver, connect};

/// The protocol that the connection is upgraded to.
pub const PROTOCOL: &str = "csi";
/// Most bytes of a refusal that are read.
const REFUSAL_MAX: usize = 4096;

/// The driver of a name on a node, asked through the API server. A connection that breaks is made
/// anew with the next call.
///
/// # Errors
/// When the node or the driver cannot be reached; a sentence that names both.
pub async fn connect(client: &Client, node: &str, driver: &str) -> Result<Driver, String> {
    let (client, path) = (client.clone(), path(node, driver));
    let dial = move || open(client.clone(), path.clone());
    let channel = connect::channel(dial)
        .await
        .map_err(|error| format!("cannot reach CSI driver {driver} on node {node}: {error}"))?;
    Ok(Driver::new(driver, channel))
}

fn path(node: &str, driver: &str) -> String {
    format!("/api/v1/nodes/{node}/proxy/csi/{driver}")
}

/// One stream to the driver.
async fn open(client: Client, path: String) -> io::Result<TokioIo<Upgraded>> {
    let request = Request::get(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, PROTOCOL)
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let response = client.send(request).await.map_err(io::Error::other)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(io::Error::other(refusal(response).await));
    }
    let upgraded = hyper::upgrade::on(response).await;
    upgraded.map(TokioIo::new).map_err(io::Error::other)
}

/// What was answered in the place of a tunnel.
async fn refusal(response: http::Response<Body>) -> String {
    use http_body_util::{BodyExt, Limited};
    let code = response.status();
    let read = Limited::new(response.into_body(), REFUSAL_MAX).collect();
    let bytes = read.await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    format!("{code}: {}", text.trim())
}
