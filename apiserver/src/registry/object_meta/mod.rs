//! `metadata`, which every object has: what the server writes into it here, what may stand in it
//! and what may change in [`rules`]. Pure: the time, the UID and the random suffix come from the
//! caller.

mod rules;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Kind;
use super::value;

pub use rules::{annotations, finalizer_warnings, labels, validate, validate_update};

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

/// Takes back what a write of the status changed in the metadata, but for who owns which field.
pub fn keep(new: &mut Value, old: &Value) {
    let managers = value::at(new, "metadata.managedFields").cloned();
    new["metadata"] = old["metadata"].clone();
    value::set_or_remove(new, "metadata.managedFields", managers);
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
