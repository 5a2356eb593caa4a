//! What is a node's own: by verb, resource and name alone, or by what must be looked up.

use super::pod::Used;
use crate::auth::action::Access;
use crate::auth::user::User;

/// The group of all nodes.
pub const NODES: &str = "system:nodes";
/// Before the name of a node, in the name of its user.
const PREFIX: &str = "system:node:";
/// Where nodes say that they live.
pub const LEASES: &str = "kube-node-lease";

/// Whether something is a node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own<'a> {
    /// The role of nodes alone decides.
    ByRole,
    /// It is.
    Yes,
    /// It is, if this holds.
    If(Needs<'a>),
    /// It is not, and why.
    No(String),
}

/// What makes an object a node's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs<'a> {
    /// A pod of the node uses it.
    Used {
        /// As what.
        used: Used,
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A pod of the node uses the claim that is bound to this volume.
    Volume(&'a str),
    /// This attachment is of the node.
    Attachment(&'a str),
}

/// The node that a user is; `None` when it is none.
pub fn node_of(user: &User) -> Option<&str> {
    let name = user.name().strip_prefix(PREFIX)?;
    (!name.is_empty() && user.is_in(NODES)).then_some(name)
}

/// Judges an access by a node.
pub fn judge<'a>(node: &str, access: &Access<'a>) -> Own<'a> {
    match (access.group, access.resource) {
        ("", "secrets") => read_used(access, Used::Secret),
        ("", "configmaps") => read_used(access, Used::ConfigMap),
        ("", "persistentvolumeclaims") if access.subresource == "status" => {
            used(access, Used::Claim)
        }
        ("", "persistentvolumeclaims") => read_used(access, Used::Claim),
        ("resource.k8s.io", "resourceclaims") => read_used(access, Used::ResourceClaim),
        ("", "persistentvolumes") => get_one(access, Needs::Volume(access.name)),
        ("storage.k8s.io", "volumeattachments") => get_one(access, Needs::Attachment(access.name)),
        ("", "serviceaccounts") => token(access),
        ("coordination.k8s.io", "leases") => lease(node, access),
        ("storage.k8s.io", "csinodes") => named_as_node(node, access, "CSINode"),
        ("", "nodes") => node_itself(node, access),
        ("", "pods") => pods(node, access),
        _ => Own::ByRole,
    }
}

fn no(why: impl Into<String>) -> Own<'static> {
    Own::No(why.into())
}

fn used<'a>(access: &Access<'a>, used: Used) -> Own<'a> {
    if access.namespace.is_empty() {
        return no("can only read namespaced object of this type");
    }
    if access.name.is_empty() {
        return no("No Object name found");
    }
    Own::If(Needs::Used {
        used,
        namespace: access.namespace,
        name: access.name,
    })
}

/// Reading of a single object: by name, or by a watch of that name.
fn read_used<'a>(access: &Access<'a>, as_what: Used) -> Own<'a> {
    if !matches!(access.verb, "get" | "list" | "watch") {
        return no("can only read resources of this type");
    }
    if !access.subresource.is_empty() {
        return no("cannot read subresource");
    }
    used(access, as_what)
}

fn get_one<'a>(access: &Access<'a>, needs: Needs<'a>) -> Own<'a> {
    if access.verb != "get" || access.name.is_empty() {
        return no("can only get individual resources of this type");
    }
    if !access.subresource.is_empty() {
        return no("cannot get subresource");
    }
    Own::If(needs)
}

fn token<'a>(access: &Access<'a>) -> Own<'a> {
    if access.verb != "create" || access.subresource != "token" {
        return no("can only create tokens for individual service accounts");
    }
    used(access, Used::ServiceAccount)
}

