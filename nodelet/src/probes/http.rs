//! HTTP probes: a GET that must be answered with a status from 200 to 399. A redirect to another host is
//! not followed; it is an answer, but one that the user is warned of.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use peapod_api::k8s_openapi;
use reqwest::header::{ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

pub use reqwest::Client;

/// How much of the body is read to be told of, bytes.
const BODY_MAX: usize = 10 * 1024;
/// Redirects within a host that are followed.
const REDIRECTS_MAX: usize = 10;

/// A client that keeps no connection and believes every certificate, as probes do.
pub fn client() -> Result<Client, reqwest::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let tls = match builder.with_safe_default_protocol_versions() {
        Ok(tls) => tls,
        Err(error) => unreachable!("ring supports the default protocol versions: {error}"),
    };
    let tls = tls
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let same_host = reqwest::redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first().and_then(|url| url.host_str());
        let away = first != attempt.url().host_str();
        if away || attempt.previous().len() > REDIRECTS_MAX {
            attempt.stop()
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(same_host)
        .pool_max_idle_per_host(0)
        .no_proxy()
        .build()
}

/// Where a probe asks; `None` without an address.
pub fn url(action: &HTTPGetAction, container: &Container, ip: Option<IpAddr>) -> Option<String> {
    let port = super::port(&action.port, container).ok()?;
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = match action.host.as_deref().filter(|host| !host.is_empty()) {
        Some(host) => host.to_owned(),
        None => match ip? {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
    };
    let path = action.path.as_deref().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(format!("{scheme}://{host}:{port}{slash}{path}"))
}

fn headers(action: &HTTPGetAction) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.37"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for header in action.http_headers.iter().flatten() {
        let name: HeaderName = header.name.parse().map_err(|_| bad_header(&header.name))?;
        let value: HeaderValue = header.value.parse().map_err(|_| bad_header(&header.name))?;
        if name == HOST || name == USER_AGENT || name == ACCEPT {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

fn bad_header(name: &str) -> String {
    format!("header {name:?} cannot be sent")
}

/// Asks once; gives what there is to be told of a good answer, if anything.
pub async fn get(
    client: &Client,
    action: &HTTPGetAction,
    url: &str,
    limit: Duration,
) -> Result<Option<String>, String> {
    let request = client.get(url).headers(headers(action)?).timeout(limit);
    let answer = request.send().await.map_err(|error| {
        let why = if error.is_timeout() {
            "context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned()
        } else {
            innermost(&error)
        };
        format!("Get \"{url}\": {why}")
    })?;
    match answer.status().as_u16() {
        200..300 => Ok(None),
        300..400 => {
            let body = start_of_body(answer).await;
            Ok(Some(format!(
                "Probe terminated redirects, Response body: {body}"
            )))
        }
        status => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

/// As much of a body as there is, within the request's time.
async fn start_of_body(mut answer: reqwest::Response) -> String {
    let mut body = Vec::new();
    while body.len() < BODY_MAX
        && let Ok(Some(piece)) = answer.chunk().await
    {
        body.extend_from_slice(&piece);
    }
    body.truncate(BODY_MAX);
    String::from_utf8_lossy(&body).into_owned()
}

/// The cause at the bottom, which says what happened.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Believes every certificate: a probe asks whether something answers, not who.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::http::header::LOCATION;
    use axum::response::Redirect;
    use axum::routing::get as route;

    use super::*;

    #[tokio::test]
    async fn a_redirect_elsewhere_is_an_answer_that_is_told_of() {
        let elsewhere = [(LOCATION, "http://elsewhere.invalid/")];
        let away = async move || (StatusCode::FOUND, elsewhere, "moved");
        let near = async || Redirect::to("/there");
        let router = Router::new()
            .route("/away", route(away))
            .route("/near", route(near))
            .route("/there", route(async || "here"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let client = client().unwrap();
        let ask = async |path: &str| {
            let url = format!("http://{address}{path}");
            get(
                &client,
                &HTTPGetAction::default(),
                &url,
                Duration::from_secs(30),
            )
            .await
        };
        assert_eq!(ask("/near").await, Ok(None));
        let told = "Probe terminated redirects, Response body: moved".to_owned();
        assert_eq!(ask("/away").await, Ok(Some(told)));
        let failed = "HTTP probe failed with statuscode: 404".to_owned();
        assert_eq!(ask("/none").await, Err(failed));
        server.abort();
    }

    #[test]
    fn urls() {
        let container = Container::default();
        let url = |action: serde_json::Value, ip: &str| {
            let action = serde_json::from_value(action).unwrap();
            super::url(&action, &container, ip.parse().ok())
        };
        let json = |text: &str| serde_json::from_str(text).unwrap();
        assert_eq!(
            url(json(r#"{"port": 80, "path": "healthz"}"#), "10.0.0.1").as_deref(),
            Some("http://10.0.0.1:80/healthz")
        );
        assert_eq!(
            url(json(r#"{"port": 443, "scheme": "HTTPS"}"#), "fd00::1").as_deref(),
            Some("https://[fd00::1]:443/")
        );
        assert_eq!(
            url(json(r#"{"port": 1, "host": "example.com"}"#), "").as_deref(),
            Some("http://example.com:1/")
        );
        assert_eq!(url(json(r#"{"port": 80}"#), ""), None);
    }
}
