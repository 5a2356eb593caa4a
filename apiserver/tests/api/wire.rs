//! What stands on the wire: TLS, identity, bounds, forms.

use crate::common::{self, Listening};
use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use peapod_apiserver::pki::Subject;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// A TLS connection, with a client certificate of a group.
pub async fn connect(to: &Listening, group: &str) -> Stream {
    let subject = Subject {
        name: "someone",
        groups: &[group],
        sans: &[],
    };
    let pki = to.server.pki();
    let credential = pki.issue(&subject, jiff::Timestamp::now()).unwrap();
    let tls = pki.client_tls(&credential).unwrap();
    let tcp = TcpStream::connect(to.address).await.unwrap();
    let name = ServerName::from(to.address.ip());
    TlsConnector::from(tls).connect(name, tcp).await.unwrap()
}

/// Sends one request; gives the code and the body.
pub async fn send(to: &Listening, request: Request<Full<Bytes>>) -> (StatusCode, Bytes) {
    let (head, body) = answer(to, request).await;
    (head.status, body)
}

/// Sends one request; gives the head of the answer and the body.
async fn answer(to: &Listening, request: Request<Full<Bytes>>) -> (Parts, Bytes) {
    let io = TokioIo::new(connect(to, "system:masters").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driven.abort();
    (head, body)
}

pub fn request(method: Method, path: &str, accept: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("accept", accept)
        .body(Full::default())
        .unwrap()
}

async fn get(to: &Listening, path: &str, accept: &str) -> (StatusCode, Value) {
    let (code, body) = send(to, request(Method::GET, path, accept)).await;
    (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn forms_of_a_namespace() {
    let to = common::listening().await;
    let path = "/api/v1/namespaces/default";
    let (_, plain) = get(&to, path, "application/json").await;
    assert_eq!(plain["kind"], "Namespace");
    let (_, table) = get(&to, path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["rows"][0]["cells"][1], "Active");
    assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
    let accept = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    for path in [path, "/api/v1/namespaces"] {
        let (_, older) = get(&to, path, accept).await;
        assert_eq!(older["apiVersion"], "meta.k8s.io/v1beta1");
        let object = &older["rows"][0]["object"];
        assert_eq!(object["kind"], "PartialObjectMetadata");
        assert_eq!(object["apiVersion"], "meta.k8s.io/v1beta1");
        assert_eq!(
            older["columnDefinitions"].as_array().unwrap().len(),
            table["columnDefinitions"].as_array().unwrap().len()
        );
    }
    let accept = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let (_, partial) = get(&to, path, accept).await;
    assert_eq!(partial["kind"], "PartialObjectMetadata");
    assert!(partial.get("spec").is_none());
    let (code, refused) = get(&to, path, "text/html").await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(refused["reason"], "NotAcceptable");
}

#[tokio::test]
async fn discovery_in_all_forms() {
    let to = common::listening().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let (_, all) = get(&to, "/apis", aggregated).await;
    assert_eq!(all["kind"], "APIGroupDiscoveryList");
    let (_, groups) = get(&to, "/apis", "application/json").await;
    let named = |group: &&Value| group["name"] == "apps";
    assert!(
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| named(&g))
    );
    let (_, core) = get(&to, "/api/v1", "application/json").await;
    assert_eq!(core["groupVersion"], "v1");
    let (code, missing) = get(&to, "/apis/nosuch/v1", "application/json").await;
    assert_eq!(
        (code, &missing["reason"]),
        (StatusCode::NOT_FOUND, &"NotFound".into())
    );
    let (_, index) = get(&to, "/openapi/v3", "application/json").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let ask = |path: &str| request(Method::GET, path, "application/json");
    let (head, document) = answer(&to, ask(url)).await;
    assert_eq!(head.headers["cache-control"], "public, immutable");
    assert!(head.headers["expires"].to_str().unwrap().ends_with("GMT"));
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let (head, _) = answer(&to, ask("/openapi/v3/apis/apps/v1?hash=OLD")).await;
    assert_eq!(head.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(head.headers["location"], url);
    let (head, _) = answer(&to, ask("/openapi/v3/apis/apps/v1")).await;
    assert_eq!(head.headers["cache-control"], "public");
}

#[tokio::test]
async fn aggregated_discovery_is_kept_by_its_tag() {
    let to = common::listening().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for path in ["/api", "/apis"] {
        let ask = || request(Method::GET, path, accept);
        let (head, body) = answer(&to, ask()).await;
        assert_eq!(head.headers["content-type"], accept);
        assert_eq!(head.headers["vary"], "Accept");
        assert_eq!(head.headers["cache-control"], "public");
        assert!(!body.is_empty());
        let mut again = ask();
        let tag = head.headers["etag"].clone();
        again.headers_mut().insert("if-none-match", tag.clone());
        let (head, body) = answer(&to, again).await;
        assert_eq!(head.status, StatusCode::NOT_MODIFIED);
        assert_eq!(head.headers["etag"], tag);
        assert!(body.is_empty());
    }
    // A clause for the plain document does not hide that for the whole, wherever it stands.
    let both = format!("application/json, {accept}");
    let (_, whole) = get(&to, "/apis", &both).await;
    assert_eq!(whole["kind"], "APIGroupDiscoveryList");
    let (_, plain) = get(&to, "/apis/apps/v1", &both).await;
    assert_eq!(plain["kind"], "APIResourceList");
    let (code, _) = get(&to, "/apis/apps/v1", accept).await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let to = common::listening().await;
    let mut stream = connect(&to, "system:masters").await;
    let head = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 104857600\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let count = stream.read(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer[..count]);
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    assert!(text.contains("RequestEntityTooLarge"), "{text}");
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let to = common::listening().await;
    let io = TokioIo::new(connect(&to, "system:masters").await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io);
    let (mut sender, connection) = handshake.await.unwrap();
    let driven = tokio::spawn(connection);
    for path in ["/livez", "/api/v1/namespaces", "/api/v1/namespaces/none"] {
        let ask = |method| {
            Request::builder()
                .method(method)
                .uri(format!("https://localhost{path}"))
                .body(Full::<Bytes>::default())
                .unwrap()
        };
        let whole = sender.send_request(ask(Method::GET)).await.unwrap();
        let code = whole.status();
        let size = whole.into_body().collect().await.unwrap().to_bytes().len();
        let head = sender.send_request(ask(Method::HEAD)).await.unwrap();
        assert_eq!(head.status(), code, "{path}");
        assert_eq!(head.headers()["content-length"], size.to_string());
        let body = head.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty(), "{path}");
    }
    driven.abort();
}

#[tokio::test]
async fn strict_faults_are_told_as_upstream_tells_them() {
    let to = common::listening().await;
    let maps = "/api/v1/namespaces/default/configmaps?fieldValidation=Strict";
    let json = r#"{"metadata": {"name": "a"}, "odd": 1, "data": {"a": "b", "a": "c"}}"#;
    let yaml = "\nmetadata:\n  name: a\nodd: 1\ndata:\n  a: b\n  a: c\n";
    for (kind, body, told) in [
        (
            "application/json",
            json,
            r#"strict decoding error: unknown field "odd", duplicate field "data.a""#,
        ),
        (
            "application/yaml",
            yaml,
            "strict decoding error: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map, unknown field \"odd\"",
        ),
    ] {
        let mut asked = request(Method::POST, maps, "application/json");
        let content = http::HeaderValue::from_static(kind);
        asked.headers_mut().insert("content-type", content);
        *asked.body_mut() = Full::from(body);
        let (code, answer) = send(&to, asked).await;
        let status: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(code, StatusCode::BAD_REQUEST);
        let message = status["message"].as_str().unwrap();
        assert!(message.ends_with(told), "{message}");
    }
}

#[tokio::test]
async fn reviews_are_no_tables() {
    let to = common::listening().await;
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut asked = request(Method::POST, reviews, table);
    *asked.body_mut() =
        Full::from(r#"{"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}"#);
    let (code, _) = send(&to, asked).await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn garbage_is_told_what_it_is() {
    let to = common::listening().await;
    for (body, expected) in [
        ("{", 400),
        ("[]", 400),
        ("\"x\"", 400),
        (r#"{"kind":"Pod","apiVersion":"v1"}"#, 400),
        (r#"{"metadata":{"name":5}}"#, 400),
        (r#"{"metadata":{}}"#, 422),
    ] {
        let mut asked = request(
            Method::POST,
            "/api/v1/namespaces/default/configmaps",
            "application/json",
        );
        *asked.body_mut() = Full::from(body);
        let (code, answer) = send(&to, asked).await;
        let status: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(code.as_u16(), expected, "{body}: {status}");
        assert_eq!(status["kind"], "Status");
    }
}

#[tokio::test]
async fn who_shows_no_certificate_reads_health_only() {
    let to = common::listening().await;
    let client = reqwest_like(&to).await;
    for (path, expected) in [
        ("/livez", 200),
        ("/version", 200),
        ("/api", 403),
        ("/metrics", 403),
    ] {
        assert_eq!(client(path.to_owned()).await, expected, "{path}");
    }
}

/// Asks without a client certificate, one connection for each request.
async fn reqwest_like(
    to: &Listening,
) -> impl Fn(String) -> futures::future::BoxFuture<'static, u16> + use<> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let ca = CertificateDer::from_pem_slice(to.server.pki().ca_certificate().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(std::sync::Arc::new(tls));
    let address = to.address;
    move |path| {
        let connector = connector.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(address).await.unwrap();
            let name = ServerName::from(address.ip());
            let io = TokioIo::new(connector.connect(name, tcp).await.unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let driven = tokio::spawn(connection);
            let asked = request(Method::GET, &path, "application/json");
            let response = sender.send_request(asked).await.unwrap();
            driven.abort();
            response.status().as_u16()
        })
    }
}

#[tokio::test]
async fn a_stop_ends_watches_and_serving() {
    let to = common::listening().await;
    let io = TokioIo::new(connect(&to, "system:masters").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driven = tokio::spawn(connection);
    let asked = request(
        Method::GET,
        "/api/v1/namespaces?watch=1",
        "application/json",
    );
    let mut watched = sender.send_request(asked).await.unwrap().into_body();
    assert!(watched.frame().await.unwrap().is_ok());
    to.stop.cancel();
    while let Some(Ok(_)) = watched.frame().await {}
    to.served.await.unwrap();
    driven.abort();
}
