//! Defaults, which a schema must itself accept.

use peapod_schema::custom::{Structural, validate};
use serde_json::Value;

use crate::crd::objects::told;
use crate::registry::{FieldError, FieldErrors};

/// A default must be what the schema accepts, and nothing that it would prune.
pub(super) fn default(schema: &Value, path: &str, errors: &mut FieldErrors) {
    let Some(default) = schema.get("default").filter(|value| !value.is_null()) else {
        return;
    };
    let path = format!("{path}.default");
    let structural = Structural::of(schema);
    let mut pruned = default.clone();
    if !peapod_schema::custom::prune::prune(&mut pruned, &structural).is_empty() {
        errors.push(FieldError::invalid(
            &path,
            default.clone(),
            "must not have unknown fields",
        ));
    }
    let mut filled = default.clone();
    peapod_schema::custom::defaults::fill(&mut filled, &structural);
    for mut fault in validate::validate_default(&filled, &structural) {
        fault.path = match fault.path.as_str() {
            "" => path.clone(),
            inner => format!("{path}.{inner}"),
        };
        errors.push(told(fault));
    }
}