fn lease(node: &str, access: &Access<'_>) -> Own<'static> {
    if !matches!(
        access.verb,
        "create" | "delete" | "get" | "patch" | "update"
    ) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if access.namespace != LEASES {
        return no(format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    // The name of a new one is in its body, which admission looks at.
    if access.verb != "create" && access.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Own::Yes
}

fn named_as_node(node: &str, access: &Access<'_>, kind: &str) -> Own<'static> {
    if !access.subresource.is_empty() {
        return no(format!("cannot authorize {kind} subresources"));
    }
    if access.verb != "create" && access.name != node {
        return no(format!(
            "can only access {kind} with the same name as the requesting node"
        ));
    }
    Own::Yes
}

/// What a node writes is looked at again by admission, which sees the object.
fn node_itself(node: &str, access: &Access<'_>) -> Own<'static> {
    let reads = matches!(access.verb, "get" | "list" | "watch");
    match (access.subresource, access.name) {
        ("", "") if reads => no(format!(
            "node '{node}' cannot read all nodes, only its own Node object"
        )),
        ("", name) if reads && name != node => no(format!(
            "node '{node}' cannot read '{name}', only its own Node object"
        )),
        ("" | "status", _) => Own::Yes,
        (other, _) => no(format!("cannot use the subresource {other:?} of nodes")),
    }
}

fn pods(node: &str, access: &Access<'_>) -> Own<'static> {
    match (access.subresource, access.verb) {
        ("", "list" | "watch") if access.selected("spec.nodeName") != Some(node) => {
            no("can only list/watch pods with spec.nodeName field selector")
        }
        ("", "get" | "list" | "watch" | "create" | "delete") => Own::Yes,
        ("status", "update" | "patch") | ("eviction", "create") => Own::Yes,
        _ => no("can only read pods, make mirror pods, and report, evict and delete its own"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verb group/resource/subresource namespace name selector`, each `-` when it is empty.
    fn judged(line: &str) -> String {
        let words: Vec<&str> = line
            .split_whitespace()
            .map(|w| if w == "-" { "" } else { w })
            .collect();
        let [verb, path, namespace, name, rest @ ..] = words.as_slice() else {
            panic!("too short: {line}");
        };
        let mut path = path.split('/');
        let access = Access {
            verb,
            group: path.next().unwrap_or_default(),
            resource: path.next().unwrap_or_default(),
            subresource: path.next().unwrap_or_default(),
            namespace,
            name,
            field_selector: rest.first().copied().unwrap_or_default(),
            ..Access::default()
        };
        match judge("n1", &access) {
            Own::No(_) => "no".to_owned(),
            Own::If(Needs::Used { used, .. }) => format!("if {used:?}"),
            Own::If(needs) => format!("if {needs:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_its_own() {
        for (line, expected) in [
            ("get /secrets a s", "if Secret"),
            ("watch /secrets a s metadata.name=s", "if Secret"),
            ("list /secrets a -", "no"),
            ("list /secrets - -", "no"),
            ("delete /secrets a s", "no"),
            ("get /configmaps a c", "if ConfigMap"),
            ("watch /persistentvolumeclaims a c", "if Claim"),
            ("patch /persistentvolumeclaims/status a c", "if Claim"),
            ("get /persistentvolumes - v", r#"if Volume("v")"#),
            ("list /persistentvolumes - -", "no"),
            ("create /serviceaccounts/token a s", "if ServiceAccount"),
            ("get /serviceaccounts a s", "no"),
            ("get coordination.k8s.io/leases kube-node-lease n1", "Yes"),
            ("get coordination.k8s.io/leases kube-node-lease n2", "no"),
            ("get coordination.k8s.io/leases kube-system n1", "no"),
            ("list coordination.k8s.io/leases kube-node-lease -", "no"),
            ("create coordination.k8s.io/leases kube-node-lease -", "Yes"),
            ("get /nodes - n1", "Yes"),
            ("get /nodes - n2", "no"),
            ("watch /nodes - -", "no"),
            ("patch /nodes/status - n1", "Yes"),
            ("get /nodes/proxy - n1", "no"),
            ("watch /pods - - spec.nodeName=n1", "Yes"),
            ("watch /pods - - spec.nodeName=n2", "no"),
            ("list /pods a -", "no"),
            ("get /pods a p", "Yes"),
            ("patch /pods a p", "no"),
            ("create /pods/exec a p", "no"),
            ("get storage.k8s.io/csinodes - n2", "no"),
            (
                "get storage.k8s.io/volumeattachments - x",
                r#"if Attachment("x")"#,
            ),
            ("list /services - -", "ByRole"),
        ] {
            assert_eq!(judged(line), expected, "{line}");
        }
    }

    #[test]
    fn who_is_a_node() {
        let user = |name: &str, group: &str| {
            node_of(&User::authenticated(name, [group])).map(str::to_owned)
        };
        assert_eq!(user("system:node:n1", NODES).as_deref(), Some("n1"));
        assert_eq!(user("system:node:n1", "other"), None);
        assert_eq!(user("system:node:", NODES), None);
        assert_eq!(user("n1", NODES), None);
    }
}
