//! Pod templates: are two the same, and the hash that names a template's ReplicaSet.
//!
//! The hash only has to be stable and to differ between the templates of one Deployment; which
//! ReplicaSet is the new one is decided by comparing templates. It is the start of the SHA-256
//! of the template's canonical JSON, written in the letters that upstream uses, which spell no
//! words.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use peapod_api::labels::POD_TEMPLATE_HASH;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::merge;

const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters of a hash; 27^10 is about 2^47.
const LENGTH: usize = 10;

/// The hash of a template, another one for each count of collisions.
pub fn hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let mut canonical = canonical(template);
    if collisions > 0 {
        canonical = serde_json::json!([canonical, collisions]);
    }
    let digest = Sha256::digest(canonical.to_string());
    let number = digest
        .iter()
        .take(8)
        .fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    let letters = (0..LENGTH as u32).map(|place| {
        let letter = number / 27u64.pow(place) % 27;
        char::from(LETTERS[letter as usize])
    });
    letters.collect()
}

/// Whether two templates are the same, but for the hash that one of them may carry.
pub fn same(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    (a.spec == b.spec && labels_match(a, b)) || canonical(a) == canonical(b)
}

fn labels_match(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        meta.labels
            .get_or_insert_default()
            .remove(POD_TEMPLATE_HASH);
        meta
    };
    bare(a) == bare(b)
}

/// The template as JSON with sorted keys, without the hash label and without what is empty
/// (an empty map and a missing one mean the same).
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut value = merge::to_value(template);
    let labels = value.pointer_mut("/metadata/labels");
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    if let Some(meta) = value
        .pointer_mut("/metadata")
        .and_then(Value::as_object_mut)
    {
        meta.remove("creationTimestamp");
    }
    // An empty volume source is not the same as none, so only metadata is pruned.
    if let Some(meta) = value.get_mut("metadata") {
        prune(meta);
    }
    value
}

fn prune(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, field| {
            prune(field);
            !field.is_null() && field.as_object().is_none_or(|map| !map.is_empty())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(text: Value) -> PodTemplateSpec {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_hash_is_stable_across_versions() {
        let plain = template(json!({"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}));
        assert_eq!(hash(&plain, 0), "b8d57jtrpb");
        assert_eq!(hash(&plain, 1), "cn5vzlfdzn");
    }

    #[test]
    fn the_hash_label_and_emptiness_make_no_difference() {
        let plain = template(json!({"metadata": {}, "spec": {"containers": []}}));
        let labelled = template(json!({
            "metadata": {"labels": {"pod-template-hash": "x"}, "annotations": {}},
            "spec": {"containers": []},
        }));
        assert!(same(&plain, &labelled));
        assert_eq!(hash(&plain, 0), hash(&labelled, 0));
        let other = template(json!({"spec": {"containers": [{"name": "c"}]}}));
        assert!(!same(&plain, &other));
    }
}
