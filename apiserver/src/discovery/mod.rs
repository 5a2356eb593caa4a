//! Discovery: what is served, told in three forms: a document per level, the aggregated list
//! ([`aggregated`]), and the legacy `/api`.

mod aggregated;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::aggregation::Remote;
use crate::config::Config;
use crate::registry::{Kind, Registry, Resource};
use crate::rest::call::Reply;
use crate::rest::encode;
use crate::rest::negotiate::{Accept, Form};
use crate::rest::target::Verb;
use crate::status::{Result, Status};

/// What is told of.
#[derive(Clone, Copy)]
pub struct Served<'a> {
    /// What this server has.
    pub registry: &'a Registry,
    /// What other servers have.
    pub remotes: &'a [Remote],
    /// Where this server is.
    pub config: &'a Config,
}

// === impl Served ===

impl Served<'_> {
    /// Answers a path of discovery; `None` when it is none.
    pub fn answer(self, path: &str, accept: Accept, headers: &HeaderMap) -> Option<Result<Reply>> {
        let Self {
            registry, remotes, ..
        } = self;
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let found = match segments[..] {
            ["api" | "apis"] if accept.form == Form::Discovery => {
                let names = match segments[0] {
                    "api" => vec![(String::new(), vec!["v1".to_owned()])],
                    _ => named_groups(registry, remotes),
                };
                return Some(aggregated::reply(self, &names, accept, headers));
            }
            ["api"] => Some(legacy_versions(self.config)),
            ["apis"] => Some(groups(registry, remotes)),
            ["api", version] => resources(registry, "", version),
            ["apis", group] => group_of(registry, remotes, group),
            ["apis", group, version] if !group.is_empty() => resources(registry, group, version),
            _ => return None,
        };
        Some(found.ok_or_else(Status::no_such_path).and_then(|document| {
            let body = encode::value(&document, accept)?;
            let content_type = accept.encoding.content_type();
            Ok(Reply::of(StatusCode::OK, content_type, body))
        }))
    }
}

fn legacy_versions(config: &Config) -> Value {
    let address = format!("{}:{}", config.advertise_address, config.secure_port);
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// The named groups, each with its versions, the preferred one first; those of other servers
/// last.
fn named_groups(registry: &Registry, remotes: &[Remote]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let remote = remotes
        .iter()
        .map(|one| (one.group.clone(), one.version.clone()));
    for (group, version) in registry.versions().into_iter().chain(remote) {
        if group.is_empty() {
            continue;
        }
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let shown =
        |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(shown).collect();
    json!({
        "name": name,
        "versions": versions,
        "preferredVersion": versions.first(),
    })
}

fn groups(registry: &Registry, remotes: &[Remote]) -> Value {
    let groups = named_groups(registry, remotes);
    let groups = groups.iter().map(|(name, versions)| group(name, versions));
    json!({
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": groups.collect::<Vec<_>>(),
    })
}

fn group_of(registry: &Registry, remotes: &[Remote], name: &str) -> Option<Value> {
    let groups = named_groups(registry, remotes);
    let (name, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut document = group(name, versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.of_version(group, version);
    let all: Vec<Value> = found.iter().flat_map(|r| flat(r)).collect();
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    (!all.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": all,
        })
    })
}

/// A resource and its subresources, as an `APIResourceList` has them.
fn flat(resource: &Resource) -> Vec<Value> {
    let kind = &resource.kind;
    let mut own = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced(),
        "kind": kind.kind,
        "verbs": verbs(&kind.verbs),
    });
    for (field, names) in [
        ("shortNames", &kind.short_names),
        ("categories", &kind.categories),
    ] {
        if !names.is_empty() {
            own[field] = names.clone().into();
        }
    }
    if !kind.ephemeral {
        own["storageVersionHash"] = storage_version_hash(kind).into();
    }
    let mut all = vec![own];
    for subresource in &kind.subresources {
        let mut document = json!({
            "name": format!("{}/{}", kind.plural, subresource.name()),
            "singularName": "",
            "namespaced": kind.is_namespaced(),
            "kind": kind.kind,
            "verbs": verbs(subresource.verbs()),
        });
        if let Some((group, version, name)) = subresource.kind() {
            document["kind"] = name.into();
            if group != kind.group || version != kind.version {
                document["group"] = group.into();
                document["version"] = version.into();
            }
        }
        all.push(document);
    }
    all
}

/// Changes when objects are stored as another version; equal for views of the same objects.
fn storage_version_hash(kind: &Kind) -> String {
    let (group, version) = (kind.storage().0, &kind.stored_version);
    let digest = Sha256::digest(format!("{group}/{version}/{}", kind.kind));
    STANDARD.encode(&digest[..8])
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<_> = verbs.iter().map(|verb| verb.as_str()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_with_subresources() {
        let registry = Registry::builtin().unwrap();
        let document = resources(&registry, "", "v1").unwrap();
        let find = |name: &str| {
            let all = document["resources"].as_array().unwrap();
            all.iter().find(|one| one["name"] == name).cloned().unwrap()
        };
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert!(find("bindings")["storageVersionHash"].is_null());
        let hash = |group: &str, version: &str| {
            let document = resources(&registry, group, version).unwrap();
            document["resources"][0]["storageVersionHash"].clone()
        };
        assert_eq!(hash("autoscaling", "v1"), hash("autoscaling", "v2"));
        assert_eq!(hash("events.k8s.io", "v1"), "r2yiGXH7wu8=");
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert_eq!(find("namespaces")["namespaced"], false);
        assert!(resources(&registry, "nosuch", "v1").is_none());
    }
}
