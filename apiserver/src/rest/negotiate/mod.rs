//! Content negotiation: which form a response takes ([`accept`]), and how a request's body is
//! encoded.

mod accept;

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

use peapod_schema::{cbor, protobuf};

use crate::status::{Result, Status};

pub use accept::{Accept, Offer};

/// How the bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`: of built-in kinds, and of metadata.
    Protobuf,
    /// `application/cbor`, as the feature `CBORServingAndStorage` has it.
    Cbor,
}

/// What the bytes show of the objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// The objects themselves.
    #[default]
    Object,
    /// `meta.k8s.io Table`, what `kubectl get` prints.
    Table,
    /// `meta.k8s.io PartialObjectMetadata` (and its list).
    Metadata,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`
    Discovery,
}

/// The version of `meta.k8s.io` that tables and metadata are of; they differ in its name only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `v1`
    #[default]
    V1,
    /// `v1beta1`, which kube-apiserver still serves. Not in protobuf, where it differs in more.
    V1Beta1,
}

/// In which form and encoding objects are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Look {
    /// Encoding of the bytes.
    pub encoding: Encoding,
    /// What they show.
    pub form: Form,
    /// In which version, where that is one of `meta.k8s.io`.
    pub meta: MetaVersion,
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
    /// Server-side apply, in YAML (or JSON, which is YAML) or in CBOR
    Apply(Encoding),
}

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";

// === impl Look ===

impl Look {
    /// How many places [`Self::index`] names.
    pub const COUNT: usize = 8;

    /// A place for the whole and for the rest, in each encoding. Looks that few ask for share one.
    pub fn index(self) -> usize {
        self.encoding as usize * 2 + usize::from(self.form != Form::Object)
    }
}

/// Whether a client takes compressed bodies.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    header(headers, ACCEPT_ENCODING.as_str())
        .split(',')
        .any(|one| one.trim().split(';').next() == Some("gzip"))
}

/// Whether JSON is laid out for people: as `?pretty` says, or else for the clients that people
/// use, as upstream knows them.
pub fn is_for_people(pretty: &str, headers: &HeaderMap) -> bool {
    let people = ["curl", "Wget", "Mozilla/5.0"];
    let agent = header(headers, USER_AGENT.as_str());
    match pretty {
        "" => people.iter().any(|name| agent.starts_with(name)),
        asked => ["1", "t", "T", "true", "TRUE", "True"].contains(&asked),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

// === impl MetaVersion ===

impl MetaVersion {
    /// As `apiVersion` has it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

// === impl Encoding ===

impl Encoding {
    /// The encoding of a request's body by its `Content-Type`; none means JSON.
    pub fn of_body(headers: &HeaderMap) -> Result<Self> {
        match media_type(headers) {
            "" | "application/json" => Ok(Self::Json),
            "application/yaml" | "application/x-yaml" => Ok(Self::Yaml),
            protobuf::MEDIA_TYPE => Ok(Self::Protobuf),
            cbor::MEDIA_TYPE => Ok(Self::Cbor),
            _ => Err(Status::unsupported_media_type(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor",
            )),
        }
    }

    /// The `Content-Type` of a watch.
    pub fn stream_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml;stream=watch",
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Self::Cbor => cbor::SEQUENCE,
        }
    }

    /// The `Content-Type` of a response.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
            Self::Cbor => cbor::MEDIA_TYPE,
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
            "application/apply-patch+yaml" => Ok(Self::Apply(Encoding::Yaml)),
            "application/apply-patch+cbor" => Ok(Self::Apply(Encoding::Cbor)),
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

    #[test]
    fn body_types() {
        let mut headers = HeaderMap::new();
        assert_eq!(Encoding::of_body(&headers), Ok(Encoding::Json));
        headers.insert(CONTENT_TYPE, "application/xml".parse().unwrap());
        assert_eq!(Encoding::of_body(&headers).unwrap_err().code, 415);
        headers.insert(
            CONTENT_TYPE,
            "application/apply-patch+yaml; q=1".parse().unwrap(),
        );
        assert_eq!(
            PatchType::of(&headers),
            Ok(PatchType::Apply(Encoding::Yaml))
        );
        assert!(is_for_people("true", &headers));
        assert!(!is_for_people("", &headers));
        headers.insert(USER_AGENT, "curl/8.5.0".parse().unwrap());
        assert!(is_for_people("", &headers) && !is_for_people("false", &headers));
    }
}
