//! A client that costs little: HTTP/2 over one TLS connection, bodies as bytes.
//!
//! Ciphers, windows and protocol are those that Go's client has, for that is who asks most.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The encoding of which kubectl and most clients read.
pub const JSON: &str = "application/json";
/// That of client-go's typed clients.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What Go's client lets a stream send ahead, in bytes.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// Whom to ask, and as whom.
#[derive(Clone)]
pub struct Target {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// A connection, or one of several that share it.
pub struct Connection {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Ends with the last that uses it.
    _driver: Arc<Driver>,
}

/// What moves the octets of a connection.
struct Driver(JoinHandle<()>);

/// An answer that goes on.
pub struct Stream {
    body: hyper::body::Incoming,
    _connection: Connection,
}

/// Prefers the ciphers that Go's client prefers. Before the first connection.
pub fn prefer_ciphers_of_go() {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_first = |suite: &rustls::SupportedCipherSuite| {
        suite.suite() == rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    };
    provider.cipher_suites.sort_by_key(|suite| !is_first(suite));
    // Somebody was before: then theirs are preferred.
    let _ = provider.install_default();
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
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: address.as_str().parse()?,
            tls: Arc::new(tls),
        })
    }

    /// Connects.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = self.stream().await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // Its errors show in the requests.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection {
            sender,
            _driver: Arc::new(Driver(driver)),
        })
    }

    async fn stream(&self) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream);
        Ok(stream.await?)
    }
}

// === impl Connection ===

impl Connection {
    /// Another that asks over the same connection.
    pub fn share(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            _driver: self._driver.clone(),
        }
    }

    /// Asks, and gives the body of a successful answer.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let answer = self.send(method, path, JSON, body).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Reads an answer to its end and gives its length.
    pub async fn read(&mut self, path: &str, accept: &str) -> anyhow::Result<usize> {
        let answer = self.send(Method::GET, path, accept, Bytes::new()).await?;
        if !answer.status().is_success() {
            bail!("{path}: {}", answer.status());
        }
        let (mut body, mut length) = (answer.into_body(), 0);
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }

    /// Opens a streamed answer.
    pub async fn stream(mut self, path: &str) -> anyhow::Result<Stream> {
        let answer = self.send(Method::GET, path, JSON, Bytes::new()).await?;
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
        accept: &str,
        body: Bytes,
    ) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://peapod{path}"))
            .header("accept", accept)
            .header("content-type", JSON)
            .header("user-agent", "figures")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}

// === impl Stream ===

impl Stream {
    /// Reads what comes next: how many lines ended in it, and its bytes.
    pub async fn read(&mut self) -> anyhow::Result<(usize, usize)> {
        let frame = self
            .body
            .frame()
            .await
            .context("the stream ended early")??;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        let lines = data.iter().filter(|byte| **byte == b'\n').count();
        Ok((lines, data.len()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
