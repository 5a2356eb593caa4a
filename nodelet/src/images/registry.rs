//! Registries: which endpoints to ask for a reference, how to speak to each, and what their
//! errors mean. The protocol itself is `oci-client`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use oci_client::Reference as OciReference;
use oci_client::client::{
    BlobResponse, ClientConfig, ClientProtocol, LayerDescriptor, SizedStream,
};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::manifest::{DOCKER_INDEX, DOCKER_MANIFEST, DOCUMENT_MAX, OCI_INDEX, OCI_MANIFEST};
use super::reference::Reference;
use crate::runtime::{Credential, ImageError};

/// How long a registry may take to accept a connection, and to send the next bytes.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT: Duration = Duration::from_secs(60);

/// Which registries are spoken to how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Registries (`host` or `host:port`) spoken to in plain HTTP; loopback ones always are.
    pub insecure: Vec<String>,
    /// For a registry, others to ask first.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

/// A conversation with one endpoint about one repository, with one credential.
pub struct Endpoint {
    client: oci_client::Client,
    auth: RegistryAuth,
    /// As the user calls it, for messages.
    subject: String,
    registry: String,
    repository: String,
}

// === impl RegistryConfig ===

impl RegistryConfig {
    /// The hosts to ask for an image, in order.
    pub fn hosts(&self, reference: &Reference) -> Vec<String> {
        let mirrors = self.mirrors.get(&reference.registry).into_iter().flatten();
        mirrors.chain([&reference.registry]).cloned().collect()
    }

    fn is_plain_http(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let loopback = name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
        loopback || name == "localhost" || self.insecure.iter().any(|insecure| insecure == host)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Nothing is sent yet.
    pub fn new(
        config: &RegistryConfig,
        host: &str,
        reference: &Reference,
        credential: Option<&Credential>,
    ) -> Result<Self, ImageError> {
        // reqwest takes the process's provider; the program may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = config.is_plain_http(host);
        let subject = reference.to_string();
        let client = oci_client::Client::try_from(ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(READ_LIMIT),
            user_agent: concat!("peapod/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(|error| error_of(&subject, error))?;
        let auth = match credential {
            None => RegistryAuth::Anonymous,
            Some(Credential::Basic { username, password }) => {
                RegistryAuth::Basic(username.clone(), password.clone())
            }
            Some(Credential::Bearer(token)) => RegistryAuth::Bearer(token.clone()),
        };
        let (registry, repository) = (host.to_owned(), reference.repository.clone());
        Ok(Self {
            client,
            auth,
            subject,
            registry,
            repository,
        })
    }

    /// The index or manifest that a tag or digest leads to, and its digest, verified.
    pub async fn document(&self, tag: &TagOrDigest<'_>) -> Result<(Vec<u8>, String), ImageError> {
        let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
        let reference = self.oci_reference(tag);
        let pulled = self
            .client
            .pull_manifest_raw(&reference, &self.auth, &accepted)
            .await;
        let (bytes, digest) = pulled.map_err(|error| error_of(&self.subject, error))?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let reason = format!("its manifest is larger than {DOCUMENT_MAX} bytes");
            return Err(ImageError::Corrupt {
                subject: self.subject.clone(),
                reason,
            });
        }
        Ok((bytes.to_vec(), digest))
    }

    /// A blob's bytes from an offset on. Nobody has verified them.
    pub async fn blob(
        &self,
        digest: &str,
        offset: u64,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>, ImageError> {
        let reference = self.oci_reference(&TagOrDigest::Digest(digest));
        let layer = LayerDescriptor {
            digest,
            urls: &None,
        };
        // Asked for as a part even when it is the whole: the client would hash a whole blob,
        // which containerd does anyway.
        let response = self
            .client
            .pull_blob_stream_partial(&reference, &layer, offset, None)
            .await;
        match response.map_err(|error| error_of(&self.subject, error))? {
            BlobResponse::Partial(stream) => Ok(Box::new(reader(stream))),
            BlobResponse::Full(stream) => {
                let mut whole = reader(stream);
                let mut skipped = (&mut whole).take(offset);
                let skip = tokio::io::copy(&mut skipped, &mut tokio::io::sink()).await;
                skip.map_err(|error| self.unavailable(&error))?;
                Ok(Box::new(whole))
            }
        }
    }

    fn oci_reference(&self, tag: &TagOrDigest<'_>) -> OciReference {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        match *tag {
            TagOrDigest::Tag(tag) => OciReference::with_tag(registry, repository, tag.to_owned()),
            TagOrDigest::Digest(digest) => {
                OciReference::with_digest(registry, repository, digest.to_owned())
            }
        }
    }

    fn unavailable(&self, error: &dyn std::fmt::Display) -> ImageError {
        ImageError::Unavailable {
            reference: self.subject.clone(),
            reason: error.to_string(),
        }
    }
}

/// What to ask a repository for.
pub enum TagOrDigest<'a> {
    /// A tag.
    Tag(&'a str),
    /// A digest.
    Digest(&'a str),
}

fn reader(stream: SizedStream) -> impl AsyncRead + Send + Unpin {
    StreamReader::new(stream.stream.map_err(std::io::Error::other).boxed())
}

/// What a registry's error means.
fn error_of(subject: &str, error: OciDistributionError) -> ImageError {
    use OciDistributionError as E;
    let reference = subject.to_owned();
    let unauthorized = |reason: String| ImageError::Unauthorized {
        reference: reference.clone(),
        reason,
    };
    let not_found = |reason: String| ImageError::NotFound {
        reference: reference.clone(),
        reason,
    };
    match error {
        E::UnauthorizedError { .. } => unauthorized("the registry wants a login".to_owned()),
        E::AuthenticationFailure(reason) => {
            unauthorized(format!("the registry refused the login: {}", reason.trim()))
        }
        E::ServerError {
            code: 401 | 403,
            message,
            ..
        } => unauthorized(message),
        E::ServerError {
            code: 404, message, ..
        } => not_found(message),
        E::ImageManifestNotFoundError(reason) => not_found(reason),
        E::DigestError(error) => ImageError::Corrupt {
            subject: reference,
            reason: error.to_string(),
        },
        E::RegistryError { envelope, .. } => {
            let reason = envelope.to_string();
            let codes: Vec<&OciErrorCode> = envelope.errors.iter().map(|e| &e.code).collect();
            let any = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
            if any(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
            ]) {
                not_found("the registry does not know it (manifest unknown)".to_owned())
            } else if any(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                unauthorized(reason)
            } else {
                ImageError::Unavailable { reference, reason }
            }
        }
        other => ImageError::Unavailable {
            reference,
            reason: innermost(&other),
        },
    }
}

/// "error sending request" says less than "connection refused".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_configured_registries_are_plain_http() {
        let insecure = vec!["registry.lan:5000".to_owned()];
        let config = RegistryConfig {
            insecure,
            ..RegistryConfig::default()
        };
        for (host, plain) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("registry.lan:5000", true),
            ("registry.lan", false),
            ("docker.io", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(config.is_plain_http(host), plain, "{host}");
        }
    }

    #[test]
    fn mirrors_come_first() {
        let mirrors = BTreeMap::from([("docker.io".to_owned(), vec!["mirror.lan".to_owned()])]);
        let config = RegistryConfig {
            mirrors,
            ..RegistryConfig::default()
        };
        let hosts = |text: &str| config.hosts(&text.parse().unwrap());
        assert_eq!(hosts("nginx"), ["mirror.lan", "docker.io"]);
        assert_eq!(hosts("quay.io/a/b"), ["quay.io"]);
    }
}
