//! From a definition to the kinds that its versions are served as.

use std::cmp::Reverse;
use std::sync::{Arc, Weak};

use peapod_schema::Schema;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::conversion::Webhook;
use super::objects::{Conversion, CustomObjects};
use crate::api::Api;
use crate::registry::json_path::JsonPath;
use crate::registry::{Column, Kind, Resource, ScalePaths, Scope, Subresource, kinds, value};
use crate::rest::target::Verb;

/// The resources of a definition, the preferred version first; none while its names are not
/// accepted. `edition` is what they are known by; watches of them end with `withdrawn`.
pub fn resources(
    definition: &Value,
    edition: &str,
    withdrawn: &CancellationToken,
    api: &Weak<Api>,
) -> Vec<Arc<Resource>> {
    if !super::is_true(definition, "Established") {
        return Vec::new();
    }
    let versions = value::list(definition, "spec.versions").iter();
    let mut served: Vec<&Value> = versions
        .filter(|version| value::truth(version, "served"))
        .collect();
    served.sort_by_key(|version| Reverse(priority(value::text(version, "name"))));
    let webhook = Webhook::of(definition, api.clone()).map(Arc::new);
    let resources = served.into_iter().map(|version| {
        let mut resource = resource(definition, version, webhook.clone());
        edition.clone_into(&mut resource.edition);
        resource.withdrawn = withdrawn.clone();
        Arc::new(resource)
    });
    resources.collect()
}

/// What the objects of a definition are stored as, served or not: what has been stored since then is
/// read and written without anybody's conversion.
pub fn stored(definition: &Value, api: &Weak<Api>) -> Option<Resource> {
    let name = super::storage_version(definition);
    let mut versions = value::list(definition, "spec.versions").iter();
    let version = versions.find(|version| value::text(version, "name") == name)?;
    let webhook = Webhook::of(definition, api.clone()).map(Arc::new);
    Some(resource(definition, version, webhook))
}

