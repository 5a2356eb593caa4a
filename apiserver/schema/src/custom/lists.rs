//! The uniqueness that list types promise: items of sets, keys of maps.

use std::collections::HashSet;

use serde_json::Value;

use super::validate::{Fault, FaultKind};
use super::{ListType, Structural};
use crate::path::{Path, Step};

/// Checks the items of one list.
pub(super) fn check(
    items: &[Value],
    schema: &Structural,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) {
    let mut seen = HashSet::new();
    match &schema.list {
        ListType::Atomic => {}
        ListType::Set => {
            for (index, item) in items.iter().enumerate() {
                if !seen.insert(item.to_string()) {
                    duplicate(item.clone(), index, path, faults);
                }
            }
        }
        ListType::Map(keys) => {
            for (index, item) in items.iter().enumerate() {
                let Some(key) = key_of(item, keys, schema) else {
                    continue;
                };
                if !seen.insert(key.to_string()) {
                    duplicate(key, index, path, faults);
                }
            }
        }
    }
}

/// The values of an item's keys, defaults included.
pub(super) fn key_of(item: &Value, keys: &[String], schema: &Structural) -> Option<Value> {
    let fields = item.as_object()?;
    let default = |key: &String| {
        let field = schema.items.as_deref()?.properties.get(key)?;
        field.default.clone()
    };
    let values = keys.iter().filter_map(|key| {
        let value = fields.get(key).cloned().or_else(|| default(key))?;
        Some((key.clone(), value))
    });
    Some(Value::Object(values.collect()))
}

fn duplicate(value: Value, index: usize, path: &Path<'_>, faults: &mut Vec<Fault>) {
    faults.push(Fault {
        path: path.then(Step::Index(index)).to_string(),
        kind: FaultKind::Duplicate,
        value,
        detail: String::new(),
    });
}
