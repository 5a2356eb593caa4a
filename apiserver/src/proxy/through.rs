//! `/proxy` of nodes, pods and services: HTTP requests passed on to what runs in the cluster.
//!
//! The object is named `[SCHEME:]NAME[:PORT]`, as in
//! `/api/v1/namespaces/a/services/https:web:443/proxy/index.html`.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::links::Links;
use super::{Address, address_of_node, exchange, find};
use crate::api::Api;
use crate::body::Body;
use crate::outbound::unverified;
use crate::random;
use crate::registry::value;
use crate::rest::call::Call;
use crate::status::{Result, Status};

/// The path that the client asked for, for servers that write whole URLs.
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Passes a request on to a node, a pod or an endpoint of a service, and the answer back, with
/// links that lead through here.
pub async fn through(
    api: &Api,
    call: &Call,
    mut parts: Parts,
    body: Bytes,
) -> Result<Response<Body>> {
    let named = Named::parse(&call.target.name)
        .ok_or_else(|| Status::bad_request(format!("invalid request {:?}", call.target.name)))?;
    let (address, way) = find_way(api, call, &named)?;
    let (prefix, rest) = halves(parts.uri.path(), &call.target.namespace);
    if rest.is_empty() && leads_astray(&parts) {
        return moved(&parts);
    }
    let path = with_query(&parts, rest);
    let back = std::net::SocketAddr::new(address.ip, address.port).to_string();
    let links = Links::of(&parts, prefix, back);
    if let Ok(whole) = HeaderValue::from_str(parts.uri.path()) {
        parts.headers.insert(FORWARDED_URI, whole);
    }
    // Links can be rewritten only in what is not compressed.
    parts.headers.remove(ACCEPT_ENCODING);
    let sender = connect(api, &named, &address, way).await?;
    let answered = exchange::run(api, sender, &address, &path, parts, body).await?;
    Ok(links.apply(answered))
}

/// How the other end is spoken to.
#[derive(Clone, Copy)]
enum Way {
    /// As the API server to a kubelet.
    Kubelet,
    /// TLS, without a look at the certificate.
    Tls,
    /// Plain HTTP.
    Plain,
}

fn find_way(api: &Api, call: &Call, named: &Named<'_>) -> Result<(Address, Way)> {
    let namespace = &call.target.namespace;
    let way = match named.scheme {
        "https" => Way::Tls,
        _ => Way::Plain,
    };
    match call.kind().plural.as_str() {
        "nodes" => {
            let kubelet = address_of_node(api, named.name)?;
            let port = named.port_number();
            if named.port.is_empty() || port == Some(kubelet.port) {
                return Ok((kubelet, Way::Kubelet));
            }
            let port = port.ok_or_else(|| named.no_port())?;
            Ok((Address { port, ..kubelet }, way))
        }
        "pods" => {
            let pod = find(api, "pods", namespace, named.name)?;
            Ok((pod_address(&pod, named)?, way))
        }
        _ => Ok((service_address(api, namespace, named)?, way)),
    }
}

async fn connect(
    api: &Api,
    named: &Named<'_>,
    address: &Address,
    way: Way,
) -> Result<exchange::Sender> {
    if let Way::Kubelet = way {
        return api.kubelets.open(address).await;
    }
    let connecting = TcpStream::connect((address.ip, address.port));
    let tcp = exchange::in_time(named.name, address, connecting).await?;
    if let Way::Plain = way {
        return exchange::handshake(tcp).await;
    }
    let tls = TlsConnector::from(unverified().map_err(Status::internal)?);
    let connecting = tls.connect(ServerName::from(address.ip), tcp);
    exchange::handshake(exchange::in_time(named.name, address, connecting).await?).await
}

/// The request's path up to and with `/proxy`, and what follows, in its own spelling. Names before
/// it may be `proxy`, too: its place is known by what stands before.
fn halves<'a>(path: &'a str, namespace: &str) -> (&'a str, &'a str) {
    // /api/v1/nodes/NAME/proxy and /api/v1/namespaces/NAMESPACE/pods/NAME/proxy
    let segments = if namespace.is_empty() { 5 } else { 7 };
    let ends = path
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([path.len()]);
    let mut before = 0;
    let mut seen = 0;
    for end in ends {
        // Empty segments do not count.
        seen += usize::from(end > before);
        if seen == segments {
            return path.split_at(end);
        }
        before = end + 1;
    }
    (path, "")
}

fn with_query(parts: &Parts, rest: &str) -> String {
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let query = parts.uri.query().map(|query| format!("?{query}"));
    format!("{slash}{rest}{}", query.unwrap_or_default())
}

/// Whether relative links of what answers would miss the last segment: a page at `.../proxy`.
fn leads_astray(parts: &Parts) -> bool {
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    reads && !parts.headers.contains_key(UPGRADE)
}

