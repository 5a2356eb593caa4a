//! Calls: how a neighbour is connected to.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;

use super::{Call, socket_for};
use crate::kernel::neighbors;
use crate::sys;

/// How long the first calls of a neighbour on a link wait for an answer.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Connects, and does not leave it to TCP to find out that nothing was heard: it would ask again
/// after a second, and so would who asks for the neighbour's link-layer address. That is long
/// beside what everything else takes that must happen when a link is back, whose ends are seldom
/// ready at the same moment. Each further call is a new connection, and asks for the address anew.
pub(super) async fn dial(call: &Call) -> io::Result<TcpStream> {
    let Some(link) = call.on_link else {
        return connect(call).await;
    };
    for patience in PATIENCE {
        let until = tokio::time::Instant::now() + patience;
        match tokio::time::timeout_at(until, connect(call)).await {
            Ok(Err(error)) if is_early(&error) => tokio::time::sleep_until(until).await,
            Ok(other) => return other,
            Err(_) => {}
        }
        if let Err(error) = neighbors::forget(link, call.to.ip()) {
            tracing::debug!(to = %call.to, %error, "cannot have a neighbour asked for");
        }
    }
    connect(call).await
}

/// Whether a call failed because the link is not ready yet, or our address on it is not there yet.
fn is_early(error: &io::Error) -> bool {
    let kinds = [
        io::ErrorKind::HostUnreachable,
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ];
    kinds.contains(&error.kind())
}

async fn connect(call: &Call) -> io::Result<TcpStream> {
    let socket = socket_for(call.to)?;
    if let Some(key) = &call.password {
        sys::set_md5(&socket, IpNet::from(call.to.ip()), key)?;
    }
    call.ttl.apply(&socket, call.to.is_ipv6())?;
    if let Some(source) = call.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(call.to).await
}
