//! Documents that clients keep by a tag, and ask for again with it (RFC 9110, 8.8.3 and 13.1.2).

use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::body::Body;
use crate::rest::call::Reply;

/// The tag of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

// === impl Tag ===

impl Tag {
    /// Of a document's hash.
    pub fn of(digest: &[u8]) -> Self {
        Self(digest.iter().map(|byte| format!("{byte:02X}")).collect())
    }

    /// The hash as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a client has the document of this tag.
    pub fn is_known_to(&self, headers: &HeaderMap) -> bool {
        let known = headers.get(IF_NONE_MATCH);
        let known = known.and_then(|value| value.to_str().ok());
        known.is_some_and(|known| known == self.quoted())
    }

    /// Tells a client that it has the document.
    pub fn unchanged(&self, content_type: &str) -> Reply {
        self.put_on(Reply::of(
            StatusCode::NOT_MODIFIED,
            content_type,
            Body::empty(),
        ))
    }

    /// A reply with this tag.
    pub fn put_on(&self, mut reply: Reply) -> Reply {
        if let Ok(value) = HeaderValue::from_str(&self.quoted()) {
            reply.headers.push((ETAG, value));
        }
        let public = HeaderValue::from_static("public");
        reply.headers.push((CACHE_CONTROL, public));
        reply
    }

    fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_the_document_is_told_so() {
        let tag = Tag::of(&[0, 0xAB]);
        assert_eq!(tag.as_str(), "00AB");
        let mut headers = HeaderMap::new();
        assert!(!tag.is_known_to(&headers));
        headers.insert(IF_NONE_MATCH, "\"00AB\"".parse().unwrap());
        assert!(tag.is_known_to(&headers));
        let reply = tag.unchanged("application/json");
        assert_eq!(reply.code, StatusCode::NOT_MODIFIED);
        assert_eq!(reply.headers[0], (ETAG, "\"00AB\"".parse().unwrap()));
    }
}
