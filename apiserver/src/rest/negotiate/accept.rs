//! Which form and encoding a client takes: its `Accept` header, beside what an endpoint offers.

use std::cmp::Reverse;

use http::HeaderMap;
use http::header::ACCEPT;
use peapod_schema::{cbor, protobuf};

use super::{Encoding, Form, Look, MetaVersion, takes_gzip};
use crate::registry::Resource;
use crate::status::{Result, Status};

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

/// One of the alternatives of an `Accept` header.
struct Clause {
    encoding: Option<Encoding>,
    form: Option<(Form, MetaVersion)>,
    pretty: bool,
    is_wild: bool,
    /// In thousandths (RFC 9110, 12.4.2); 0 refuses.
    quality: u16,
}

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
}
