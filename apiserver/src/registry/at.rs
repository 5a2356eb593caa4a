//! A value with the place it stands at, for validation: checks read it, and faults name the
//! place. Steps are borrowed, so that a walk over a valid object allocates nothing.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use peapod_api::names::NameError;
use serde_json::Value;

use super::field_error::{FieldError, FieldErrors};
use super::value;

/// A value and its place. A missing value is a null.
#[derive(Clone, Copy)]
pub struct At<'a> {
    value: &'a Value,
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    /// Fields, dotted.
    Fields(&'a str),
    Index(usize),
    Key(&'a str),
}

static NOTHING: Value = Value::Null;

impl<'a> At<'a> {
    /// An object's root.
    pub fn root(value: &'a Value) -> Self {
        Self {
            value,
            parent: None,
            step: Step::Fields(""),
        }
    }

    /// What stands at dotted fields below.
    pub fn at(&'a self, fields: &'a str) -> At<'a> {
        At {
            value: value::at(self.value, fields).unwrap_or(&NOTHING),
            parent: Some(self),
            step: Step::Fields(fields),
        }
    }

    /// The items of the list here; none if it is no list.
    pub fn items(&'a self) -> impl Iterator<Item = At<'a>> {
        let items = self.value.as_array().into_iter().flatten();
        items.enumerate().map(|(index, value)| At {
            value,
            parent: Some(self),
            step: Step::Index(index),
        })
    }

    /// The keys and values of the map here; none if it is no map.
    pub fn entries(&'a self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| {
            let at = At {
                value,
                parent: Some(self),
                step: Step::Key(key),
            };
            (key.as_str(), at)
        })
    }

    /// The value.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether there is something.
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// The text; empty when there is none.
    pub fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The whole number.
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    /// Whether it is missing, an empty text, list or object.
    pub fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    // Faults of this place.

    /// Tells that the value breaks a rule.
    pub fn invalid(&self, errors: &mut FieldErrors, why: impl Into<String>) {
        errors.push(FieldError::invalid(self, self.value.clone(), why));
    }

    /// Tells that something must be here.
    pub fn missing(&self, errors: &mut FieldErrors, why: impl Into<String>) {
        errors.push(FieldError::required(self, why));
    }

    /// Tells that nothing may be here, or that it may not change.
    pub fn forbidden(&self, errors: &mut FieldErrors, why: impl Into<String>) {
        errors.push(FieldError::forbidden(self, why));
    }

    /// Tells that another item has this value.
    pub fn duplicate(&self, errors: &mut FieldErrors) {
        errors.push(FieldError::duplicate(self, self.value.clone()));
    }

    // Checks of this place.

    /// Demands that something is here; says whether it is.
    pub fn required(&self, errors: &mut FieldErrors) -> bool {
        if self.is_empty() {
            self.missing(errors, "");
        }
        !self.is_empty()
    }

    /// Demands one of these texts, if there is one.
    pub fn one_of(&self, errors: &mut FieldErrors, supported: &[&str]) {
        if self.is_set() && !supported.contains(&self.text()) {
            errors.push(FieldError::not_supported(
                self,
                self.value.clone(),
                supported,
            ));
        }
    }

    /// Demands one of these texts.
    pub fn require_one_of(&self, errors: &mut FieldErrors, supported: &[&str]) {
        if self.required(errors) {
            self.one_of(errors, supported);
        }
    }

    /// Demands a number in a range, if there is one.
    pub fn within(&self, errors: &mut FieldErrors, range: RangeInclusive<i64>) {
        if self.int().is_some_and(|number| !range.contains(&number)) {
            let (low, high) = range.into_inner();
            self.invalid(
                errors,
                format!("must be between {low} and {high}, inclusive"),
            );
        }
    }

    /// Demands a number that is not negative, if there is one.
    pub fn not_negative(&self, errors: &mut FieldErrors) {
        if self.int().is_some_and(|number| number < 0) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// Demands a number above zero, if there is one.
    pub fn positive(&self, errors: &mut FieldErrors) {
        if self.int().is_some_and(|number| number <= 0) {
            self.invalid(errors, "must be greater than 0");
        }
    }

    /// Demands that the text follows a rule, if there is one.
    pub fn follows(&self, errors: &mut FieldErrors, rule: fn(&str) -> Result<(), NameError>) {
        if !self.is_empty()
            && let Err(fault) = rule(self.text())
        {
            self.invalid(errors, fault.to_string());
        }
    }

    /// Demands a text that follows a rule.
    pub fn require_name(&self, errors: &mut FieldErrors, rule: fn(&str) -> Result<(), NameError>) {
        if self.required(errors) {
            self.follows(errors, rule);
        }
    }

    /// Demands what the old object has here.
    pub fn unchanged(&self, old: &Value, errors: &mut FieldErrors) {
        let before = self
            .path()
            .into_iter()
            .try_fold(old, |at, name| at.get(name));
        if before.unwrap_or(&NOTHING) != self.value {
            errors.push(FieldError::immutable(self, self.value.clone()));
        }
    }

    /// The fields from the root to here.
    fn path(&self) -> Vec<&'a str> {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        if let Step::Fields(fields) = self.step {
            path.extend(fields.split('.').filter(|name| !name.is_empty()));
        }
        path
    }
}

impl Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_root = match self.parent {
            None => true,
            Some(parent) => {
                parent.fmt(f)?;
                parent.parent.is_none() && matches!(parent.step, Step::Fields(""))
            }
        };
        match self.step {
            Step::Fields(fields) if at_root => f.write_str(fields),
            Step::Fields(fields) => write!(f, ".{fields}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_spelled_as_upstream() {
        let object = json!({"spec": {"list": [{"map": {"a/b": 70000}}]}});
        let root = At::root(&object);
        let list = root.at("spec.list");
        let item = list.items().next().unwrap();
        let map = item.at("map");
        let (_, entry) = map.entries().next().unwrap();
        assert_eq!(entry.to_string(), "spec.list[0].map[a/b]");
        let mut errors = FieldErrors::new();
        entry.within(&mut errors, 1..=65535);
        item.at("name").required(&mut errors);
        assert_eq!(
            errors.to_string(),
            "[spec.list[0].map[a/b]: Invalid value: 70000: must be between 1 and 65535, inclusive, \
             spec.list[0].name: Required value]"
        );
    }
}
