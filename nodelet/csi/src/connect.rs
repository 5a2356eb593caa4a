//! Connections to drivers: gRPC over a UNIX socket, or over any stream of bytes.

use std::future::Future;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::Driver;

/// Longest time to reach a driver.
pub const REACH: Duration = Duration::from_secs(10);
/// How often a driver that is asked something must show that it is there: a tunnel whose other end
/// is gone is noticed so.
const ALIVE: Duration = Duration::from_secs(30);

/// A driver on this node, by its socket. The socket may be replaced: each connection is made anew
/// by name.
///
/// # Errors
/// When nothing listens there; a sentence that names the socket.
pub async fn socket(name: &str, path: &Path) -> Result<Driver, String> {
    let channel = socket_channel(path).await?;
    Ok(Driver::new(name, channel))
}

/// A channel to what listens on a UNIX socket.
///
/// # Errors
/// When nothing listens there; a sentence that names the socket.
pub async fn socket_channel(path: &Path) -> Result<Channel, String> {
    let owned = path.to_path_buf();
    let dial = move || UnixStream::connect(owned.clone());
    channel(dial).await.map_err(|error| {
        format!(
            "cannot reach a plugin at {}: {error}; does it run?",
            path.display()
        )
    })
}

/// A channel over streams that `dial` opens, one at a time; it asks for another when one ends.
///
/// # Errors
/// What the first dial failed with.
pub async fn channel<D, F, S>(dial: D) -> Result<Channel, String>
where
    D: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connector = tower::service_fn(move |_: Uri| {
        let dialling = dial();
        async move { dialling.await.map(TokioIo::new) }
    });
    // The address is not used: what is connected to is what `dial` opens.
    let endpoint = Endpoint::from_static("http://plugin")
        .connect_timeout(REACH)
        .http2_keep_alive_interval(ALIVE)
        .keep_alive_timeout(ALIVE);
    let connecting = endpoint.connect_with_connector(connector);
    match tokio::time::timeout(REACH, connecting).await {
        Ok(connected) => connected.map_err(|error| innermost(&error)),
        Err(_) => Err(format!("not within {REACH:?}")),
    }
}

fn innermost(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => innermost(source),
        None => error.to_string(),
    }
}
