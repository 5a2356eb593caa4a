//! The service of a client in this process.
//!
//! Requests go straight to the [`Front`]. An upgrade, though, is of a connection: a request that
//! asks for one gets a connection of its own, a pipe in memory with HTTP/1.1 at both ends, so that
//! tunnels to nodes work for clients here as for clients elsewhere.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use http::header::UPGRADE;
use http::{Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

use crate::body::Body;
use crate::front::Front;

/// Bytes that wait in a pipe in each direction; then its writer waits.
const PIPE: usize = 64 * 1024;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Inside(Front);

// === impl Inside ===

impl Inside {
    /// The service of the peer that `front` is for.
    pub fn new(front: Front) -> Self {
        Self(front)
    }
}

impl<B> tower_service::Service<Request<B>> for Inside
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match request.headers().contains_key(UPGRADE) {
            true => Box::pin(upgrading(self.0.clone(), request.map(drop))),
            false => self.0.call(request),
        }
    }
}

/// Sends a request that asks for an upgrade; such a request has no body.
async fn upgrading(front: Front, request: Request<()>) -> Result<Response<Body>, Infallible> {
    let answered = by_pipe(front, request).await;
    Ok(answered.unwrap_or_else(|fault| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        tracing::warn!(%fault, "a request in this process failed");
        response
    }))
}

async fn by_pipe(front: Front, request: Request<()>) -> hyper::Result<Response<Body>> {
    let (near, far) = tokio::io::duplex(PIPE);
    // Both ends live as long as what was upgraded: they end when the client drops it.
    tokio::spawn(async move {
        let served = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), TowerToHyperService::new(front))
            .with_upgrades();
        if let Err(fault) = served.await {
            tracing::debug!(%fault, "a pipe to the API server ended");
        }
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(async move {
        if let Err(fault) = connection.with_upgrades().await {
            tracing::debug!(%fault, "a pipe to the API server ended");
        }
    });
    let response = sender
        .send_request(request.map(|()| Empty::<Bytes>::new()))
        .await?;
    Ok(response.map(|body| {
        let pieces = body.into_data_stream();
        // The sender keeps the connection for as long as there is something to read.
        let pieces = pieces.filter_map(async |piece| piece.ok());
        Body::stream(pieces.chain(futures::stream::once(async move {
            drop(sender);
            Bytes::new()
        })))
    }))
}
