//! How a driver is reached. Tests put a driver of their own in the place of the tunnel.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use peapod_csi::{Driver, tunnel};

/// A way to drivers.
#[async_trait]
pub trait Dial: Send + Sync {
    /// The driver of a name on a node; the error is a sentence that names both.
    async fn dial(&self, client: &Client, node: &str, driver: &str) -> Result<Driver, String>;
}

/// The way to drivers that the controllers use: by default the tunnel through the API server to
/// the node's agent.
#[derive(Clone)]
pub struct Dialer(Arc<dyn Dial>);

struct Tunnel;

#[async_trait]
impl Dial for Tunnel {
    async fn dial(&self, client: &Client, node: &str, driver: &str) -> Result<Driver, String> {
        tunnel::connect(client, node, driver).await
    }
}

// === impl Dialer ===

impl Dialer {
    /// Another way than the tunnel.
    pub fn new(dial: impl Dial + 'static) -> Self {
        Self(Arc::new(dial))
    }

    pub(super) async fn dial(
        &self,
        client: &Client,
        node: &str,
        driver: &str,
    ) -> Result<Driver, String> {
        self.0.dial(client, node, driver).await
    }
}

impl Default for Dialer {
    fn default() -> Self {
        Self::new(Tunnel)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}
