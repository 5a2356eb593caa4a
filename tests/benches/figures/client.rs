//! A client that costs little: HTTP/1.1 over one TLS connection, bodies as bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// Whom to ask, and as whom.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// A connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

/// An answer that goes on.
pub struct Stream {
    body: hyper::body::Incoming,
    _connection: Connection,
}

// === impl Target ===

impl Target {
    /// Reads a kubeconfig.
    pub fn of_kubeconfig(path: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let kubeconfig = Kubeconfig::read_from(path)?;
        let options = KubeConfigOptions::default();
        let config =
            runtime.block_on(kube::Config::from_custom_kubeconfig(kubeconfig, &options))?;
        let authority = config.cluster_url.authority();
        let address = authority.context("the kubeconfig has no address")?;
        Ok(Self {
            address: address.as_str().parse()?,
            tls: Arc::new(config.rustls_client_config()?),
        })
    }

    /// Connects.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let (sender, connection) = http1::handshake(TokioIo::new(stream.await?)).await?;
        // The driver ends when the connection does; its errors show in the requests.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, driver })
    }
}

// === impl Connection ===

impl Connection {
    /// Asks, and gives the body of a successful answer.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (status, body) = {
            let answer = self.send(method, path, body).await?;
            (answer.status(), answer.into_body().collect().await?)
        };
        let body = body.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Opens a streamed answer.
    pub async fn stream(mut self, path: &str) -> anyhow::Result<Stream> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("{path}: {}", answer.status());
        }
        Ok(Stream {
            body: answer.into_body(),
            _connection: self,
        })
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "peapod")
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

// === impl Stream ===

impl Stream {
    /// Reads until so many lines have come. Gives their bytes.
    pub async fn read_lines(&mut self, lines: usize) -> anyhow::Result<u64> {
        let (mut seen, mut bytes) = (0, 0);
        while seen < lines {
            let frame = self
                .body
                .frame()
                .await
                .context("the stream ended early")??;
            if let Some(data) = frame.data_ref() {
                seen += data.iter().filter(|byte| **byte == b'\n').count();
                bytes += data.len() as u64;
            }
        }
        Ok(bytes)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
