//! Kinds that need no rules of their own: stored, checked against their schema, watched. Their
//! names and verbs are read from the table of the API's resources.

use peapod_schema::resources;

use crate::registry::{Kind, ScalePaths, Subresource};
use crate::rest::target::Verb;

/// Groups and resources served from the table alone.
const STORED: &[(&str, &str)] = &[
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "nodes"),
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "podtemplates"),
    ("", "replicationcontrollers"),
    ("", "resourcequotas"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "controllerrevisions"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("coordination.k8s.io", "leases"),
    ("discovery.k8s.io", "endpointslices"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ipaddresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("networking.k8s.io", "servicecidrs"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Adds those that no file of their own declares yet.
pub fn add(kinds: &mut Vec<Kind>) {
    for &(group, plural) in STORED {
        let declared = |kind: &Kind| kind.group == group && kind.plural == plural;
        if !kinds.iter().any(declared) {
            kinds.extend(from_table(group, plural));
        }
    }
}

/// The kind of a resource as the table has it, with its generic subresources.
pub fn from_table(group: &str, plural: &str) -> Option<Kind> {
    let row = resources::all().find(|row| row.group == group && row.resource == plural)?;
    let make = match row.namespaced {
        true => Kind::namespaced,
        false => Kind::cluster,
    };
    let mut kind = make(row.group, row.version, row.kind, plural)
        .short_names(&row.short_names().collect::<Vec<_>>())
        .categories(&row.categories().collect::<Vec<_>>())
        .verbs(&row.verbs().filter_map(Verb::parse).collect::<Vec<_>>());
    if has_row(group, plural, "status") {
        kind = match plural {
            // Nodes register with their status.
            "nodes" => kind.with_status_kept_on_create(),
            _ => kind.with_status(),
        };
    }
    if has_row(group, plural, "scale") {
        kind = kind.subresource(Subresource::Scale(ScalePaths::default()));
    }
    if plural == "serviceaccounts" {
        kind = kind.subresource(Subresource::Token);
    }
    if matches!(group, "rbac.authorization.k8s.io") {
        kind = kind.name_rule(peapod_api::names::path_segment);
    }
    if matches!(group, "apps" | "batch" | "policy" | "networking.k8s.io") {
        kind = kind.with_generation();
    }
    if matches!(group, "authentication.k8s.io" | "authorization.k8s.io") {
        kind = kind.ephemeral();
    }
    Some(kind)
}

fn has_row(group: &str, plural: &str, subresource: &str) -> bool {
    let name = format!("{plural}/{subresource}");
    resources::all().any(|row| row.group == group && row.resource == name)
}
