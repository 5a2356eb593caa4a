//! A server to test against.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use peapod_apiserver::{ApiServer, Config, Engine};
use rustls_pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A server with objects in memory, and its directory, which goes with it.
pub async fn server() -> (ApiServer, TempDir) {
    server_with(|_| ()).await
}

/// As [`server`], with a configuration of its own.
pub async fn server_with(change: impl FnOnce(&mut Config)) -> (ApiServer, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        engine: Engine::Memory,
        ..Config::new(dir.path())
    };
    change(&mut config);
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

impl Listening {
    /// A client over TLS that shows a bearer token, or nothing.
    pub fn bearer(&self, token: Option<&str>) -> kube::Client {
        let uri = format!("https://{}", self.address).parse().unwrap();
        let mut config = kube::Config::new(uri);
        let ca = self.server.pki().ca_certificate();
        let ca = rustls_pki_types::CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
        config.root_cert = Some(vec![ca.to_vec()]);
        config.auth_info.token = token.map(|token| token.to_owned().into());
        kube::Client::try_from(config).unwrap()
    }
}

pub async fn listening() -> Listening {
    listening_with(|_| ()).await
}

/// As [`listening`], with a configuration of its own.
pub async fn listening_with(change: impl FnOnce(&mut Config)) -> Listening {
    let (server, dir) = server_with(change).await;
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
