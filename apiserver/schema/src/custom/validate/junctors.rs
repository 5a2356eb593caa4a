//! `allOf`, `anyOf`, `oneOf` and `not`, whose faults upstream tells without a field.

use serde_json::Value;

use super::{Fault, FaultKind, value};
use crate::custom::Structural;
use crate::path::Path;

/// Checks a value by the schemas that a schema is made of.
pub(super) fn junctors(new: &Value, schema: &Structural, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let faults_of = |inner: &Structural| {
        let mut found = Vec::new();
        value(new, None, inner, path, false, &mut found);
        found
    };
    let tell = |faults: &mut Vec<Fault>, what: String| {
        faults.push(Fault {
            path: "<nil>".to_owned(),
            kind: FaultKind::Invalid,
            value: Value::from(""),
            detail: format!("\"{path}\" {what}"),
        });
    };
    let mut failed = false;
    for inner in &schema.all_of {
        let found = faults_of(inner);
        failed |= !found.is_empty();
        faults.extend(found);
    }
    if failed {
        tell(faults, "must validate all the schemas (allOf)".to_owned());
    }
    if !schema.any_of.is_empty() {
        let outcomes: Vec<Vec<Fault>> = schema.any_of.iter().map(faults_of).collect();
        if outcomes.iter().all(|found| !found.is_empty()) {
            tell(
                faults,
                "must validate at least one schema (anyOf)".to_owned(),
            );
            faults.extend(
                outcomes
                    .into_iter()
                    .min_by_key(Vec::len)
                    .unwrap_or_default(),
            );
        }
    }
    if !schema.one_of.is_empty() {
        let outcomes: Vec<Vec<Fault>> = schema.one_of.iter().map(faults_of).collect();
        let fitting = outcomes.iter().filter(|found| found.is_empty()).count();
        match fitting {
            1 => {}
            0 => {
                tell(
                    faults,
                    "must validate one and only one schema (oneOf). Found none valid".to_owned(),
                );
                faults.extend(
                    outcomes
                        .into_iter()
                        .min_by_key(Vec::len)
                        .unwrap_or_default(),
                );
            }
            many => tell(
                faults,
                format!(
                    "must validate one and only one schema (oneOf). Found {many} valid alternatives"
                ),
            ),
        }
    }
    if schema
        .not
        .as_deref()
        .is_some_and(|inner| faults_of(inner).is_empty())
    {
        tell(faults, "must not validate the schema (not)".to_owned());
    }
}
