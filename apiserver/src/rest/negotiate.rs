//! Content negotiation: which form a response takes, and how a request's body is encoded.

use std::cmp::Reverse;

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

use peapod_schema::{cbor, protobuf};

use crate::registry::Resource;
use crate::status::{Result, Status};

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

/// What the client takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Encoding of the body.
    pub encoding: Encoding,
    /// Form of the objects.
    pub form: Form,
    /// The version of that form, where it is one of `meta.k8s.io`.
    pub meta: MetaVersion,
    /// Whether a large body may be gzip-compressed.
    pub gzip: bool,
    /// Whether JSON is laid out for people.
    pub pretty: bool,
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

/// In which forms and encodings an endpoint can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Objects of a kind.
    Objects {
        /// Whether the kind has a protobuf form.
        protobuf: bool,
        /// Whether it has tables: what is answered and not kept has none.
        table: bool,
    },
    /// What is served in all: aggregated where the client takes that, else as it is.
    Discovery,
    /// One document as it is: an error.
    Plain,
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

// === impl Offer ===

impl Offer {
    /// Of a kind's objects.
    pub fn of(resource: &Resource) -> Self {
        Self::Objects {
            protobuf: protobuf::speaks(&resource.schema),
            table: !resource.kind.ephemeral,
        }
    }

    fn has(self, encoding: Encoding, (form, meta): (Form, MetaVersion)) -> bool {
        let is_protobuf = encoding == Encoding::Protobuf;
        match (form, self) {
            (Form::Object, Self::Objects { protobuf, .. }) => protobuf || !is_protobuf,
            (Form::Object, Self::Plain) | (Form::Discovery, Self::Discovery) => true,
            (Form::Metadata, Self::Objects { .. }) => meta == MetaVersion::V1 || !is_protobuf,
            (Form::Table, Self::Objects { table, .. }) => table && !is_protobuf,
            _ => false,
        }
    }

    /// What is offered where the client does not take this.
    fn otherwise(self) -> Option<Self> {
        (self == Self::Discovery).then_some(Self::Plain)
    }

    fn encodings(self) -> &'static str {
        match self {
            Self::Objects {
                protobuf: false, ..
            } => "application/json, application/yaml, application/cbor",
            _ => {
                "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"
            }
        }
    }
}

// === impl Accept ===

impl Accept {
    /// Reads the `Accept` header: of the clauses that this endpoint can answer, the one that the
    /// client likes best; of several, the first.
    pub fn of(headers: &HeaderMap, offer: Offer) -> Result<Self> {
        let gzip = takes_gzip(headers);
        let lines = headers.get_all(ACCEPT).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        let mut clauses: Vec<Clause> = lines
            .flat_map(|line| line.split(','))
            .filter(|clause| !clause.trim().is_empty())
            .map(Clause::parse)
            .collect();
        if clauses.is_empty() {
            return Ok(Self {
                gzip,
                ..Self::default()
            });
        }
        clauses.sort_by_key(|clause| (Reverse(clause.quality), clause.is_wild));
        let answered = |offer| {
            let mut wanted = clauses.iter().filter(|clause| clause.quality > 0);
            wanted.find_map(|clause| clause.answered_by(offer))
        };
        let found = answered(offer).or_else(|| answered(offer.otherwise()?));
        let accept = found.ok_or_else(|| Status::not_acceptable(offer.encodings()))?;
        Ok(Self { gzip, ..accept })
    }

    /// How objects are shown to the client.
    pub fn look(&self) -> Look {
        Look {
            encoding: self.encoding,
            form: self.form,
            meta: self.meta,
        }
    }
}

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

/// One of the alternatives of an `Accept` header.
struct Clause {
    encoding: Option<Encoding>,
    form: Option<(Form, MetaVersion)>,
    pretty: bool,
    is_wild: bool,
    /// In thousandths (RFC 9110, 12.4.2); 0 refuses.
    quality: u16,
}

// === impl Clause ===

impl Clause {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut kind, mut group, mut version) = ("", "", "");
        let (mut pretty, mut quality, mut streams) = (false, 1000, true);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim() {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                "pretty" => pretty = value == "1",
                "stream" => streams = value.is_empty() || value == "watch",
                "q" => quality = thousandths(value),
                _ => {}
            }
        }
        Self {
            encoding: encoding(&media).filter(|_| streams),
            form: form(kind, group, version),
            pretty,
            is_wild: media.contains('*'),
            quality,
        }
    }

    fn answered_by(&self, offer: Offer) -> Option<Accept> {
        let (encoding, (form, meta)) = (self.encoding?, self.form?);
        offer.has(encoding, (form, meta)).then_some(Accept {
            encoding,
            form,
            meta,
            pretty: self.pretty,
            gzip: false,
        })
    }
}

