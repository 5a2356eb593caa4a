//! The service behind a node's client: requests go to the server of now.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::Frame;
use kube::client::Body;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Link;

/// Sends a request to the server of now.
#[derive(Clone)]
pub(super) struct Through(pub(super) Arc<Link>);

impl tower_service::Service<http::Request<Body>> for Through {
    type Response = http::Response<Reading>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, kube::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let link = self.0.clone();
        Box::pin(async move {
            let live = link.live();
            let mut sent = std::pin::pin!(live.client.send(request));
            let answer = loop {
                tokio::select! {
                    answer = &mut sent => break answer,
                    () = live.lost.cancelled() => {
                        break Err(kube::Error::Service("the API server is lost".into()));
                    }
                    () = tokio::time::sleep(link.patience.suspicion) => link.probe(&live).await,
                }
            };
            match answer {
                Ok(answer) => Ok(answer.map(|body| Reading {
                    body,
                    lost: Box::pin(live.lost.cancelled_owned()),
                })),
                Err(error) => {
                    if matches!(error, kube::Error::Service(_) | kube::Error::HyperError(_)) {
                        link.give_up(&live, &error.to_string());
                    }
                    Err(error)
                }
            }
        })
    }
}

/// What a server answers, until it is given up.
pub(super) struct Reading {
    body: Body,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for Reading {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.lost.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err("the API server is lost".into()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
