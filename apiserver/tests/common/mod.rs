//! A server to test against.

use peapod_apiserver::{ApiServer, Config, Engine};
use tempfile::TempDir;

/// A running server with its directory, which goes with it.
pub struct Fixture {
    /// The server.
    pub server: ApiServer,
    /// Its data directory.
    pub dir: TempDir,
}

/// A server with objects in memory.
pub async fn server() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        engine: Engine::Memory,
        ..Config::new(dir.path())
    };
    let server = ApiServer::start(config).await.unwrap();
    Fixture { server, dir }
}

impl Fixture {
    /// A client with every right.
    pub fn admin(&self) -> kube::Client {
        self.server.client("kubernetes-admin", &["system:masters"])
    }
}
