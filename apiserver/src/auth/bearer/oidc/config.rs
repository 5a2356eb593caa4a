//! `AuthenticationConfiguration` of `apiserver.config.k8s.io/v1`: which issuers of tokens are
//! trusted, how their claims become users, and where nobody needs to be anybody.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Most issuers.
const ISSUERS_MAX: usize = 64;

/// The configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    api_version: String,
    kind: String,
    /// The issuers.
    pub jwt: Vec<Jwt>,
    /// Where nobody needs to be anybody; everywhere when it is not said.
    pub anonymous: Option<Anonymous>,
}

/// Whether and where who proves nothing may ask.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Anonymous {
    /// Whether at all.
    pub enabled: bool,
    /// On which paths; none for all.
    pub conditions: Vec<Condition>,
}

/// A path.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Condition {
    /// The path, as `/livez`.
    pub path: String,
}

/// An issuer, and what its tokens say.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    /// Who issues.
    pub issuer: Issuer,
    /// What a token must say.
    #[serde(default)]
    pub claim_validation_rules: Vec<Required>,
    /// How claims become a user.
    pub claim_mappings: Mappings,
}

/// Who issues.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub url: String,
    /// Where its discovery document is, when it is not below the URL.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// The CA of its server, PEM; the machine's when it is empty.
    #[serde(default)]
    pub certificate_authority: String,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

/// A claim and the value that it must have.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Required {
    /// The claim.
    pub claim: String,
    /// Its value.
    #[serde(default)]
    pub required_value: String,
}

/// How claims become a user.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mappings {
    /// The claim of the name.
    pub username: Prefixed,
    /// The claim of the groups.
    #[serde(default)]
    pub groups: Option<Prefixed>,
    /// The claim of the UID.
    #[serde(default)]
    pub uid: Option<Plain>,
}

/// A claim, and what is put before its values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prefixed {
    /// The claim.
    pub claim: String,
    /// What is put before its values; it must be said, if only to be empty.
    pub prefix: String,
}

/// A claim.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
    /// The claim.
    pub claim: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the authentication configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that is not understood.
    #[error("the authentication configuration {path} is not usable: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

// === impl Authentication ===

impl Authentication {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|why| ConfigError::Content {
            path: path.to_owned(),
            why,
        })
    }

    /// Reads a configuration in YAML.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|fault| fault.to_string())?;
        let kind = (config.api_version.as_str(), config.kind.as_str());
        let known = ["v1", "v1beta1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
        if !known.iter().any(|one| one == kind.0) || kind.1 != "AuthenticationConfiguration" {
            return Err("it must be of apiVersion apiserver.config.k8s.io/v1 and kind AuthenticationConfiguration".to_owned());
        }
        if config.jwt.len() > ISSUERS_MAX {
            return Err(format!("it names more than {ISSUERS_MAX} issuers"));
        }
        for (at, jwt) in config.jwt.iter().enumerate() {
            jwt.check().map_err(|why| format!("jwt[{at}]: {why}"))?;
        }
        let mut urls: Vec<&str> = config
            .jwt
            .iter()
            .map(|jwt| jwt.issuer.url.as_str())
            .collect();
        urls.sort_unstable();
        urls.dedup();
        if urls.len() < config.jwt.len() {
            return Err("two issuers have the same url".to_owned());
        }
        Ok(config)
    }

    /// Whether who proves nothing may ask for a path.
    pub fn allows_anonymous(&self, path: &str) -> bool {
        self.anonymous.as_ref().is_none_or(|anonymous| {
            let conditions = &anonymous.conditions;
            let here = conditions.is_empty() || conditions.iter().any(|one| one.path == path);
            anonymous.enabled && here
        })
    }
}

impl Jwt {
    fn check(&self) -> Result<(), String> {
        let secure = |url: &str| url.starts_with("https://");
        if !secure(&self.issuer.url) {
            return Err("issuer.url must be an https URL".to_owned());
        }
        let discovery = &self.issuer.discovery_url;
        if !discovery.is_empty() && (!secure(discovery) || *discovery == self.issuer.url) {
            return Err("issuer.discoveryURL must be an https URL, and not issuer.url".to_owned());
        }
        if self.issuer.audiences.is_empty() {
            return Err("issuer.audiences must name at least one".to_owned());
        }
        if !matches!(self.issuer.audience_match_policy.as_str(), "" | "MatchAny") {
            return Err("issuer.audienceMatchPolicy must be MatchAny".to_owned());
        }
        let groups = self.claim_mappings.groups.as_ref();
        let empty = groups.is_some_and(|groups| groups.claim.is_empty());
        if self.claim_mappings.username.claim.is_empty() || empty {
            return Err(
                "claimMappings must name their claims; expressions are not supported".to_owned(),
            );
        }
        Ok(())
    }

    /// Where the issuer's discovery document is.
    pub fn discovery(&self) -> String {
        match self.issuer.discovery_url.as_str() {
            "" => {
                let url = self.issuer.url.trim_end_matches('/');
                format!("{url}/.well-known/openid-configuration")
            }
            own => own.to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const GOOD: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://id.example.com", audiences: [kubernetes]}
  claimValidationRules: [{claim: hd, requiredValue: example.com}]
  claimMappings:
    username: {claim: sub, prefix: "oidc:"}
    groups: {claim: roles, prefix: ""}
    uid: {claim: uid}
anonymous:
  enabled: true
  conditions: [{path: /livez}]
"#;

    #[test]
    fn what_is_said_is_understood() {
        let config = Authentication::parse(GOOD).unwrap();
        assert_eq!(
            config.jwt[0].discovery(),
            "https://id.example.com/.well-known/openid-configuration"
        );
        assert!(config.allows_anonymous("/livez") && !config.allows_anonymous("/version"));
        let silent = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
        assert!(
            Authentication::parse(silent)
                .unwrap()
                .allows_anonymous("/version")
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (from, to) in [
            ("AuthenticationConfiguration", "Other"),
            ("https://id", "http://id"),
            ("audiences: [kubernetes]", "audiences: []"),
            (", prefix: \"oidc:\"", ""),
            (
                "{claim: sub, prefix: \"oidc:\"}",
                "{expression: claims.sub}",
            ),
            ("conditions:", "unknown:"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            assert!(Authentication::parse(&text).is_err(), "{from} -> {to}");
        }
    }
}
