//! The way out: requests of this server to others over HTTPS, named by a URL or by a Service,
//! whose endpoints are then asked directly. Webhooks, conversion and aggregation go it.

mod service;
mod unverified;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::api::Api;
use crate::registry::value;
pub use service::{SERVICE_NAME, endpoint};
pub use unverified::unverified;

/// How long another server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 8 << 20;

/// How many TLS configurations are kept: with each the sessions that need no whole handshake.
const KNOWN_MAX: usize = 256;

/// A TLS connection to another server.
pub type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// Why another server gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The description of where to go makes no sense.
    #[error("{0}")]
    Config(String),
    /// It cannot be reached.
    #[error("dial {0}: {1}")]
    Connect(String, String),
    /// It answered too late.
    #[error("context deadline exceeded")]
    Timeout,
    /// It broke the conversation off.
    #[error("{0}")]
    Broken(String),
    /// It answered with an error.
    #[error("the server answered {0}: {1}")]
    Refused(u16, String),
}

/// Where a request goes, and who is believed to be there.
#[derive(Clone)]
pub struct Destination {
    /// Candidates, tried in their order.
    pub addresses: Vec<SocketAddr>,
    /// The name in its certificate, and in the `Host` header.
    pub host: String,
    /// The port in the `Host` header.
    pub port: u16,
    /// The path, with its leading slash.
    pub path: String,
    tls: Arc<ClientConfig>,
}

// === impl Destination ===

impl Destination {
    /// Where a `clientConfig` (of webhooks and conversions) leads.
    ///
    /// # Errors
    /// [`OutboundError`] when it leads nowhere.
    pub async fn of_client_config(api: &Api, config: &Value) -> Result<Self, OutboundError> {
        let tls = trusting(value::text(config, "caBundle"))?;
        if let Some(service) = value::at(config, "service") {
            let (namespace, name) = (
                value::text(service, "namespace"),
                value::text(service, "name"),
            );
            let port = value::integer(service, "port")
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(443);
            let path = value::text(service, "path");
            return Ok(Self {
                addresses: service::endpoint(api, namespace, name, port)?,
                host: format!(
                    "{namespace_name}.svc",
                    namespace_name = format_args!("{name}.{namespace}")
                ),
                port,
                path: format!("/{}", path.trim_start_matches('/')),
                tls,
            });
        }
        let url = value::text(config, "url");
        let uri: Uri = url
            .parse()
            .map_err(|fault| OutboundError::Config(format!("{url}: {fault}")))?;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Vec<SocketAddr> = found
            .map(Iterator::collect)
            .map_err(|fault| OutboundError::Connect(host.clone(), fault.to_string()))?;
        let path = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        Ok(Self {
            addresses,
            host,
            port,
            path,
            tls,
        })
    }

    /// A destination by its parts.
    pub fn new(
        addresses: Vec<SocketAddr>,
        host: String,
        port: u16,
        tls: Arc<ClientConfig>,
    ) -> Self {
        Self {
            addresses,
            host,
            port,
            path: "/".to_owned(),
            tls,
        }
    }

    /// The URL that is posted to, for messages: it tells the other end how long it is waited for.
    pub fn url_within(&self, timeout: Duration) -> String {
        let path = self.path_within(timeout);
        format!("https://{}:{}{path}", self.host, self.port)
    }

