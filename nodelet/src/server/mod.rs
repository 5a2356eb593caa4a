//! The kubelet's HTTPS API.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::config::ServerConfig;
use crate::error::Error;
use crate::pods::{Context, Table};

/// A bound server.
pub struct Server {
    listener: TcpListener,
    port: u16,
}

impl Server {
    /// Binds.
    pub async fn bind(ip: IpAddr, config: &ServerConfig) -> Result<Self, Error> {
        let address = SocketAddr::new(ip, config.port);
        let fault = |e: std::io::Error| Error::Server(format!("{address}: {e}"));
        let listener = TcpListener::bind(address).await.map_err(fault)?;
        let port = listener.local_addr().map_err(fault)?.port();
        Ok(Self { listener, port })
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves.
    pub async fn run(self, _context: Arc<Context>, _table: Table) {
        let _ = self.listener;
        std::future::pending::<()>().await;
    }
}
