//! What is sent back: replies, refusals and warnings as HTTP has them.

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING,
};
use http::{Response, StatusCode};

use crate::body::Body;
use crate::rest::call::Reply;
use crate::rest::encode;
use crate::rest::negotiate::Accept;
use crate::status::Status;

/// What is sent back.
pub enum Answer {
    /// An answer of this server.
    Reply(Reply),
    /// A response that is passed on as it is: a tunnel to a node.
    Raw(Response<Body>),
}

// === impl Answer ===

impl Answer {
    /// Its code and its body.
    pub fn parts(&mut self) -> (StatusCode, &mut Body) {
        match self {
            Self::Reply(reply) => (reply.code, &mut reply.body),
            Self::Raw(response) => (response.status(), response.body_mut()),
        }
    }
}

/// The response of a reply.
pub fn reply_response(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.code;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Ok(value) = HeaderValue::from_str(&reply.content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    for (name, value) in reply.headers {
        headers.insert(name, value);
    }
    warn(&mut response, reply.warnings);
    response
}

/// The answer to a HEAD: as that to a GET, without its body (RFC 9110, 9.3.2). In HTTP/2 nobody
/// else takes the body away, and clients break off the stream for it.
pub fn head_only(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(size) = body.size().filter(|size| *size > 0) {
        let size = HeaderValue::from(size);
        head.headers.entry(CONTENT_LENGTH).or_insert(size);
    }
    Response::from_parts(head, Body::empty())
}

/// Adds warnings that are not there yet.
pub fn warn(response: &mut Response<Body>, warnings: Vec<String>) {
    let headers = response.headers_mut();
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) else {
            continue;
        };
        if !headers.get_all(WARNING).iter().any(|known| *known == value) {
            headers.append(WARNING, value);
        }
    }
}

/// The response of a refusal.
pub fn status_response(status: &Status, accept: Accept) -> Response<Body> {
    let body = encode::value(&status.to_value(), accept).unwrap_or_default();
    let reply = Reply::of(status.code, accept.encoding.content_type(), body);
    let mut response = reply_response(reply);
    let delay = status.retry_delay();
    if let Some(delay) = delay.filter(|_| status.code != StatusCode::GATEWAY_TIMEOUT) {
        let seconds = HeaderValue::from(delay.as_secs());
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}
