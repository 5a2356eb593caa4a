//! Reading and writing fields of untyped objects by path. All reads treat a missing field, a
//! null and a value of another type alike: there is nothing.

use serde_json::{Map, Value};

/// The value at a dotted path of fields, as `spec.template.spec`.
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let found = path
        .split('.')
        .try_fold(object, |value, field| value.get(field))?;
    (!found.is_null()).then_some(found)
}

/// The mutable value at a path, when it is there.
pub fn at_mut<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let found = path
        .split('.')
        .try_fold(object, |value, field| value.get_mut(field))?;
    (!found.is_null()).then_some(found)
}

/// The text at a path; empty when there is none.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
pub fn integer(object: &Value, path: &str) -> Option<i64> {
    at(object, path).and_then(Value::as_i64)
}

/// Whether the boolean at a path is true.
pub fn truth(object: &Value, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at a path; empty when there is none.
pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The fields of the object at a path, when there is one.
pub fn map<'a>(object: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(object, path).and_then(Value::as_object)
}

/// Sets the value at a path, making the objects on the way. A value on the way that is no
/// object is replaced.
pub fn set(object: &mut Value, path: &str, value: impl Into<Value>) {
    *entry(object, path) = value.into();
}

/// Sets the value at a path unless there is one.
pub fn set_default(object: &mut Value, path: &str, value: impl Into<Value>) {
    let place = entry(object, path);
    if place.is_null() {
        *place = value.into();
    }
}

/// The place at a path, made when it is missing.
pub fn entry<'a>(object: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(object, |value, field| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[field]
    })
}

/// Takes the value at a path out of the object.
pub fn remove(object: &mut Value, path: &str) -> Option<Value> {
    match path.rsplit_once('.') {
        None => object.as_object_mut()?.remove(path),
        Some((parent, field)) => at_mut(object, parent)?.as_object_mut()?.remove(field),
    }
}

/// Sets the value at a path, or removes it when there is none.
pub fn set_or_remove(object: &mut Value, path: &str, value: Option<Value>) {
    match value {
        Some(value) => set(object, path, value),
        None => {
            remove(object, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_and_writes_by_path() {
        let mut object = json!({"spec": {"a": "x", "n": 3, "none": null}});
        assert_eq!(text(&object, "spec.a"), "x");
        assert_eq!(text(&object, "spec.n"), "");
        assert_eq!(integer(&object, "spec.n"), Some(3));
        assert_eq!(at(&object, "spec.none"), None);
        set(&mut object, "status.phase", "Pending");
        set_default(&mut object, "spec.a", "y");
        assert_eq!(remove(&mut object, "spec.n"), Some(json!(3)));
        assert_eq!(
            object,
            json!({"spec": {"a": "x", "none": null}, "status": {"phase": "Pending"}})
        );
    }
}