/// How versions are ordered: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, then all others by
/// name.
pub fn priority(version: &str) -> (u8, u64, u64, Reverse<String>) {
    let others = (0, 0, 0, Reverse(version.to_owned()));
    let Some(rest) = version.strip_prefix('v') else {
        return others;
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (major, tail) = rest.split_at(digits);
    let Ok(major) = major.parse::<u64>() else {
        return others;
    };
    let none = Reverse(String::new());
    if tail.is_empty() {
        return (3, major, 0, none);
    }
    for (word, rank) in [("beta", 2), ("alpha", 1)] {
        if let Some(Ok(minor)) = tail.strip_prefix(word).map(str::parse) {
            return (rank, major, minor, none);
        }
    }
    others
}

fn resource(definition: &Value, version: &Value, webhook: Option<Arc<Webhook>>) -> Resource {
    let group = value::text(definition, "spec.group");
    let names = &definition["status"]["acceptedNames"];
    let kind_name = value::text(names, "kind");
    let version_name = value::text(version, "name");
    let document = &version["schema"]["openAPIV3Schema"];
    let reversed: Vec<&str> = group.split('.').rev().collect();
    let published = format!("{}.{version_name}.{kind_name}", reversed.join("."));
    let schema = Schema::of_custom(&published, document, kinds::canonical_quantity);
    let mut kind = kind(definition, version);
    let separate = version["subresources"]["status"].is_object();
    kind.rules = Arc::new(CustomObjects::new(
        schema.custom().cloned().unwrap_or_default(),
        separate,
        Conversion {
            storage: format!("{group}/{}", super::storage_version(definition)),
            version: format!("{group}/{version_name}"),
            webhook,
        },
    ));
    Resource::new(kind, schema)
}

fn kind(definition: &Value, version: &Value) -> Kind {
    let group = value::text(definition, "spec.group");
    let names = &definition["status"]["acceptedNames"];
    let version_name = value::text(version, "name");
    let (kind_name, plural) = (value::text(names, "kind"), value::text(names, "plural"));
    let new = match value::text(definition, "spec.scope") {
        "Cluster" => Kind::cluster,
        _ => Kind::namespaced,
    };
    let mut kind = new(group, version_name, kind_name, plural)
        .with_generation()
        .conditional_update()
        .stored_version(super::storage_version(definition));
    debug_assert!(matches!(kind.scope, Scope::Namespaced | Scope::Cluster));
    kind.custom = true;
    kind.list_kind = value::text(names, "listKind").to_owned();
    kind.singular = value::text(names, "singular").to_owned();
    kind.short_names = texts(names, "shortNames");
    kind.categories = texts(names, "categories");
    kind.columns = columns(version);
    let selectable = value::list(version, "selectableFields").iter();
    let paths = selectable.map(|field| {
        value::text(field, "jsonPath")
            .trim_start_matches('.')
            .to_owned()
    });
    kind.selectable = paths.collect();
    kind.deprecation = deprecation(&kind, version);
    if value::at(definition, "metadata.deletionTimestamp").is_some() {
        kind.verbs.retain(|verb| *verb != Verb::Create);
    }
    if is_view(definition) {
        kind = kind.stored_as(group, plural);
    }
    with_subresources(kind, &version["subresources"])
}

/// Whether what is stored may differ from what this version shows: where there were or are
/// several versions, or the schema has changed.
fn is_view(definition: &Value) -> bool {
    value::list(definition, "spec.versions").len() > 1
        || value::list(definition, "status.storedVersions").len() > 1
        || value::integer(definition, "metadata.generation") != Some(1)
}

fn texts(object: &Value, path: &str) -> Vec<String> {
    let list = value::list(object, path).iter();
    list.filter_map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

fn deprecation(kind: &Kind, version: &Value) -> Option<String> {
    if !value::truth(version, "deprecated") {
        return None;
    }
    Some(match value::text(version, "deprecationWarning") {
        "" => format!(
            "{}/{} {} is deprecated",
            kind.group, kind.version, kind.kind
        ),
        told => told.to_owned(),
    })
}

fn columns(version: &Value) -> Vec<Column> {
    let named = value::list(version, "additionalPrinterColumns");
    let age = [json!({
        "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": "CreationTimestamp is a timestamp representing the server time when this object was created.",
    })];
    let named = if named.is_empty() { &age[..] } else { named };
    let custom = named.iter().filter_map(|column| {
        let text = |field| value::text(column, field).to_owned();
        let path = JsonPath::parse(&text("jsonPath")).ok()?;
        let mut made = Column::custom(text("name"), text("type"), path);
        made.format = text("format").into();
        made.description = match text("description") {
            none if none.is_empty() => {
                format!(
                    "Custom resource definition column (in JSONPath format): {}",
                    text("jsonPath")
                )
            }
            told => told,
        }
        .into();
        made.priority = value::integer(column, "priority")
            .and_then(|p| i32::try_from(p).ok())
            .unwrap_or(0);
        Some(made)
    });
    std::iter::once(Column::name()).chain(custom).collect()
}

fn with_subresources(mut kind: Kind, subresources: &Value) -> Kind {
    if subresources["status"].is_object() {
        kind = kind.with_status();
    }
    let Some(scale) = subresources.get("scale").filter(|scale| scale.is_object()) else {
        return kind;
    };
    let path = |field| value::text(scale, field).trim_start_matches('.').to_owned();
    kind.subresource(Subresource::Scale(ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_upstream() {
        let mut versions = [
            "foo1",
            "v1alpha1",
            "v11beta2",
            "v10",
            "v2",
            "v1",
            "v10beta3",
            "v3beta1",
            "v12alpha1",
            "v11alpha2",
            "foo10",
            "v2beta1",
        ];
        versions.sort_by_key(|version| Reverse(priority(version)));
        assert_eq!(
            versions,
            [
                "v10",
                "v2",
                "v1",
                "v11beta2",
                "v10beta3",
                "v3beta1",
                "v2beta1",
                "v12alpha1",
                "v11alpha2",
                "v1alpha1",
                "foo1",
                "foo10"
            ]
        );
    }
}
