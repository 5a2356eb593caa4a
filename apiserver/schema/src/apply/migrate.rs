//! From `kubectl apply` of old to server-side apply: the annotation that holds what was last
//! applied by the client speaks for what kubectl may change without a conflict.

use serde_json::Value;

use super::compare::{compare, fields_of};
use super::set::FieldSet;
use crate::graph::Schema;

const MANAGER: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// An annotation of an object may not be longer than this, all together.
const ANNOTATION_MAX: usize = 256 * 1024;

fn last_applied(object: &Value) -> Option<&str> {
    let annotations = object.get("metadata")?.get("annotations")?;
    annotations.get(LAST_APPLIED)?.as_str()
}

/// The fields in which `manager` may not conflict: those that the client applied last, and that
/// are still as it applied them.
pub(super) fn excused(
    live: Option<&Value>,
    schema: &Schema,
    manager: &str,
    complete: &dyn Fn(&mut Value),
) -> FieldSet {
    let Some(live) = live.filter(|_| manager == MANAGER) else {
        return FieldSet::default();
    };
    let Some(Ok(applied)) = last_applied(live).map(serde_json::from_str::<Value>) else {
        return FieldSet::default();
    };
    let root = Some(schema.root());
    let mut completed = applied.clone();
    complete(&mut completed);
    let changes = compare(Some(&completed), Some(live), root);
    fields_of(&applied, root)
        .difference(&changes.modified)
        .difference(&changes.removed)
}

/// Keeps the annotation true, for clients that still apply on their side.
pub(super) fn keep_last_applied(
    live: Option<&Value>,
    config: &Value,
    object: &mut Value,
    manager: &str,
) {
    if manager != MANAGER || live.and_then(last_applied).is_none() {
        return;
    }
    let text = config.to_string();
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        match text.len() <= ANNOTATION_MAX {
            true => annotations.insert(LAST_APPLIED.to_owned(), Value::from(text)),
            false => annotations.remove(LAST_APPLIED),
        };
    }
}
