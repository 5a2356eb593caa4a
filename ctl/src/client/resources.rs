//! What the server serves, and which of it a word means: `po`, `deploy`, `pods.v1.`,
//! `deployments.apps`, a kind or a category.

use anyhow::{Result, anyhow, bail};
use kube::Client;
use serde::Deserialize;

use super::session::server_error;

/// One served resource, in the version that the server prefers.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// API group; empty for the core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl Resource {
    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            return self.version.clone();
        }
        format!("{}/{}", self.group, self.version)
    }

    /// The name in messages: `pods`, `deployments.apps`.
    pub fn qualified(&self, name: &str) -> String {
        if self.group.is_empty() {
            return name.to_owned();
        }
        format!("{name}.{}", self.group)
    }

    /// `pod/x`, `deployment.apps/x`, as kubectl names objects.
    pub fn object_name(&self, name: &str) -> String {
        format!("{}/{name}", self.qualified(&self.singular))
    }

    /// Path of the collection; `None` is every namespace.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let base = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{base}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{base}/{}", self.plural),
        }
    }

    /// Path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.collection(Some(namespace)))
    }
}

/// Everything that the server serves.
pub struct Resources(Vec<Resource>);

impl Resources {
    /// Asks the server, by two requests.
    pub async fn discover(client: &Client) -> Result<Self> {
        let mut all = Vec::new();
        for path in ["/api", "/apis"] {
            let request = http::Request::get(path)
                .header("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
                .body(Vec::new())?;
            let groups: GroupList = client.request(request).await.map_err(server_error)?;
            all.extend(groups.resources());
        }
        Ok(Self(all))
    }

    /// The resource that a word means.
    pub fn find(&self, word: &str) -> Result<&Resource> {
        let lower = word.to_lowercase();
        let (name, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let fits = |r: &&Resource| {
            let named = r.plural == name
                || r.singular == name
                || r.kind.to_lowercase() == name
                || r.short_names.iter().any(|short| short == name);
            let grouped = rest.is_empty()
                || r.group == rest
                || rest.trim_end_matches('.') == r.version
                || rest == format!("{}.{}", r.version, r.group);
            named && grouped
        };
        self.0.iter().find(fits).ok_or_else(|| {
            anyhow!("the server doesn't have a resource type \"{word}\"; see `peapod get --help` or `kubectl api-resources`")
        })
    }

    /// The resources of a category, such as `all`.
    pub fn category(&self, word: &str) -> Vec<&Resource> {
        self.0
            .iter()
            .filter(|r| r.categories.iter().any(|c| c == word))
            .collect()
    }

    /// The resource of a manifest's kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Result<&Resource> {
        if api_version.is_empty() || kind.is_empty() {
            bail!("a manifest lacks its apiVersion or kind");
        }
        let found = self
            .0
            .iter()
            .find(|r| r.kind == kind && r.api_version() == api_version);
        found.ok_or_else(|| {
            anyhow!("no matches for kind \"{kind}\" in version \"{api_version}\"; is its definition installed?")
        })
    }
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Discovered>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered {
    resource: String,
    response_kind: Kind,
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

impl GroupList {
    /// The resources of every version, the preferred first.
    fn resources(self) -> Vec<Resource> {
        let mut all = Vec::new();
        for group in self.items {
            for version in group.versions {
                for found in version.resources {
                    all.push(found.named(&group.metadata.name, &version.version));
                }
            }
        }
        all
    }
}

impl Discovered {
    fn named(self, group: &str, version: &str) -> Resource {
        Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: self.resource,
            singular: self.singular_resource,
            kind: self.response_kind.kind,
            namespaced: self.scope == "Namespaced",
            short_names: self.short_names,
            categories: self.categories,
            verbs: self.verbs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        let text = r#"{"items":[
          {"metadata":{"name":""},"versions":[{"version":"v1","resources":[
            {"resource":"pods","responseKind":{"kind":"Pod"},"scope":"Namespaced","singularResource":"pod","shortNames":["po"],"categories":["all"]},
            {"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event"}]}]},
          {"metadata":{"name":"events.k8s.io"},"versions":[{"version":"v1","resources":[
            {"resource":"events","responseKind":{"kind":"Event"},"scope":"Namespaced","singularResource":"event"}]}]}]}"#;
        Resources(serde_json::from_str::<GroupList>(text).unwrap().resources())
    }

    #[test]
    fn words() {
        let all = resources();
        for word in ["po", "pod", "pods", "Pod", "pods.v1."] {
            assert_eq!(all.find(word).unwrap().plural, "pods", "{word}");
        }
        assert_eq!(all.find("events").unwrap().group, "");
        assert_eq!(
            all.find("events.events.k8s.io").unwrap().group,
            "events.k8s.io"
        );
        assert!(all.find("pad").is_err());
        assert_eq!(all.category("all").len(), 1);
    }

    #[test]
    fn paths() {
        let all = resources();
        let pods = all.find("po").unwrap();
        assert_eq!(pods.object("ns", "x"), "/api/v1/namespaces/ns/pods/x");
        assert_eq!(pods.collection(None), "/api/v1/pods");
        let events = all.find("events.events.k8s.io").unwrap();
        assert_eq!(events.collection(None), "/apis/events.k8s.io/v1/events");
    }
}
