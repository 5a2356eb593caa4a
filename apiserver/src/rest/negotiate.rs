//! Content negotiation: which form a response takes, and how a request's body is encoded.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

use peapod_schema::protobuf;

use crate::status::{Result, Status};

/// How the bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`: understood in requests only.
    Protobuf,
}

/// What the bytes show of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// The objects themselves.
    #[default]
    Object,
    /// `meta.k8s.io/v1 Table`, what `kubectl get` prints.
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` (and its list).
    Metadata,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`
    Discovery,
}

/// What the client takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Encoding of the body.
    pub encoding: Encoding,
    /// Form of the objects.
    pub form: Form,
    /// Whether a large body may be gzip-compressed.
    pub gzip: bool,
}

/// How the body of a PATCH is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902
    Json,
    /// RFC 7386
    Merge,
    /// Strategic merge patch
    Strategic,
    /// Server-side apply
    Apply,
}

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

// === impl Accept ===

impl Accept {
    /// Reads the `Accept` header: the first clause that this server can answer wins.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let gzip = header(headers, ACCEPT_ENCODING.as_str())
            .split(',')
            .any(|one| one.trim().split(';').next() == Some("gzip"));
        let accept = header(headers, ACCEPT.as_str());
        if accept.trim().is_empty() {
            return Ok(Self {
                gzip,
                ..Self::default()
            });
        }
        let found = accept.split(',').find_map(clause);
        let (encoding, form) = found.ok_or_else(Status::not_acceptable)?;
        Ok(Self {
            encoding,
            form,
            gzip,
        })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn clause(text: &str) -> Option<(Encoding, Form)> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" | "text/plain" | "text/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key.trim() {
            "as" => kind = value.trim(),
            "g" => group = value.trim(),
            "v" => version = value.trim(),
            _ => {}
        }
    }
    let form = match (kind, group, version) {
        ("", ..) => Form::Object,
        ("Table", "meta.k8s.io", "v1") => Form::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
            Form::Metadata
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery,
        _ => return None,
    };
    Some((encoding, form))
}

// === impl Encoding ===

impl Encoding {
    /// The encoding of a request's body by its `Content-Type`; none means JSON.
    pub fn of_body(headers: &HeaderMap) -> Result<Self> {
        match media_type(headers) {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" => Ok(Self::Yaml),
            protobuf::MEDIA_TYPE => Ok(Self::Protobuf),
            _ => Err(Status::unsupported_media_type(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )),
        }
    }

    /// The `Content-Type` of a response.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
}

// === impl PatchType ===

impl PatchType {
    /// The kind of a patch by its `Content-Type`.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        match media_type(headers) {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Status::unsupported_media_type(PATCH_TYPES)),
        }
    }
}

fn media_type(headers: &HeaderMap) -> &str {
    let whole = header(headers, CONTENT_TYPE.as_str());
    whole.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<(Encoding, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        Accept::of(&headers).map(|accept| (accept.encoding, accept.form))
    }

    #[test]
    fn first_clause_that_can_be_answered_wins() {
        for (text, expected) in [
            ("", (Encoding::Json, Form::Object)),
            ("*/*", (Encoding::Json, Form::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                (Encoding::Json, Form::Table),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                (Encoding::Json, Form::Object),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/yaml",
                (Encoding::Yaml, Form::Object),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                (Encoding::Json, Form::Discovery),
            ),
        ] {
            assert_eq!(accept(text), Ok(expected), "{text}");
        }
        let refused = accept("application/vnd.kubernetes.protobuf").unwrap_err();
        assert_eq!(refused.code, 406);
    }

    #[test]
    fn body_types() {
        let mut headers = HeaderMap::new();
        assert_eq!(Encoding::of_body(&headers), Ok(Encoding::Json));
        headers.insert(CONTENT_TYPE, "application/cbor".parse().unwrap());
        assert_eq!(Encoding::of_body(&headers).unwrap_err().code, 415);
        headers.insert(
            CONTENT_TYPE,
            "application/apply-patch+yaml; q=1".parse().unwrap(),
        );
        assert_eq!(PatchType::of(&headers), Ok(PatchType::Apply));
    }
}
