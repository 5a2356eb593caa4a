//! gRPC probes: `grpc.health.v1.Health/Check` over plain HTTP/2.
//!
//! One unary call needs no more of gRPC than a five-byte frame and two trailers, so this speaks
//! HTTP/2 itself. <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// An answer larger than this is not one of the health service, bytes.
const ANSWER_MAX: usize = 4096;
/// `SERVING`
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks once whether a service is being served.
pub async fn check(address: SocketAddr, service: &str, limit: Duration) -> Result<(), String> {
    match tokio::time::timeout(limit, call(address, service)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "timeout: failed to connect service \"{address}\" within {limit:?}"
        )),
    }
}

async fn call(address: SocketAddr, service: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| format!("error: failed to connect service \"{address}\": {e}"))?;
    let rpc = |e: hyper::Error| format!("error: health rpc failed: {e}");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(rpc)?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let message = HealthCheckRequest {
        service: service.to_owned(),
    };
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(frame(&message)))
        .map_err(|e| e.to_string())?;
    let answer = sender.send_request(request).await.map_err(rpc)?;
    let status = answer.headers().get("grpc-status").cloned();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|e| format!("error: health rpc failed: {e}"))?;
    let trailer = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status").cloned());
    let code = status.or(trailer);
    let code = code
        .as_ref()
        .and_then(|code| code.to_str().ok())
        .unwrap_or("0");
    if code != "0" {
        return Err(format!("error: health rpc failed with gRPC status {code}"));
    }
    match unframe(&body.to_bytes()).map(|answer| answer.status) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(format!("service unhealthy (responded with status {other})")),
        None => Err("error: the answer is not one of grpc.health.v1".to_owned()),
    }
}

/// A message behind its flag (not compressed) and length.
fn frame(message: &HealthCheckRequest) -> Bytes {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(5 + body.len());
    framed.extend_from_slice(&[0]);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&body);
    framed.freeze()
}

fn unframe(bytes: &[u8]) -> Option<HealthCheckResponse> {
    let (head, body) = bytes.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    let body = body.get(..usize::try_from(length).ok()?)?;
    (head[0] == 0).then(|| HealthCheckResponse::decode(body).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let framed = frame(&HealthCheckRequest {
            service: "a".into(),
        });
        assert_eq!(&framed[..], b"\0\0\0\0\x03\x0a\x01a");
        let serving = HealthCheckResponse { status: SERVING };
        assert_eq!(unframe(b"\0\0\0\0\x02\x08\x01"), Some(serving));
        assert_eq!(unframe(b"\0\0\0\0\x09\x08\x01"), None);
        assert_eq!(unframe(b"\0"), None);
    }
}
