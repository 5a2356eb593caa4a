//! Patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386) and Kubernetes' strategic merge
//! patch. Server-side apply, the fourth form of a patch, is [`crate::apply`].
//!
//! Each gives the patched value, not yet checked against the schema.

mod order;
mod strategic;

use serde_json::Value;
use thiserror::Error;

pub use strategic::strategic;

/// How many operations a JSON patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// A patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch itself is wrong, whatever it is applied to: a bad request.
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch has too many operations: too large a request.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooMany(usize),
    /// The patch does not fit this object (a failed test, a missing path): unprocessable.
    #[error("{0}")]
    Unfit(String),
}

pub(crate) fn malformed<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(message.into()))
}

/// Applies a JSON patch.
pub fn json(mut original: Value, patch: Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        return Err(PatchError::TooMany(count));
    }
    let operations: json_patch::Patch = serde_json::from_value(patch)
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    for (index, operation) in operations.0.iter().enumerate() {
        if is_test_of_nothing(operation, &original) {
            continue;
        }
        let one = std::slice::from_ref(operation);
        json_patch::patch(&mut original, one).map_err(|mut error| {
            error.operation = index;
            PatchError::Unfit(error.to_string())
        })?;
    }
    Ok(original)
}

/// Whether an operation tests for null where nothing is. Upstream's library lets that pass, and
/// clients rely on it to add the first finalizer.
fn is_test_of_nothing(operation: &json_patch::PatchOperation, object: &Value) -> bool {
    match operation {
        json_patch::PatchOperation::Test(test) => {
            test.value.is_null() && object.pointer(test.path.as_str()).is_none()
        }
        _ => false,
    }
}

/// Applies a merge patch.
pub fn merge(mut original: Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return malformed("a merge patch must be a JSON object");
    }
    json_patch::merge(&mut original, patch);
    Ok(original)
}
