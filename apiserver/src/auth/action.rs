//! What someone wants to do, as authorisation sees it.

use std::fmt::{self, Display};

use crate::auth::user::User;
use crate::rest::query::Query;
use crate::rest::target::{ResourceTarget, Verb};

/// What someone wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Something with a resource.
    Resource(Access<'a>),
    /// Something with another path.
    Path {
        /// The method, in lower case.
        verb: &'a str,
        /// The path, as `/healthz`.
        path: &'a str,
    },
}

/// A verb on a resource. Fields that are not known are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access<'a> {
    /// A verb of the API (`get`, `list`, ...), or one that only permissions know: `bind`,
    /// `impersonate`, `approve`.
    pub verb: &'a str,
    /// Group; empty for core.
    pub group: &'a str,
    /// Version, as `v1`.
    pub version: &'a str,
    /// Plural name of the resource.
    pub resource: &'a str,
    /// Subresource; empty for the object itself.
    pub subresource: &'a str,
    /// Namespace; empty for what is in none, and for all namespaces.
    pub namespace: &'a str,
    /// Name of the object; empty for a collection.
    pub name: &'a str,
    /// The field selector of a list, watch or deletion of a collection.
    pub field_selector: &'a str,
}

// === impl Action ===

impl Action<'_> {
    /// kube-apiserver's sentence for a refusal.
    pub fn refusal(&self, user: &User) -> String {
        let user = user.name();
        match self {
            Self::Path { verb, path } => format!("User {user:?} cannot {verb} path {path:?}"),
            Self::Resource(access) => {
                let place = match access.namespace {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                format!(
                    "User {user:?} cannot {} resource \"{}\" in API group {:?} {place}",
                    access.verb,
                    access.full_resource(),
                    access.group,
                )
            }
        }
    }
}

// === impl Access ===

impl<'a> Access<'a> {
    /// What a request on a resource asks for.
    pub fn of(verb: Verb, target: &'a ResourceTarget, query: &'a Query) -> Self {
        let field_selector = match verb {
            Verb::List | Verb::Watch | Verb::DeleteCollection => query.get("fieldSelector"),
            _ => "",
        };
        let mut access = Self {
            verb: verb.as_str(),
            group: &target.group,
            version: &target.version,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            field_selector,
        };
        if access.name.is_empty() {
            access.name = access.selected("metadata.name").unwrap_or_default();
        }
        // A namespace counts as being in itself, so that a role in it can grant it.
        if access.is_on("", "namespaces") && !target.name.is_empty() {
            access.namespace = &target.name;
        }
        access
    }

    /// What a proxied request asks of a node, where permissions tell it apart from all else that
    /// a node serves: `get` of `nodes/csi`, the tunnel to a storage driver (`proxy/csi/DRIVER`).
    pub fn finer(&self, target: &ResourceTarget) -> Option<Self> {
        let proxied = self.is_on("", "nodes") && self.subresource == "proxy" && self.verb == "get";
        let driver = target.rest.strip_prefix("csi/")?;
        let plain = !driver.is_empty() && !driver.contains('/') && !driver.starts_with('.');
        // `NAME:PORT` is another server on the node.
        let agent = !self.name.contains(':');
        (proxied && plain && agent).then_some(Self {
            subresource: "csi",
            ..*self
        })
    }

    /// Whether it is about a resource or one of its subresources.
    pub fn is_on(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// The value that the field selector demands of a field.
    pub fn selected(&self, field: &str) -> Option<&'a str> {
        self.field_selector.split(',').find_map(|term| {
            let (name, value) = term.split_once('=')?;
            (name == field).then(|| value.trim_start_matches('='))
        })
    }

    /// `pods`, or `pods/log`.
    pub fn full_resource(&self) -> impl Display + use<'a> {
        FullResource(self.resource, self.subresource)
    }
}

struct FullResource<'a>(&'a str, &'a str);

impl Display for FullResource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)?;
        match self.1 {
            "" => Ok(()),
            subresource => write!(f, "/{subresource}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::target::Target;
    use http::Method;

    #[test]
    fn the_tunnel_to_a_driver_is_told_apart() {
        let query = Query::of(None);
        let finer = |path: &str| {
            let Target::Resource(target) = Target::of_path(path).unwrap() else {
                panic!("{path} is no resource");
            };
            let access = Access::of(Verb::Get, &target, &query);
            access
                .finer(&target)
                .map(|finer| finer.full_resource().to_string())
        };
        let tunnel = "/api/v1/nodes/n1/proxy/csi/disk.example.com";
        assert_eq!(finer(tunnel).as_deref(), Some("nodes/csi"));
        for other in [
            "/api/v1/nodes/n1/proxy/exec/a/b/c",
            "/api/v1/nodes/n1/proxy/csi/",
            "/api/v1/nodes/n1/proxy/csi/..",
            "/api/v1/nodes/n1/proxy/csi/../exec/a/b/c",
            "/api/v1/nodes/n1/proxy/csi/a%2Fb",
            "/api/v1/nodes/n1:8080/proxy/csi/a",
            "/api/v1/namespaces/a/pods/p/proxy/csi/a",
        ] {
            assert_eq!(finer(other), None, "{other}");
        }
    }

    fn refusal(method: Method, path: &str, query: &str) -> String {
        let query = Query::of(Some(query));
        let Target::Resource(target) = Target::of_path(path).unwrap() else {
            panic!("{path} is no resource");
        };
        let verb = target.verb(&method, query.flag("watch").unwrap()).unwrap();
        let access = Access::of(verb, &target, &query);
        let named = match access.name {
            "" => String::new(),
            name => format!("{name}: "),
        };
        let user = User::authenticated("x", ["g"]);
        named + &Action::Resource(access).refusal(&user)
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        for (method, path, query, expected) in [
            (
                Method::GET,
                "/api/v1/namespaces/y/pods",
                "",
                r#"User "x" cannot list resource "pods" in API group "" in the namespace "y""#,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/y/pods/p/log",
                "",
                r#"p: User "x" cannot get resource "pods/log" in API group "" in the namespace "y""#,
            ),
            (
                Method::GET,
                "/api/v1/pods",
                "watch=1&fieldSelector=metadata.name%3Dp,spec.nodeName%3Dn",
                r#"p: User "x" cannot watch resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/y/deployments",
                "",
                r#"User "x" cannot deletecollection resource "deployments" in API group "apps" in the namespace "y""#,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/y",
                "",
                r#"y: User "x" cannot get resource "namespaces" in API group "" in the namespace "y""#,
            ),
            (
                Method::GET,
                "/api/v1/nodes",
                "fieldSelector=metadata.name!%3Dp",
                r#"User "x" cannot list resource "nodes" in API group "" at the cluster scope"#,
            ),
        ] {
            assert_eq!(refusal(method, path, query), expected);
        }
    }
}
