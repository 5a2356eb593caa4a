//! The bounds of one value, without its parts.

use serde_json::Value;

use super::{Fault, FaultKind, invalid, push};
use crate::custom::{Additional, Bounds, Structural, formats};
use crate::path::{Path, Step};

/// Checks the bounds that a schema has for its own value.
pub(super) fn own(new: &Value, schema: &Structural, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let bounds = &schema.bounds;
    match new {
        Value::String(text) => of_text(text, bounds, path, faults),
        Value::Number(_) => of_number(new, bounds, path, faults),
        Value::Array(items) => of_list(items, bounds, path, faults),
        Value::Object(fields) => {
            let count = fields.len();
            if let Some(max) = bounds.max_properties.filter(|max| count as u64 > *max) {
                push(
                    faults,
                    path,
                    FaultKind::TooMany(count, max),
                    Value::Null,
                    String::new(),
                );
            }
            if let Some(min) = bounds.min_properties.filter(|min| (count as u64) < *min) {
                invalid(
                    faults,
                    path,
                    new,
                    format!("should have at least {min} properties"),
                );
            }
            for name in &bounds.required {
                if !fields.contains_key(name) {
                    push(
                        faults,
                        &path.then(Step::Field(name)),
                        FaultKind::Required,
                        Value::Null,
                        String::new(),
                    );
                }
            }
            if matches!(schema.additional, Additional::Allowed(false)) {
                for name in fields
                    .keys()
                    .filter(|name| !schema.properties.contains_key(*name))
                {
                    let told = format!("\"{path}.{name}\" is a forbidden property");
                    push(faults, path, FaultKind::Invalid, Value::from(""), told);
                }
            }
        }
        _ => {}
    }
    if !bounds.allowed.is_empty() && !bounds.allowed.contains(new) {
        let spell = |one: &Value| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
        let allowed: Vec<String> = bounds.allowed.iter().map(spell).collect();
        push(
            faults,
            path,
            FaultKind::NotSupported,
            new.clone(),
            allowed.join("\n"),
        );
    }
}

fn of_text(text: &str, bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    if bounds.max_length.is_some() || bounds.min_length.is_some() {
        let count = text.chars().count() as u64;
        if let Some(max) = bounds.max_length.filter(|max| count > *max) {
            push(
                faults,
                path,
                FaultKind::TooLong(max),
                text.into(),
                String::new(),
            );
        }
        if let Some(min) = bounds.min_length.filter(|min| count < *min) {
            invalid(
                faults,
                path,
                &text.into(),
                format!("should be at least {min} chars long"),
            );
        }
    }
    if let Some(pattern) = &bounds.pattern
        && pattern
            .regex
            .as_ref()
            .is_some_and(|regex| !regex.is_match(text))
    {
        invalid(
            faults,
            path,
            &text.into(),
            format!("should match '{}'", pattern.text),
        );
    }
    if !bounds.format.is_empty() && !formats::has(&bounds.format, text) {
        let detail = format!("{path} in body must be of type {}: {text:?}", bounds.format);
        push(faults, path, FaultKind::Type, text.into(), detail);
    }
}

fn of_number(new: &Value, bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let number = new.as_f64().unwrap_or_default();
    if let Some(max) = bounds.maximum {
        match bounds.exclusive_maximum {
            true if number >= max => {
                invalid(faults, path, new, format!("should be less than {max}"))
            }
            false if number > max => invalid(
                faults,
                path,
                new,
                format!("should be less than or equal to {max}"),
            ),
            _ => {}
        }
    }
    if let Some(min) = bounds.minimum {
        match bounds.exclusive_minimum {
            true if number <= min => {
                invalid(faults, path, new, format!("should be greater than {min}"))
            }
            false if number < min => invalid(
                faults,
                path,
                new,
                format!("should be greater than or equal to {min}"),
            ),
            _ => {}
        }
    }
    if let Some(step) = bounds.multiple_of.filter(|step| *step > 0.0) {
        let times = number / step;
        if (times - times.round()).abs() > 1e-9 {
            invalid(faults, path, new, format!("should be a multiple of {step}"));
        }
    }
    let (low, high) = match bounds.format.as_str() {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "float" => (f64::from(f32::MIN), f64::from(f32::MAX)),
        _ => return,
    };
    if !(low..=high).contains(&number) {
        let detail = format!(
            "Checked value must be of type integer with format {}",
            bounds.format
        );
        push(faults, path, FaultKind::Invalid, new.clone(), detail);
    }
}

fn of_list(items: &[Value], bounds: &Bounds, path: &Path<'_>, faults: &mut Vec<Fault>) {
    let count = items.len();
    if let Some(max) = bounds.max_items.filter(|max| count as u64 > *max) {
        push(
            faults,
            path,
            FaultKind::TooMany(count, max),
            Value::Null,
            String::new(),
        );
    }
    if let Some(min) = bounds.min_items.filter(|min| (count as u64) < *min) {
        invalid(
            faults,
            path,
            &Value::from(count),
            format!("should have at least {min} items"),
        );
    }
    if bounds.unique_items {
        let mut seen = std::collections::HashSet::new();
        if !items.iter().all(|item| seen.insert(item.to_string())) {
            invalid(
                faults,
                path,
                &Value::Array(items.to_vec()),
                "shouldn't contain duplicates".to_owned(),
            );
        }
    }
}
