//! The rules of a custom kind's objects: what its definition says of them.

use std::sync::Arc;

use peapod_schema::custom::{self, Fault, FaultKind, Structural};
use serde_json::Value;

use super::conversion::Webhook;
use super::rules;
use crate::registry::{FieldError, FieldErrors, Rules, object_meta};

/// Which versions a kind converts between.
#[derive(Clone)]
pub struct Conversion {
    /// What objects are stored as: `example.com/v1`.
    pub storage: String,
    /// What this kind shows them as.
    pub version: String,
    /// What converts them; without it versions only differ in name.
    pub webhook: Option<Arc<Webhook>>,
}

/// The rules of one version of a custom kind.
pub struct CustomObjects {
    schema: Arc<Structural>,
    rules: rules::Rules,
    /// Whether the status has a subresource of its own.
    separate_status: bool,
    conversion: Conversion,
}

// === impl CustomObjects ===

impl CustomObjects {
    /// The rules of a version with this schema.
    pub fn new(schema: Arc<Structural>, separate_status: bool, conversion: Conversion) -> Self {
        // What is wrong with them was told when the definition was written.
        let rules = rules::Rules::compile(&schema, "", &mut FieldErrors::new());
        Self {
            schema,
            rules,
            separate_status,
            conversion,
        }
    }

    fn check(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let faults = custom::validate::validate(new, old, &self.schema);
        if !faults.is_empty() {
            // Rules rely on types.
            return errors.extend(faults.into_iter().map(told));
        }
        self.rules.check(new, old, &self.schema, errors);
    }
}

impl Rules for CustomObjects {
    fn validate_against(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        self.check(new, old, errors);
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object_meta::keep(new, old);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.check(new, Some(old), errors);
    }

    fn from_stored(&self, object: &mut Value) {
        object["apiVersion"] = self.conversion.version.as_str().into();
        custom::prune::prune(object, &self.schema);
        custom::defaults::fill(object, &self.schema);
    }

    fn to_stored(&self, object: &mut Value) {
        object["apiVersion"] = self.conversion.storage.as_str().into();
    }

    fn view(&self, object: &mut Value) -> Result<(), String> {
        if let Some(webhook) = &self.conversion.webhook {
            webhook.convert(object, &self.conversion.version)?;
        }
        self.from_stored(object);
        Ok(())
    }

    fn store(&self, object: &mut Value) -> Result<(), String> {
        if let Some(webhook) = &self.conversion.webhook {
            webhook.convert(object, &self.conversion.storage)?;
        }
        self.to_stored(object);
        Ok(())
    }

    fn counts_status(&self) -> bool {
        !self.separate_status
    }
}

/// A fault of the schema in the words of the API.
pub fn told(fault: Fault) -> FieldError {
    let Fault {
        path,
        kind,
        value,
        detail,
    } = fault;
    match kind {
        FaultKind::Invalid => FieldError::invalid(path, value, detail),
        FaultKind::Type => FieldError::type_invalid(path, value, detail),
        FaultKind::Required => FieldError::required(path, detail),
        FaultKind::NotSupported => {
            let supported: Vec<&str> = detail.split('\n').collect();
            FieldError::not_supported(path, value, &supported)
        }
        FaultKind::Duplicate => FieldError::duplicate(path, value),
        FaultKind::TooLong(max) => {
            FieldError::too_long(path, usize::try_from(max).unwrap_or(usize::MAX))
        }
        FaultKind::TooMany(count, max) => {
            FieldError::too_many(path, count, usize::try_from(max).unwrap_or(usize::MAX))
        }
    }
}
