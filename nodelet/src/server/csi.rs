//! `csi`: the way to the socket of a storage driver, for the cluster's controllers, which reach it
//! through the API server. After the upgrade it is the driver's own gRPC; nothing is looked into.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use peapod_csi::tunnel::PROTOCOL;
use tokio::net::UnixStream;

use super::{Refusal, Shared};

/// Connects a request that asks for an upgrade with a driver's socket.
pub async fn csi(
    State(shared): State<Shared>,
    Path(driver): Path<String>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let asked = request.headers().get(UPGRADE);
    if !asked.is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes())) {
        return Err(Refusal(
            StatusCode::UPGRADE_REQUIRED,
            format!("ask for an upgrade (Upgrade: {PROTOCOL})"),
        ));
    }
    let registered = shared.context.csi.drivers.get(&driver);
    let socket = registered.map_err(Refusal::not_found)?.socket.clone();
    let connected = UnixStream::connect(&socket).await.map_err(|error| {
        let message = format!("CSI driver {driver} at {}: {error}", socket.display());
        Refusal(StatusCode::BAD_GATEWAY, message)
    });
    let mut stream = connected?;
    let upgrading = hyper::upgrade::on(&mut request);
    // Ends with the connection that it took over.
    tokio::spawn(async move {
        let copied = match upgrading.await {
            Ok(upgraded) => {
                let mut upgraded = TokioIo::new(upgraded);
                tokio::io::copy_bidirectional(&mut upgraded, &mut stream).await
            }
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = copied {
            tracing::debug!(driver, %error, "a tunnel to a CSI driver broke off");
        }
    });
    let headers = [(CONNECTION, "Upgrade"), (UPGRADE, PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
