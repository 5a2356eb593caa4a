//! One request on a resource, with everything that its handling needs, and its reply.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::negotiate::Accept;
use super::query::Query;
use super::target::{ResourceTarget, Verb};
use crate::auth::user::User;
use crate::body::Body;
use crate::registry::{Kind, Resource, Subresource};

/// A request on a resource.
pub struct Call {
    /// Who asks.
    pub user: User,
    /// What for.
    pub target: ResourceTarget,
    /// To do what.
    pub verb: Verb,
    /// The declared kind.
    pub resource: Arc<Resource>,
    /// The declared subresource, when the path has one.
    pub subresource: Option<Subresource>,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
    /// What the client takes.
    pub accept: Accept,
}

/// What is answered.
pub struct Reply {
    /// The HTTP status.
    pub code: StatusCode,
    /// The media type.
    pub content_type: String,
    /// The body.
    pub body: Body,
    /// Sentences for `Warning` headers.
    pub warnings: Vec<String>,
    /// Other headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

// === impl Call ===

impl Call {
    /// The kind's declaration.
    pub fn kind(&self) -> &Kind {
        &self.resource.kind
    }

    /// The `User-Agent`; empty when there is none.
    pub fn user_agent(&self) -> &str {
        let header = self.headers.get(http::header::USER_AGENT);
        header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

// === impl Reply ===

impl Reply {
    /// A JSON body that is encoded already.
    pub fn json(code: StatusCode, body: impl Into<Body>) -> Self {
        Self::of(code, "application/json", body)
    }

    /// A body of any type.
    pub fn of(code: StatusCode, content_type: &str, body: impl Into<Body>) -> Self {
        Self {
            code,
            content_type: content_type.to_owned(),
            body: body.into(),
            warnings: Vec::new(),
            headers: Vec::new(),
        }
    }
}
