//! What an operator says of `PodSecurity` as a whole: a `PodSecurityConfiguration` in an
//! `AdmissionConfiguration`, under upstream's names. What namespaces say by labels comes before
//! its defaults; its exemptions hold for all.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::editions::{Edition, Standard};

/// The standard and the edition of it that a mode has.
pub type Level = (Standard, Edition);

/// What holds where a namespace says nothing, and for whom nothing holds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PodSecurityConfig {
    api_version: String,
    kind: String,
    defaults: Defaults,
    /// For whom nothing holds.
    pub exemptions: Exemptions,
}

/// The labels that a namespace is taken to have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

/// Whose pods are let pass, whatever they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Exemptions {
    /// Users.
    pub usernames: Vec<String>,
    /// Runtime classes of pods.
    pub runtime_classes: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
}

/// The file: what it says of all plugins.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmissionConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    configuration: Option<Value>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the admission configuration {}: {why}", path.display())]
pub struct ConfigError {
    path: PathBuf,
    why: String,
}

// === impl PodSecurityConfig ===

impl PodSecurityConfig {
    /// Reads the file that is named to the server, and what it refers to.
    ///
    /// # Errors
    /// [`ConfigError`] says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let fault = |why: String| ConfigError {
            path: path.to_owned(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|why| fault(why.to_string()))?;
        let near = |name: &str| {
            let there = path.parent().unwrap_or(Path::new("/")).join(name);
            std::fs::read_to_string(&there).map_err(|why| format!("{}: {why}", there.display()))
        };
        Self::parse(&text, near).map_err(fault)
    }

    /// Reads the text of the file; `other` reads files beside it.
    fn parse(text: &str, other: impl Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let yaml = |why: serde_saphyr::Error| why.to_string();
        let file: AdmissionConfiguration = serde_saphyr::from_str(text).map_err(yaml)?;
        let known = [
            "apiserver.config.k8s.io/v1",
            "apiserver.config.k8s.io/v1alpha1",
        ];
        if !known.contains(&file.api_version.as_str()) || file.kind != "AdmissionConfiguration" {
            return Err(
                "it must be an AdmissionConfiguration of apiserver.config.k8s.io/v1".to_owned(),
            );
        }
        let mut config = Self::default();
        for plugin in file.plugins {
            if plugin.name != "PodSecurity" {
                return Err(format!(
                    "the plugin {} takes no configuration here; PodSecurity does",
                    plugin.name
                ));
            }
            config = match (plugin.configuration, plugin.path.as_str()) {
                (Some(given), _) => serde_json::from_value(given).map_err(|why| why.to_string())?,
                (None, "") => continue,
                (None, path) => serde_saphyr::from_str(&other(path)?).map_err(yaml)?,
            };
            config.check()?;
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let known = self
            .api_version
            .starts_with("pod-security.admission.config.k8s.io/v1");
        if !known || self.kind != "PodSecurityConfiguration" {
            return Err("the configuration of PodSecurity must be a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1".to_owned());
        }
        for mode in ["enforce", "audit", "warn"] {
            let (standard, edition) = self.texts(mode);
            if !standard.is_empty() && Standard::parse(standard).is_none() {
                return Err(format!(
                    "defaults.{mode}: {standard:?} is none of privileged, baseline, restricted"
                ));
            }
            if !edition.is_empty() && Edition::parse(edition).is_none() {
                return Err(format!(
                    "defaults.{mode}-version: {edition:?} must be latest or like v1.30"
                ));
            }
        }
        Ok(())
    }

    fn texts(&self, mode: &str) -> (&str, &str) {
        let Defaults {
            enforce,
            enforce_version,
            audit,
            audit_version,
            warn,
            warn_version,
        } = &self.defaults;
        match mode {
            "enforce" => (enforce, enforce_version),
            "audit" => (audit, audit_version),
            _ => (warn, warn_version),
        }
    }

    /// What holds in a mode where a namespace says nothing.
    pub fn default_of(&self, mode: &str) -> Level {
        let (standard, edition) = self.texts(mode);
        (
            Standard::parse(standard).unwrap_or(Standard::Privileged),
            Edition::parse(edition).unwrap_or(Edition::Latest),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(plugin: &str) -> Result<PodSecurityConfig, String> {
        let file = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugin}"
        );
        PodSecurityConfig::parse(&file, |name| {
            match name {
            "other.yaml" => Ok("apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\ndefaults: {warn: restricted}\n".to_owned()),
            name => Err(format!("{name}: no such file")),
        }
        })
    }

    fn inline(more: &str) -> String {
        format!(
            "- name: PodSecurity\n  configuration: {{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, {more}}}\n"
        )
    }

    #[test]
    fn defaults_and_exemptions_are_read() {
        let text = inline(
            "defaults: {enforce: baseline, enforce-version: v1.30}, exemptions: {namespaces: [kube-system], runtimeClasses: [vm], usernames: [jane]}",
        );
        let config = parse(&text).unwrap();
        assert_eq!(
            config.default_of("enforce"),
            (Standard::Baseline, Edition::Minor(30))
        );
        assert_eq!(
            config.default_of("warn"),
            (Standard::Privileged, Edition::Latest)
        );
        let Exemptions {
            usernames,
            runtime_classes,
            namespaces,
        } = config.exemptions;
        assert_eq!(
            (usernames, runtime_classes, namespaces),
            (
                vec!["jane".into()],
                vec!["vm".into()],
                vec!["kube-system".into()]
            )
        );
        let other = parse("- {name: PodSecurity, path: other.yaml}\n").unwrap();
        assert_eq!(other.default_of("warn").0, Standard::Restricted);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for (plugin, told) in [
            (inline("defaults: {enforce: none}"), "none of privileged"),
            (inline("defaults: {warn-version: '1.30'}"), "like v1.30"),
            (inline("exemption: {}"), "exemption"),
            (
                "- {name: PodSecurity, path: missing.yaml}\n".to_owned(),
                "no such file",
            ),
            (
                "- {name: ImagePolicyWebhook}\n".to_owned(),
                "takes no configuration",
            ),
            (
                "- {name: PodSecurity, configuration: {kind: Pod}}\n".to_owned(),
                "must be a PodSecurityConfiguration",
            ),
        ] {
            let fault = parse(&plugin).unwrap_err();
            assert!(fault.contains(told), "{fault}");
        }
    }
}
