//! Faults of an object's fields, collected by validation and worded as kube-apiserver words
//! them: `spec.containers[0].name: Required value`.

use std::fmt::{self, Display};

use peapod_api::field_path::FieldPath;
use serde_json::Value;

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The field must be set.
    Required,
    /// The field's value breaks a rule.
    Invalid,
    /// The value is none of those that are known.
    NotSupported,
    /// Another element has this value.
    Duplicate,
    /// The field may not be set, or not be changed.
    Forbidden,
    /// The value is longer than it may be.
    TooLong,
    /// The list has more elements than it may.
    TooMany,
    /// What the value refers to does not exist.
    NotFound,
    /// The value is of the wrong type.
    TypeInvalid,
    /// The server failed.
    Internal,
}

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub reason: Reason,
    /// The path of the field, as `spec.ports[0].port`.
    pub field: String,
    /// The value as a message shows it; `None` where the reason shows none.
    value: Option<String>,
    /// The rest of the sentence.
    detail: String,
}

/// The faults of one object, in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldErrors(Vec<FieldError>);

// === impl Reason ===

impl Reason {
    /// The `reason` of a `StatusCause`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::TypeInvalid => "Invalid value",
            Self::Internal => "Internal error",
        }
    }
}

// === impl FieldError ===

/// A value as messages show it: strings quoted, all else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

impl FieldError {
    fn new(
        reason: Reason,
        field: impl Display,
        value: Option<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            field: field.to_string(),
            value,
            detail: detail.into(),
        }
    }

    /// The field must be set; `detail` may be empty.
    pub fn required(field: impl Display, detail: impl Into<String>) -> Self {
        Self::new(Reason::Required, field, None, detail)
    }

    /// The value breaks the rule that `detail` states.
    pub fn invalid(
        field: impl Display,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        let value = Some(shown(&value.into()));
        Self::new(Reason::Invalid, field, value, detail)
    }

    /// The value is none of `supported`.
    pub fn not_supported(field: impl Display, value: impl Into<Value>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let detail = match quoted.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", quoted.join(", ")),
        };
        let value = Some(shown(&value.into()));
        Self::new(Reason::NotSupported, field, value, detail)
    }

    /// Another element has this value.
    pub fn duplicate(field: impl Display, value: impl Into<Value>) -> Self {
        Self::new(Reason::Duplicate, field, Some(shown(&value.into())), "")
    }

    /// The field may not be set or changed, for the reason in `detail`.
    pub fn forbidden(field: impl Display, detail: impl Into<String>) -> Self {
        Self::new(Reason::Forbidden, field, None, detail)
    }

    /// The value has more than `max` bytes.
    pub fn too_long(field: impl Display, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self::new(Reason::TooLong, field, None, detail)
    }

    /// The list has `count` elements, more than `max`.
    pub fn too_many(field: impl Display, count: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self::new(Reason::TooMany, field, Some(count.to_string()), detail)
    }

    /// What the value refers to does not exist.
    pub fn not_found(field: impl Display, value: impl Into<Value>) -> Self {
        Self::new(Reason::NotFound, field, Some(shown(&value.into())), "")
    }

    /// The value is of the wrong type.
    pub fn type_invalid(
        field: impl Display,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) -> Self {
        let value = Some(shown(&value.into()));
        Self::new(Reason::TypeInvalid, field, value, detail)
    }

    /// The field cannot be changed once it is set.
    pub fn immutable(field: impl Display, value: impl Into<Value>) -> Self {
        Self::invalid(field, value, "field is immutable")
    }

    /// The sentence without the field's path.
    pub fn body(&self) -> String {
        let mut out = self.reason.words().to_owned();
        if let Some(value) = &self.value {
            out.push_str(": ");
            out.push_str(value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

// === impl FieldErrors ===

impl FieldErrors {
    /// No fault yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault; the same one twice counts once.
    pub fn push(&mut self, error: FieldError) {
        if !self.0.contains(&error) {
            self.0.push(error);
        }
    }

    /// Adds all faults of another check.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        errors.into_iter().for_each(|error| self.push(error));
    }

    /// Adds an `Invalid value` with the sentence of a failed name check.
    pub fn check<E: Display>(&mut self, field: &FieldPath, value: &str, outcome: Result<(), E>) {
        if let Err(fault) = outcome {
            self.push(FieldError::invalid(field, value, fault.to_string()));
        }
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults.
    pub fn iter(&self) -> impl Iterator<Item = &FieldError> {
        self.0.iter()
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        let all: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worded_as_upstream() {
        let port = FieldPath::of("spec.ports").index(0).child("port");
        for (error, expected) in [
            (
                FieldError::required(&port, ""),
                "spec.ports[0].port: Required value",
            ),
            (
                FieldError::invalid(&port, 70000, "must be between 1 and 65535, inclusive"),
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                FieldError::not_supported("spec.type", "x", &["A", "B"]),
                r#"spec.type: Unsupported value: "x": supported values: "A", "B""#,
            ),
            (
                FieldError::duplicate("a", "x"),
                r#"a: Duplicate value: "x""#,
            ),
            (FieldError::forbidden("a", "no"), "a: Forbidden: no"),
            (
                FieldError::too_long("a", 5),
                "a: Too long: may not be more than 5 bytes",
            ),
            (
                FieldError::immutable("a", "x"),
                r#"a: Invalid value: "x": field is immutable"#,
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn many_stand_in_brackets_and_once() {
        let mut errors = FieldErrors::new();
        errors.push(FieldError::required("a", ""));
        errors.push(FieldError::required("a", ""));
        assert_eq!(errors.to_string(), "a: Required value");
        errors.push(FieldError::required("b", ""));
        assert_eq!(errors.to_string(), "[a: Required value, b: Required value]");
    }
}