/// To the same place, with a slash at its end.
fn moved(parts: &Parts) -> Result<Response<Body>> {
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let to = format!("{}/{}", parts.uri.path(), query.unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let to = HeaderValue::from_str(&to).map_err(Status::internal)?;
    response.headers_mut().insert(LOCATION, to);
    Ok(response)
}

/// `[SCHEME:]NAME[:PORT]`
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme @ ("" | "http" | "https"), name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn port_number(&self) -> Option<u16> {
        self.port.parse().ok()
    }

    fn no_port(&self) -> Status {
        Status::bad_request(format!("invalid port {:?} of {:?}", self.port, self.name))
    }
}

/// A pod at its address; without a port the first that a container names, or 80.
fn pod_address(pod: &Value, named: &Named<'_>) -> Result<Address> {
    let containers = value::list(pod, "spec.containers").iter();
    let first = containers
        .flat_map(|container| value::list(container, "ports"))
        .find_map(|port| u16::try_from(value::integer(port, "containerPort")?).ok());
    let port = match named.port {
        "" => first.unwrap_or(80),
        _ => named.port_number().ok_or_else(|| named.no_port())?,
    };
    let ip = value::text(pod, "status.podIP").parse();
    let ip = ip.map_err(|_| {
        Status::unavailable(format!("pod {} has no address yet; try again", named.name))
    })?;
    Ok(Address { ip, port })
}

/// One of a service's ready endpoints, by chance.
fn service_address(api: &Api, namespace: &str, named: &Named<'_>) -> Result<Address> {
    let name = named.name;
    let service = find(api, "services", namespace, name)?;
    let port = match named.port_number() {
        Some(number) => {
            let mut ports = value::list(&service, "spec.ports").iter();
            let found = ports.find(|port| value::integer(port, "port") == Some(number.into()));
            let found = found.ok_or_else(|| {
                Status::unavailable(format!(
                    "no service port {number} found for service {name:?}"
                ))
            })?;
            value::text(found, "name").to_owned()
        }
        None => named.port.to_owned(),
    };
    let none = || Status::unavailable(format!("no endpoints available for service {name:?}"));
    let endpoints = find(api, "endpoints", namespace, name).map_err(|_| none())?;
    let mut found = candidates(&endpoints, &port);
    if found.is_empty() {
        return Err(none());
    }
    let index = random::below(found.len() as u64) as usize;
    Ok(found.swap_remove(index))
}

/// The ready addresses behind the service port of a name.
fn candidates(endpoints: &Value, port: &str) -> Vec<Address> {
    let subsets = value::list(endpoints, "subsets").iter();
    let of_subset = |subset: &Value| {
        let mut ports = value::list(subset, "ports").iter();
        let found = ports.find(|one| value::text(one, "name") == port)?;
        let port = u16::try_from(value::integer(found, "port")?).ok()?;
        let addresses = value::list(subset, "addresses").iter();
        let ips = addresses.filter_map(|one| value::text(one, "ip").parse().ok());
        Some(ips.map(|ip| Address { ip, port }).collect::<Vec<_>>())
    };
    subsets.filter_map(of_subset).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_with_scheme_and_port() {
        let parsed = |text| Named::parse(text).map(|n| (n.scheme, n.name, n.port));
        assert_eq!(parsed("web"), Some(("", "web", "")));
        assert_eq!(parsed("web:http"), Some(("", "web", "http")));
        assert_eq!(parsed("https:web:443"), Some(("https", "web", "443")));
        assert_eq!(parsed("https:web:"), Some(("https", "web", "")));
        assert_eq!(parsed("ftp:web:1"), None);
        assert_eq!(parsed(":1"), None);
    }

    #[test]
    fn endpoints_of_a_port() {
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"name": "a", "port": 80}]},
            {"notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "a", "port": 80}]},
        ]});
        let found = candidates(&endpoints, "a");
        let shown: Vec<_> = found
            .iter()
            .map(|a| format!("{}:{}", a.ip, a.port))
            .collect();
        assert_eq!(shown, ["10.0.0.1:80", "10.0.0.2:80"]);
        assert!(candidates(&endpoints, "b").is_empty());
    }

    #[test]
    fn paths_keep_their_spelling() {
        let base = "/api/v1/namespaces/proxy/services/proxy/proxy";
        assert_eq!(halves(base, "proxy"), (base, ""));
        assert_eq!(halves(&format!("{base}/"), "proxy"), (base, "/"));
        let inside = format!("{base}/x%2Fy/proxy");
        assert_eq!(halves(&inside, "proxy"), (base, "/x%2Fy/proxy"));
        let node = "/api//v1/nodes/n/proxy";
        assert_eq!(halves(&format!("{node}/x"), ""), (node, "/x"));
    }

    #[test]
    fn a_page_without_a_slash_moves() {
        let request = |method: Method, uri: &str| {
            let request = http::Request::builder().method(method).uri(uri);
            request.body(()).unwrap().into_parts().0
        };
        let page = request(Method::GET, "/a/proxy?x=1");
        assert!(leads_astray(&page));
        assert_eq!(moved(&page).unwrap().headers()[LOCATION], "/a/proxy/?x=1");
        assert!(!leads_astray(&request(Method::POST, "/a/proxy")));
    }
}
