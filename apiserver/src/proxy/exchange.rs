//! One request passed on over a connection of its own, and its answer or its upgraded stream
//! passed back.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Address, tunnel};
use crate::api::Api;
use crate::body::Body;
use crate::metrics::InFlight;
use crate::status::{Result, Status};

/// How long the other end may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to answer a request's head.
const HEAD: Duration = Duration::from_secs(30);

/// The near end of a connection.
pub type Sender = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

/// Waits for a connection to `whom`, but not for ever.
pub async fn in_time<T>(
    whom: &str,
    address: &Address,
    connecting: impl Future<Output = std::io::Result<T>>,
) -> Result<T> {
    let failed = |fault: String| {
        let (ip, port) = (address.ip, address.port);
        let remedy = match whom {
            "the node" => "; is nodelet running there?",
            _ => "",
        };
        Status::unavailable(format!(
            "cannot reach {whom} at {ip}:{port}: {fault}{remedy}"
        ))
    };
    let connected = tokio::time::timeout(CONNECT, connecting).await;
    connected
        .map_err(|_| failed("timed out".to_owned()))?
        .map_err(|fault| failed(fault.to_string()))
}

/// Speaks HTTP over a connection.
pub async fn handshake(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(|fault| Status::unavailable(format!("the other end: {fault}")))?;
    // The connection ends with the exchange: hyper ends it when the sender and the body (or the
    // upgraded stream) are dropped.
    tokio::spawn(async move {
        if let Err(fault) = connection.with_upgrades().await {
            tracing::debug!(%fault, "a proxied connection ended");
        }
    });
    Ok(sender)
}

/// Passes on a request to `path`, which may have a query, and what comes of it back.
pub async fn run(
    api: &Api,
    mut sender: Sender,
    address: &Address,
    path: &str,
    mut parts: Parts,
    body: Bytes,
) -> Result<Response<Body>> {
    let counted = api.metrics.long_running();
    let draining = api.draining.clone();
    let ours = parts.extensions.remove::<OnUpgrade>();
    let request = passed_on(address, path, &parts, body)?;
    let answered = tokio::time::timeout(HEAD, sender.send_request(request)).await;
    let mut response = answered
        .map_err(|_| Status::timeout("the other end did not answer in time"))?
        .map_err(|fault| {
            Status::unavailable(format!("the other end closed the connection: {fault}"))
        })?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(streamed(response, draining, counted, sender));
    }
    let Some(ours) = ours else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let theirs = hyper::upgrade::on(&mut response);
    tokio::spawn(carry(ours, theirs, draining, counted, sender));
    let (mut head, _) = response.into_parts();
    head.extensions.clear();
    Ok(Response::from_parts(head, Body::empty()))
}

fn passed_on(
    address: &Address,
    path: &str,
    parts: &Parts,
    body: Bytes,
) -> Result<Request<Full<Bytes>>> {
    let uri: Uri = path
        .parse()
        .map_err(|fault| Status::bad_request(format!("cannot pass on {path:?}: {fault}")))?;
    let upgrades = parts.headers.contains_key(UPGRADE);
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    for (name, text) in &parts.headers {
        let own = name == HOST || name == http::header::AUTHORIZATION;
        let length =
            name == http::header::CONTENT_LENGTH || name == http::header::TRANSFER_ENCODING;
        let hop = name == CONNECTION && !upgrades;
        if !own && !length && !hop {
            request.headers_mut().append(name, text.clone());
        }
    }
    let host = std::net::SocketAddr::new(address.ip, address.port).to_string();
    if let Ok(host) = host.parse() {
        request.headers_mut().insert(HOST, host);
    }
    Ok(request)
}
/// Passes an ordinary answer back as it comes.
fn streamed(
    response: Response<hyper::body::Incoming>,
    draining: CancellationToken,
    counted: InFlight,
    sender: Sender,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    head.headers.remove(http::header::TRANSFER_ENCODING);
    head.headers.remove(CONNECTION);
    let state = (body.into_data_stream(), draining, counted, sender);
    let pieces = futures::stream::unfold(state, |(mut data, draining, counted, sender)| async {
        use futures::StreamExt;
        let piece = tokio::select! {
            piece = data.next() => piece?.ok()?,
            () = draining.cancelled() => return None,
        };
        Some((piece, (data, draining, counted, sender)))
    });
    Response::from_parts(head, Body::stream(pieces))
}

/// Carries what flows, until an end is gone or the server stops.
async fn carry(
    ours: OnUpgrade,
    theirs: OnUpgrade,
    draining: CancellationToken,
    _counted: InFlight,
    _sender: Sender,
) {
    let (ours, theirs) = match tokio::try_join!(ours, theirs) {
        Ok(both) => both,
        Err(fault) => {
            tracing::debug!(%fault, "an upgrade did not happen");
            return;
        }
    };
    tokio::select! {
        () = tunnel::run(TokioIo::new(ours), TokioIo::new(theirs)) => {}
        () = draining.cancelled() => {}
    }
}
