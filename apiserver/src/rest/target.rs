//! From a path and a method to what is asked: which resource, which object, which verb.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::status::{Result, Status};

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A resource, one of its objects, or a subresource.
    Resource(ResourceTarget),
    /// A path of its own: `/version`, `/healthz`, discovery.
    Path(String),
}

/// A resource, one of its objects, or a subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceTarget {
    /// Group; empty for core.
    pub group: String,
    /// Version, as `v1`.
    pub version: String,
    /// Namespace; empty for cluster-scoped objects and for lists over all namespaces.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Name of the object; empty for the collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// What follows the subresource, without a leading slash (`proxy` takes a path).
    pub rest: String,
    /// Whether the path had the deprecated `watch/` prefix.
    pub watch: bool,
}

/// What is done, under the names that authorisation and metrics use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// One object.
    Get,
    /// A collection.
    List,
    /// Changes of a collection.
    Watch,
    /// A new object.
    Create,
    /// A whole object replaced.
    Update,
    /// Parts of an object replaced.
    Patch,
    /// One object removed.
    Delete,
    /// A collection removed.
    DeleteCollection,
}

// === impl Target ===

impl Target {
    /// Reads the path of a request. Percent-encoded segments are decoded; an escape that is not
    /// UTF-8 is refused.
    pub fn of_path(path: &str) -> Result<Self> {
        let mut segments = Vec::new();
        for raw in path.split('/').filter(|raw| !raw.is_empty()) {
            let decoded = percent_decode_str(raw)
                .decode_utf8()
                .map_err(|_| Status::bad_request(format!("path segment {raw:?} is not UTF-8")))?;
            segments.push(decoded.into_owned());
        }
        let found = match segments.first().map(String::as_str) {
            Some("api") if segments.len() > 2 => ResourceTarget::of("", &segments[1..]),
            Some("apis") if segments.len() > 3 => ResourceTarget::of(&segments[1], &segments[2..]),
            _ => None,
        };
        Ok(match found {
            Some(resource) => Self::Resource(resource),
            None => Self::Path(path.to_owned()),
        })
    }
}

// === impl ResourceTarget ===

impl ResourceTarget {
    /// `segments` start at the version.
    fn of(group: &str, segments: &[String]) -> Option<Self> {
        let (version, mut rest) = segments.split_first()?;
        let watch = rest.first().is_some_and(|first| first == "watch") && rest.len() > 1;
        if watch {
            rest = &rest[1..];
        }
        let mut target = Self {
            group: group.to_owned(),
            version: version.clone(),
            watch,
            ..Self::default()
        };
        // `namespaces/NAME/status` and `/finalize` are of the namespace; all other third
        // segments are resources inside of it.
        if let [first, namespace, third, ..] = rest
            && first == "namespaces"
            && !(third == "status" || third == "finalize")
        {
            target.namespace = namespace.clone();
            rest = &rest[2..];
        }
        target.resource = rest.first()?.clone();
        target.name = rest.get(1).cloned().unwrap_or_default();
        target.subresource = rest.get(2).cloned().unwrap_or_default();
        target.rest = rest.get(3..).unwrap_or_default().join("/");
        Some(target)
    }

    /// The verb of a method on this target. `watch` is the query's parameter.
    pub fn verb(&self, method: &Method, watch: bool) -> Result<Verb> {
        let named = !self.name.is_empty();
        Ok(match *method {
            Method::GET | Method::HEAD if self.watch || (watch && !named) => Verb::Watch,
            Method::GET | Method::HEAD if named => Verb::Get,
            Method::GET | Method::HEAD => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT if named => Verb::Update,
            Method::PATCH if named => Verb::Patch,
            Method::DELETE if named => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            // As safe as GET (RFC 9110, section 9.2.1): who may read what runs behind a proxy may
            // ask it what it offers.
            Method::OPTIONS if named && self.subresource == "proxy" => Verb::Get,
            _ => return Err(Status::method_not_allowed()),
        })
    }
}

// === impl Verb ===

impl Verb {
    /// Reads what [`Self::as_str`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "get" => Self::Get,
            "list" => Self::List,
            "watch" => Self::Watch,
            "create" => Self::Create,
            "update" => Self::Update,
            "patch" => Self::Patch,
            "delete" => Self::Delete,
            "deletecollection" => Self::DeleteCollection,
            _ => return None,
        })
    }

    /// As discovery, authorisation and audit spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// As the `verb` label of the metrics spells it.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Watch => "WATCH",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::DeleteCollection => "DELETECOLLECTION",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(path: &str) -> String {
        match Target::of_path(path).unwrap() {
            Target::Path(path) => format!("path {path}"),
            Target::Resource(t) => format!(
                "{}/{} ns={} {} {} sub={} rest={}{}",
                t.group,
                t.version,
                t.namespace,
                t.resource,
                t.name,
                t.subresource,
                t.rest,
                if t.watch { " watch" } else { "" }
            ),
        }
    }

    #[test]
    fn reads_paths() {
        for (path, expected) in [
            ("/", "path /"),
            ("/api/v1", "path /api/v1"),
            ("/apis/apps/v1", "path /apis/apps/v1"),
            ("/api/v1/pods", "/v1 ns= pods  sub= rest="),
            ("/api/v1/namespaces", "/v1 ns= namespaces  sub= rest="),
            ("/api/v1/namespaces/a", "/v1 ns= namespaces a sub= rest="),
            (
                "/api/v1/namespaces/a/finalize",
                "/v1 ns= namespaces a sub=finalize rest=",
            ),
            (
                "/api/v1/namespaces/a/pods/b/log",
                "/v1 ns=a pods b sub=log rest=",
            ),
            (
                "/api/v1/namespaces/a/services/b/proxy/x/y",
                "/v1 ns=a services b sub=proxy rest=x/y",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/b",
                "apps/v1 ns=a deployments b sub= rest=",
            ),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io/v1 ns= clusterroles system:node sub= rest=",
            ),
            ("/api/v1/watch/pods", "/v1 ns= pods  sub= rest= watch"),
        ] {
            assert_eq!(shown(path), expected, "{path}");
        }
    }

    #[test]
    fn verbs_by_method() {
        let pods = ResourceTarget {
            resource: "pods".into(),
            ..Default::default()
        };
        let one = ResourceTarget {
            name: "a".into(),
            ..pods.clone()
        };
        assert_eq!(pods.verb(&Method::GET, false), Ok(Verb::List));
        assert_eq!(pods.verb(&Method::GET, true), Ok(Verb::Watch));
        assert_eq!(one.verb(&Method::GET, false), Ok(Verb::Get));
        assert_eq!(
            pods.verb(&Method::DELETE, false),
            Ok(Verb::DeleteCollection)
        );
        assert!(pods.verb(&Method::PUT, false).is_err());
        assert!(one.verb(&Method::OPTIONS, false).is_err());
        let proxy = ResourceTarget {
            subresource: "proxy".into(),
            ..one
        };
        assert_eq!(proxy.verb(&Method::OPTIONS, false), Ok(Verb::Get));
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/[a-z%0-9.:]{0,8}){0,9}") {
            let _ = Target::of_path(&path);
        }
    }
}
