//! The types of values.

use serde_json::Value;

use super::{Fault, FaultKind};
use crate::custom::{JsonType, Structural};
use crate::path::Path;

/// Whether a value is of the type that its schema names.
pub(super) fn is_of_type(value: &Value, schema: &Structural) -> bool {
    if schema.int_or_string {
        return value.is_string() || is_integer(value);
    }
    let Some(ty) = schema.ty else {
        return true;
    };
    match ty {
        JsonType::Object => value.is_object(),
        JsonType::Array => value.is_array(),
        JsonType::String => value.is_string(),
        JsonType::Integer => is_integer(value),
        JsonType::Number => value.is_number(),
        JsonType::Boolean => value.is_boolean(),
    }
}

fn is_integer(value: &Value) -> bool {
    value.is_i64()
        || value.is_u64()
        || value
            .as_f64()
            .is_some_and(|number| number.fract() == 0.0 && number.abs() < 9.3e18)
}

/// What a value is told that is not.
pub(super) fn type_fault(value: &Value, schema: &Structural, path: &Path<'_>) -> Fault {
    let given = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let wanted = match schema.ty {
        _ if schema.int_or_string => "integer,string",
        Some(ty) => ty.as_str(),
        None => "",
    };
    Fault {
        path: path.to_string(),
        kind: FaultKind::Type,
        value: given.into(),
        detail: format!("{path} in body must be of type {wanted}: {given:?}"),
    }
}