fn thousandths(quality: &str) -> u16 {
    match quality.parse::<f32>() {
        Ok(quality) if (0.0..=1.0).contains(&quality) => (quality * 1000.0).round() as u16,
        // What cannot be read counts as if it were not there.
        _ => 1000,
    }
}

fn encoding(media: &str) -> Option<Encoding> {
    Some(match media {
        "application/json" | "*/*" | "application/*" | "text/plain" | "text/*" => Encoding::Json,
        "application/yaml" | "application/x-yaml" => Encoding::Yaml,
        protobuf::MEDIA_TYPE => Encoding::Protobuf,
        cbor::MEDIA_TYPE | cbor::SEQUENCE => Encoding::Cbor,
        _ => return None,
    })
}

fn form(kind: &str, group: &str, version: &str) -> Option<(Form, MetaVersion)> {
    let meta = match version {
        "v1beta1" => MetaVersion::V1Beta1,
        _ => MetaVersion::V1,
    };
    let form = match (kind, group, version) {
        ("", ..) => Form::Object,
        ("Table", "meta.k8s.io", "v1" | "v1beta1") => Form::Table,
        (
            "PartialObjectMetadata" | "PartialObjectMetadataList",
            "meta.k8s.io",
            "v1" | "v1beta1",
        ) => Form::Metadata,
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Form::Discovery,
        _ => return None,
    };
    Some((form, meta))
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

    fn accept(text: &str) -> Result<(Encoding, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, text.parse().unwrap());
        let offer = Offer::Objects {
            protobuf: true,
            table: true,
        };
        Accept::of(&headers, offer).map(|accept| (accept.encoding, accept.form))
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
                (Encoding::Protobuf, Form::Object),
            ),
            (
                "application/json;q=0.5, application/yaml;q=0.9, text/html",
                (Encoding::Yaml, Form::Object),
            ),
            (
                "*/*, application/vnd.kubernetes.protobuf;stream=watch",
                (Encoding::Protobuf, Form::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json;as=Table;v=v1;g=meta.k8s.io",
                (Encoding::Json, Form::Table),
            ),
            (
                "application/json;as=Table;v=v1alpha1;g=meta.k8s.io, application/yaml",
                (Encoding::Yaml, Form::Object),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json",
                (Encoding::Json, Form::Table),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io, application/yaml",
                (Encoding::Yaml, Form::Object),
            ),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io;q=1",
                (Encoding::Json, Form::Metadata),
            ),
        ] {
            assert_eq!(accept(text), Ok(expected), "{text}");
        }
        for text in [
            "text/html",
            "application/json;q=0",
            "application/json;stream=x",
        ] {
            assert_eq!(accept(text).unwrap_err().code, 406, "{text}");
        }
    }

    #[test]
    fn what_an_endpoint_does_not_have_is_passed_over() {
        let mut headers = HeaderMap::new();
        let text = "application/vnd.kubernetes.protobuf, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, application/json;q=0.1";
        headers.insert(ACCEPT, text.parse().unwrap());
        let read = |offer| Accept::of(&headers, offer).unwrap();
        let custom = read(Offer::Objects {
            protobuf: false,
            table: true,
        });
        assert_eq!(
            (custom.encoding, custom.form),
            (Encoding::Json, Form::Object)
        );
        // The whole in one answer is what a client means that takes it at all.
        let discovery = read(Offer::Discovery);
        assert_eq!(
            (discovery.encoding, discovery.form),
            (Encoding::Json, Form::Discovery)
        );
        assert_eq!(read(Offer::Plain).encoding, Encoding::Protobuf);
        let text =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
        headers.insert(ACCEPT, text.parse().unwrap());
        let custom = Accept::of(
            &headers,
            Offer::Objects {
                protobuf: false,
                table: true,
            },
        );
        assert_eq!(custom.unwrap().encoding, Encoding::Protobuf);
        assert_eq!(Accept::of(&headers, Offer::Plain).unwrap_err().code, 406);
    }

    #[test]
    fn what_is_not_kept_has_no_table() {
        let review = Offer::Objects {
            protobuf: true,
            table: false,
        };
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, text.parse().unwrap());
            Accept::of(&headers, review)
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(read(table).unwrap_err().code, 406);
        let plain = read(&format!("{table}, application/json")).unwrap();
        assert_eq!(plain.form, Form::Object);
    }

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
