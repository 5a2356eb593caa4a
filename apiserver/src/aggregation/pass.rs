//! Passes one request on to the server of its group, and the answer back as it comes.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_util::task::AbortOnDropHandle;

use super::Remote;
use crate::api::Api;
use crate::auth::user::User;
use crate::body::Body;
use crate::status::{Result, Status};

/// Headers that say who asks; nobody but this server may set them.
const REMOTE: &str = "x-remote-";

/// Passes a request on.
pub async fn pass(
    api: &Api,
    remote: &Remote,
    user: &User,
    parts: Parts,
    body: Bytes,
) -> Result<Response<Body>> {
    let unavailable = |fault: &dyn std::fmt::Display| {
        tracing::debug!(group = remote.group, version = remote.version, %fault, "an aggregated server does not answer");
        Status::unavailable("service unavailable")
    };
    let there = api
        .aggregation
        .destination(api, remote)
        .map_err(|fault| unavailable(&fault))?;
    let stream = there.connect().await.map_err(|fault| unavailable(&fault))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|fault| unavailable(&fault))?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(fault) = connection.await {
            tracing::debug!(%fault, "a connection to an aggregated server ended");
        }
    }));
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = parts.method.clone();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path
        .parse()
        .map_err(|fault| Status::bad_request(format!("{path}: {fault}")))?;
    *request.headers_mut() = headers(&parts.headers, user);
    if let Ok(host) = HeaderValue::from_str(&there.host) {
        request.headers_mut().insert(HOST, host);
    }
    let limit = api.config.request_timeout;
    let answered = tokio::time::timeout(limit, sender.send_request(request)).await;
    let response = answered
        .map_err(|_| Status::timeout("the aggregated server did not answer in time"))?
        .map_err(|fault| unavailable(&fault))?;
    let (mut head, body) = response.into_parts();
    for hop in [TRANSFER_ENCODING, CONNECTION] {
        head.headers.remove(hop);
    }
    let state = (
        body.into_data_stream(),
        api.draining.clone(),
        connection,
        sender,
    );
    let pieces = futures::stream::unfold(state, |(mut data, draining, connection, sender)| async {
        use futures::StreamExt;
        let piece = tokio::select! {
            piece = data.next() => piece?.ok()?,
            () = draining.cancelled() => return None,
        };
        Some((piece, (data, draining, connection, sender)))
    });
    Ok(Response::from_parts(head, Body::stream(pieces)))
}

/// The client's headers without its credentials, and who it is.
pub(super) fn headers(given: &HeaderMap, user: &User) -> HeaderMap {
    let mut out = HeaderMap::new();
    for (name, text) in given {
        let hop = [CONNECTION, UPGRADE, TRANSFER_ENCODING, CONTENT_LENGTH, HOST].contains(name);
        if !hop
            && *name != AUTHORIZATION
            && !name.as_str().starts_with(REMOTE)
            && !name.as_str().starts_with("impersonate-")
        {
            out.append(name, text.clone());
        }
    }
    let mut add = |name: &str, text: &str| {
        if let (Ok(name), Ok(text)) = (HeaderName::try_from(name), HeaderValue::from_str(text)) {
            out.append(name, text);
        }
    };
    add("x-remote-user", user.name());
    if !user.uid().is_empty() {
        add("x-remote-uid", user.uid());
    }
    for group in user.groups() {
        add("x-remote-group", group);
    }
    for (key, values) in user.extra() {
        let key = utf8_percent_encode(&key.to_lowercase(), NON_ALPHANUMERIC).to_string();
        for value in values {
            add(&format!("x-remote-extra-{key}"), value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_server_says_who_asks() {
        let mut given = HeaderMap::new();
        given.insert("x-remote-user", HeaderValue::from_static("admin"));
        given.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        given.insert("accept", HeaderValue::from_static("application/json"));
        let user = User::authenticated("jane", ["devs"]);
        let sent = headers(&given, &user);
        assert_eq!(sent["x-remote-user"], "jane");
        assert_eq!(sent.get_all("x-remote-group").iter().count(), 2);
        assert!(!sent.contains_key(AUTHORIZATION));
        assert_eq!(sent["accept"], "application/json");
    }
}