    fn path_within(&self, timeout: Duration) -> String {
        let path = &self.path;
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}timeout={}s", timeout.as_secs())
    }

    /// Connects to the first candidate that answers.
    ///
    /// # Errors
    /// [`OutboundError::Connect`] when none does.
    pub async fn connect(&self) -> Result<Stream, OutboundError> {
        let connector = TlsConnector::from(self.tls.clone());
        let name = ServerName::try_from(self.host.clone());
        let name =
            name.map_err(|fault| OutboundError::Config(format!("{}: {fault}", self.host)))?;
        let mut last =
            OutboundError::Connect(self.host.clone(), "no endpoints available".to_owned());
        for address in &self.addresses {
            let connecting = async {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                connector.connect(name.clone(), tcp).await
            };
            match tokio::time::timeout(CONNECT, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(fault)) => {
                    last = OutboundError::Connect(address.to_string(), fault.to_string())
                }
                Err(_) => {
                    last = OutboundError::Connect(address.to_string(), "i/o timeout".to_owned())
                }
            }
        }
        Err(last)
    }

    /// Posts a JSON document and reads the JSON that is answered.
    ///
    /// # Errors
    /// [`OutboundError`] says why there is none.
    pub async fn post(&self, document: &Value, timeout: Duration) -> Result<Value, OutboundError> {
        let (path, none) = (self.path_within(timeout), HeaderMap::new());
        let exchange = self.exchange(Method::POST, &path, none, document.to_string().into());
        let bytes = tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| OutboundError::Timeout)??;
        serde_json::from_slice(&bytes)
            .map_err(|fault| OutboundError::Broken(format!("the answer is no JSON: {fault}")))
    }

    /// Asks for a path, with these headers, and reads what is answered.
    ///
    /// # Errors
    /// [`OutboundError`] says why there is nothing.
    pub async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Bytes, OutboundError> {
        let exchange = self.exchange(Method::GET, path, headers, Bytes::new());
        tokio::time::timeout(timeout, exchange)
            .await
            .map_err(|_| OutboundError::Timeout)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        given: HeaderMap,
        body: Bytes,
    ) -> Result<Bytes, OutboundError> {
        let broken = |fault: &dyn std::fmt::Display| OutboundError::Broken(fault.to_string());
        let stream = self.connect().await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.map_err(|fault| broken(&fault))?;
        let uri: Uri = path
            .parse()
            .map_err(|fault: http::uri::InvalidUri| OutboundError::Config(fault.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        *headers = given;
        let host = HeaderValue::from_str(&format!("{}:{}", self.host, self.port));
        headers.insert(HOST, host.map_err(|fault| broken(&fault))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        // The connection runs beside the exchange, and ends with it.
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|fault| broken(&fault))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX)
                .collect()
                .await;
            let body = body.map_err(|fault| broken(&fault))?.to_bytes();
            match status.is_success() {
                true => Ok(body),
                false => {
                    let told = String::from_utf8_lossy(&body[..body.len().min(512)])
                        .trim()
                        .to_owned();
                    Err(OutboundError::Refused(status.as_u16(), told))
                }
            }
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(fault) => Err(broken(&fault)),
            },
        }
    }
}

/// TLS that trusts a bundle of certificates, PEM in base64; without one, those of the system.
///
/// # Errors
/// [`OutboundError::Config`] when the bundle cannot be read.
pub fn trusting(bundle: &str) -> Result<Arc<ClientConfig>, OutboundError> {
    static KNOWN: Mutex<BTreeMap<String, Arc<ClientConfig>>> = Mutex::new(BTreeMap::new());
    if let Some(known) = KNOWN.lock().get(bundle) {
        return Ok(known.clone());
    }
    let made = Arc::new(builder(bundle)?.with_no_client_auth());
    let mut known = KNOWN.lock();
    if known.len() >= KNOWN_MAX {
        known.clear();
    }
    known.insert(bundle.to_owned(), made.clone());
    Ok(made)
}

/// As [`trusting`], with a client certificate; `None` for the bundle trusts anyone.
///
/// # Errors
/// [`OutboundError::Config`] when the bundle or the certificate cannot be read.
pub fn trusting_as(
    bundle: Option<&str>,
    certificate: &str,
    key: &str,
) -> Result<Arc<ClientConfig>, OutboundError> {
    let bad = |fault: &dyn std::fmt::Display| OutboundError::Config(fault.to_string());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.map_err(|fault| bad(&fault))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|fault| bad(&fault))?;
    let builder = match bundle {
        Some(bundle) => self::builder(bundle)?,
        None => unverified::builder()?,
    };
    let config = builder
        .with_client_auth_cert(chain, key)
        .map_err(|fault| bad(&fault))?;
    Ok(Arc::new(config))
}

type WantsClientCert = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(bundle: &str) -> Result<WantsClientCert, OutboundError> {
    let bad = |why: String| OutboundError::Config(format!("the CA bundle cannot be used: {why}"));
    let mut roots = RootCertStore::empty();
    let pem = match bundle {
        "" => std::fs::read(SYSTEM_ROOTS).unwrap_or_default(),
        bundle => STANDARD
            .decode(bundle)
            .map_err(|fault| bad(fault.to_string()))?,
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|fault| bad(fault.to_string()))?;
        roots
            .add(certificate)
            .map_err(|fault| bad(fault.to_string()))?;
    }
    Ok(ClientConfig::builder().with_root_certificates(roots))
}

/// Where distributions keep the certificates that all trust.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
