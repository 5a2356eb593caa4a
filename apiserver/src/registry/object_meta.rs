//! `metadata`, which every object has: what the server writes into it, what may stand in it,
//! what may change. Pure: the time, the UID and the random suffix come from the caller.

use std::collections::BTreeSet;

use jiff::Timestamp;
use peapod_api::field_path::FieldPath;
use peapod_api::names;
use serde_json::{Value, json};

use super::field_error::{FieldError, FieldErrors};
use super::value;
use super::{Kind, Resource};

/// Most bytes of all annotations together.
const ANNOTATIONS_MAX: usize = 256 * 1024;
/// How much of a generateName stands before the suffix.
const GENERATED_BASE_MAX: usize = 58;
/// Length of that suffix.
pub const SUFFIX_LEN: usize = 5;
/// The characters of a suffix: no vowels, no look-alikes.
pub const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A time as the API writes it: RFC 3339, whole seconds, UTC.
pub fn time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time as the API writes it where microseconds count.
pub fn micro_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// The name for `metadata.generateName` and a random suffix.
pub fn generated_name(base: &str, suffix: &str) -> String {
    let mut cut = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &base[..cut])
}

/// Fills in what the server owns in a new object.
pub fn stamp_new(kind: &Kind, object: &mut Value, uid: &str, now: Timestamp) {
    let meta = value::entry(object, "metadata");
    if !meta.is_object() {
        *meta = json!({});
    }
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        value::remove(meta, field);
    }
    without_namespace(kind, meta);
    meta["uid"] = uid.into();
    meta["creationTimestamp"] = time(now).into();
    if kind.generation {
        meta["generation"] = 1.into();
    }
}

/// Carries over what an update may not change, and counts the generation.
pub fn stamp_update(kind: &Kind, new: &mut Value, old: &Value) {
    let old_meta = &old["metadata"];
    let meta = value::entry(new, "metadata");
    if !meta.is_object() {
        *meta = json!({});
    }
    value::remove(meta, "selfLink");
    without_namespace(kind, meta);
    if value::text(meta, "uid").is_empty() {
        value::set_or_remove(meta, "uid", old_meta.get("uid").cloned());
    }
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        value::set_or_remove(meta, field, old_meta.get(field).cloned());
    }
    if kind.generation && desired_differs(new, old, kind.rules.counts_status()) {
        let generation = value::integer(old, "metadata.generation").unwrap_or(0) + 1;
        new["metadata"]["generation"] = generation.into();
    }
}

/// A namespace that objects outside of namespaces are sent with, as charts do, is passed over.
fn without_namespace(kind: &Kind, meta: &mut Value) {
    if !kind.is_namespaced() {
        value::remove(meta, "namespace");
    }
}

/// Takes away owner references that stand there twice; their UIDs.
pub fn dedup_owners(object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    let meta = object.get_mut("metadata");
    let owners = meta.and_then(|meta| meta.get_mut("ownerReferences"));
    let Some(owners) = owners.and_then(Value::as_array_mut) else {
        return gone;
    };
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in std::mem::take(owners) {
        match kept.contains(&owner) {
            true => gone.push(value::text(&owner, "uid").to_owned()),
            false => kept.push(owner),
        }
    }
    *owners = kept;
    gone
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

/// Whether anything but metadata (and the status, unless it counts too) differs.
fn desired_differs(new: &Value, old: &Value, status: bool) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else {
        return false;
    };
    let desired = |key: &&String| match key.as_str() {
        "metadata" | "apiVersion" => false,
        "status" => status,
        _ => true,
    };
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).filter(desired).collect();
    keys.into_iter().any(|key| new.get(key) != old.get(key))
}

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

/// Takes back what a write of the status changed in the metadata, but for who owns which field.
pub fn keep(new: &mut Value, old: &Value) {
    let managers = value::at(new, "metadata.managedFields").cloned();
    new["metadata"] = old["metadata"].clone();
    value::set_or_remove(new, "metadata.managedFields", managers);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_generated_within_bounds() {
        assert_eq!(generated_name("web-", "abcde"), "web-abcde");
        assert_eq!(generated_name(&"x".repeat(90), "abcde").len(), 63);
        assert_eq!(generated_name(&"é".repeat(50), "abcde").len(), 63);
    }

    #[test]
    fn times_as_upstream() {
        let now = Timestamp::new(1_700_000_000, 123_456_789).unwrap();
        assert_eq!(time(now), "2023-11-14T22:13:20Z");
        assert_eq!(micro_time(now), "2023-11-14T22:13:20.123456Z");
    }

    #[test]
    fn what_the_server_keeps_is_not_the_clients_to_change() {
        let kind = Kind::cluster("", "v1", "Node", "nodes");
        let old = json!({"metadata": {"uid": "u", "creationTimestamp": "2023-11-14T22:13:20Z"}});
        let mut new =
            json!({"metadata": {"namespace": "x", "creationTimestamp": "2000-01-01T00:00:00Z"}});
        stamp_update(&kind, &mut new, &old);
        assert_eq!(new, old);
        let mut new = json!({"metadata": {"name": "a", "namespace": "x"}});
        stamp_new(&kind, &mut new, "u", Timestamp::UNIX_EPOCH);
        assert!(new["metadata"].get("namespace").is_none());
    }

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

    #[test]
    fn an_owner_counts_once() {
        let (a, b) = (json!({"uid": "a"}), json!({"uid": "b"}));
        let mut object = json!({"metadata": {"ownerReferences": [a, b, a]}});
        assert_eq!(dedup_owners(&mut object), ["a"]);
        assert_eq!(object["metadata"]["ownerReferences"], json!([a, b]));
        assert!(dedup_owners(&mut json!({})).is_empty());
    }

    #[test]
    fn generation_counts_changes_of_the_desired_state() {
        let kind = Kind::namespaced("apps", "v1", "Deployment", "deployments").with_generation();
        let old = json!({"metadata": {"generation": 3, "uid": "u"}, "spec": {"a": 1}});
        let mut same = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"a": 1}, "status": {}});
        stamp_update(&kind, &mut same, &old);
        assert_eq!(same["metadata"]["generation"], 3);
        assert_eq!(same["metadata"]["uid"], "u");
        let mut other = json!({"metadata": {"generation": 9}, "spec": {"a": 2}});
        stamp_update(&kind, &mut other, &old);
        assert_eq!(other["metadata"]["generation"], 4);
    }
}
