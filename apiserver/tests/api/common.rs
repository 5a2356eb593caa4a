//! A server to test against.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use peapod_apiserver::{ApiServer, Config, Engine};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server with objects in memory, and its directory, which goes with it.
pub async fn server() -> (ApiServer, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        engine: Engine::Memory,
        ..Config::new(dir.path())
    };
    (ApiServer::start(config).await.unwrap(), dir)
}

/// A client with every right.
pub fn admin(server: &ApiServer) -> kube::Client {
    server.client("kubernetes-admin", &["system:masters"])
}

/// A server that listens on loopback.
pub struct Listening {
    pub server: Arc<ApiServer>,
    pub address: SocketAddr,
    pub kubeconfig: PathBuf,
    pub stop: CancellationToken,
    pub served: JoinHandle<()>,
    _dir: TempDir,
}

pub async fn listening() -> Listening {
    let (server, dir) = server().await;
    let server = Arc::new(server);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = server
        .admin_kubeconfig(&format!("https://{address}"))
        .unwrap();
    std::fs::write(&kubeconfig, text).unwrap();
    let stop = CancellationToken::new();
    let served = tokio::spawn({
        let (server, stop) = (server.clone(), stop.clone());
        async move { server.serve(vec![listener], stop).await.unwrap() }
    });
    Listening {
        server,
        address,
        kubeconfig,
        stop,
        served,
        _dir: dir,
    }
}
