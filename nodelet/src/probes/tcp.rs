//! Whether something listens on a port.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// Connects, and closes at once.
pub async fn connect(
    host: Option<&str>,
    ip: IpAddr,
    port: u16,
    limit: Duration,
) -> Result<(), String> {
    let host = host.filter(|host| !host.is_empty());
    let connecting = async {
        match host {
            Some(host) => TcpStream::connect((host, port)).await,
            None => TcpStream::connect((ip, port)).await,
        }
    };
    let shown = host.map_or_else(|| ip.to_string(), str::to_owned);
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(_stream)) => Ok(()),
        Ok(Err(error)) => Err(format!("dial tcp {shown}:{port}: {error}")),
        Err(_) => Err(format!("dial tcp {shown}:{port}: i/o timeout")),
    }
}
