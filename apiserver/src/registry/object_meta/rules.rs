//! What may stand in `metadata`, and what of it may change.

use peapod_api::field_path::FieldPath;
use peapod_api::names;
use serde_json::Value;

use crate::registry::field_error::{FieldError, FieldErrors};
use crate::registry::value;
use crate::registry::{Kind, Resource};

/// Most bytes of all annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Checks the metadata of an object on every write.
pub fn validate(resource: &Resource, object: &Value, errors: &mut FieldErrors) {
    let path = FieldPath::of("metadata");
    let kind = &resource.kind;
    validate_name(kind, object, &path, errors);
    validate_namespace(kind, object, &path, errors);
    labels(&object["metadata"]["labels"], &path.child("labels"), errors);
    annotations(
        &object["metadata"]["annotations"],
        &path.child("annotations"),
        errors,
    );
    finalizers(object, &path.child("finalizers"), errors);
    owners(object, &path.child("ownerReferences"), errors);
}

fn validate_name(kind: &Kind, object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let base = value::text(object, "metadata.generateName");
    if !base.is_empty() {
        // What is generated ends in an alphanumeric, so a dash at the base's end is good.
        let outcome = (kind.name_rule)(&format!("{}x", base.trim_end_matches('-')));
        errors.check(&path.child("generateName"), base, outcome);
    }
    match value::text(object, "metadata.name") {
        "" => errors.push(FieldError::required(
            path.child("name"),
            "name or generateName is required",
        )),
        name => errors.check(&path.child("name"), name, (kind.name_rule)(name)),
    }
}

fn validate_namespace(kind: &Kind, object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let path = path.child("namespace");
    match (
        kind.is_namespaced(),
        value::text(object, "metadata.namespace"),
    ) {
        (true, "") => errors.push(FieldError::required(path, "")),
        (true, namespace) => errors.check(&path, namespace, names::dns_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden(path, "not allowed on this type")),
    }
}

/// Checks labels, of an object or of a template.
pub fn labels(labels: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    for (key, text) in labels.as_object().into_iter().flatten() {
        errors.check(path, key, names::qualified_name(key));
        let text = text.as_str().unwrap_or_default();
        errors.check(path, text, names::label_value(text));
    }
}

/// Checks annotations, of an object or of a template.
pub fn annotations(annotations: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let mut size = 0;
    for (key, text) in annotations.as_object().into_iter().flatten() {
        errors.check(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + text.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_MAX));
    }
}

fn finalizers(object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let all = value::list(object, "metadata.finalizers");
    for (index, finalizer) in all.iter().enumerate() {
        let text = finalizer.as_str().unwrap_or_default();
        errors.check(&path.index(index), text, names::qualified_name(text));
    }
    let has = |name: &str| all.iter().any(|one| one == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(FieldError::invalid(
            path,
            all.to_vec(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
}

fn owners(object: &Value, path: &FieldPath, errors: &mut FieldErrors) {
    let mut controllers = Vec::new();
    for (index, owner) in value::list(object, "metadata.ownerReferences")
        .iter()
        .enumerate()
    {
        let at = path.index(index);
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if value::text(owner, field).is_empty() {
                errors.push(FieldError::invalid(at.child(field), "", why));
            }
        }
        if value::truth(owner, "controller") {
            controllers.push(value::text(owner, "name"));
        }
    }
    if let [first, second, ..] = controllers[..] {
        errors.push(FieldError::invalid(
            path,
            object["metadata"]["ownerReferences"].clone(),
            format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
            ),
        ));
    }
}

/// Checks what an update may not change.
pub fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let path = format!("metadata.{field}");
        let (now, before) = (value::text(new, &path), value::text(old, &path));
        if now != before {
            errors.push(FieldError::immutable(path, now));
        }
    }
    if value::at(old, "metadata.deletionTimestamp").is_some() {
        let before = value::list(old, "metadata.finalizers");
        let added: Vec<String> = value::list(new, "metadata.finalizers")
            .iter()
            .filter(|one| !before.contains(one))
            .map(|one| format!("{one}"))
            .collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    added.join(", ")
                ),
            ));
        }
    }
}

/// What is said of finalizers that are new and may be taken for those of others.
pub fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    const OWN: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
    let of = |object| value::list(object, "metadata.finalizers");
    let before = old.map_or(&[][..], |old| of(old));
    let added = of(new).iter().filter(|one| !before.contains(one));
    let vague = added.filter_map(Value::as_str);
    let vague = vague.filter(|name| !name.contains('/') && !OWN.contains(name));
    vague
        .map(|name| format!("metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other finalizer writers"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn new_finalizers_are_of_a_domain() {
        let object = |all: &[&str]| json!({"metadata": {"finalizers": all}});
        let told = finalizer_warnings(
            &object(&["a", "b", "orphan", "x.io/c"]),
            Some(&object(&["a"])),
        );
        assert_eq!(told.len(), 1);
        assert!(told[0].starts_with("metadata.finalizers: \"b\": prefer a domain-qualified"));
        assert_eq!(finalizer_warnings(&object(&["a"]), None).len(), 1);
        assert!(finalizer_warnings(&json!({}), None).is_empty());
    }
}
