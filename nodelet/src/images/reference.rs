//! Image references as users write them, and as registries and containerd want them.
//!
//! The rules are those of the reference grammar of the OCI distribution project and of Docker's
//! familiar names: no registry means `docker.io`, no path there means `library/`, neither tag nor
//! digest means `latest`.

use std::fmt;
use std::str::FromStr;

use crate::runtime::ImageError;

/// Registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// Longest repository name, registry included.
const NAME_MAX: usize = 255;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and optional port.
    pub registry: String,
    /// Path in the registry.
    pub repository: String,
    /// Tag; there is one unless there is a digest.
    pub tag: Option<String>,
    /// `sha256:...`; it decides when it is there.
    pub digest: Option<String>,
}

// === impl Reference ===

impl Reference {
    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same name at this digest.
    pub fn at_digest(&self, digest: &str) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ImageError::InvalidReference {
            reference: text.to_owned(),
            reason: reason.to_owned(),
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon after the last slash is a tag's, one before it a port's.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
        None => (rest, None),
    };
    let (registry, path) = split_registry(name);
    let repository = match path.contains('/') || registry != DEFAULT_REGISTRY {
        true => path.to_owned(),
        false => format!("library/{path}"),
    };
    if registry.len() + repository.len() >= NAME_MAX {
        return Err("the name is longer than 255 characters");
    }
    if !is_registry(registry) {
        return Err("the registry is not a host with an optional port");
    }
    if !repository.split('/').all(is_component) {
        return Err(
            "a repository name must be lower-case letters, digits and single separators \
                    (. _ __ -), in parts separated by /",
        );
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag must be up to 128 letters, digits, '_', '.' or '-', not starting with '.' or '-'",
        );
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err("a digest must be sha256: and 64 hexadecimal digits");
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    let registry = registry.to_owned();
    Ok(Reference {
        registry,
        repository,
        tag,
        digest: digest.map(str::to_owned),
    })
}

/// The first part is a registry when it cannot be a path: it has a dot, a port or an upper-case
/// letter, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            let registry = if first == "index.docker.io" {
                DEFAULT_REGISTRY
            } else {
                first
            };
            (registry, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((v6, port)) => {
            if v6.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            return port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    port.is_none_or(is_port)
        && host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators: Vec<&str> = text.split(alphanumeric).filter(|s| !s.is_empty()).collect();
    text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && separators
            .iter()
            .all(|s| matches!(*s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// Whether this is a digest that we can verify.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_normalised_as_docker_does() {
        let at = |name: &str| format!("{name}@{D}");
        for (written, normal) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("grafana/loki", "docker.io/grafana/loki:latest".to_owned()),
            (
                "index.docker.io/nginx",
                "docker.io/library/nginx:latest".to_owned(),
            ),
            (
                "docker.io/nginx",
                "docker.io/library/nginx:latest".to_owned(),
            ),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app:v1", "localhost:5000/app:v1".to_owned()),
            (
                "127.0.0.1:5000/a/b/c",
                "127.0.0.1:5000/a/b/c:latest".to_owned(),
            ),
            ("[::1]:5000/app", "[::1]:5000/app:latest".to_owned()),
            (
                "registry.k8s.io/e2e-test-images/agnhost:2.53",
                "registry.k8s.io/e2e-test-images/agnhost:2.53".to_owned(),
            ),
            (&at("nginx"), at("docker.io/library/nginx")),
            (&at("nginx:1.27"), at("docker.io/library/nginx:1.27")),
            (
                "a__b/c-d.e---f",
                "docker.io/a__b/c-d.e---f:latest".to_owned(),
            ),
        ] {
            assert_eq!(
                written.parse::<Reference>().unwrap().to_string(),
                normal,
                "{written}"
            );
        }
    }

    #[test]
    fn bad_references_are_refused() {
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx:.x",
            "nginx@sha256:12",
            "nginx@md5:1",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a___b",
            "nginx:a b",
            "x:99999/app",
            "exa_mple.com/app",
            "[::g]/a",
            "a..b/c",
            "ngi\u{e9}x",
            &"a".repeat(300),
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
    }
}
