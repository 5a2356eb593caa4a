//! Defaults: what is missing and has a default is filled in, from the outside inwards.

use serde_json::Value;

use super::Structural;

/// Fills in what is missing.
pub fn fill(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(fields) => {
            for (name, child) in &schema.properties {
                let Some(default) = &child.default else {
                    continue;
                };
                match fields.get(name) {
                    Some(Value::Null) if !child.nullable => {}
                    Some(_) => continue,
                    None => {}
                }
                fields.insert(name.clone(), default.clone());
            }
            for (name, value) in fields.iter_mut() {
                if let Some(child) = schema.child(name) {
                    fill(value, child);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = schema.items.as_deref() else {
                return;
            };
            for value in items {
                if value.is_null()
                    && !item.nullable
                    && let Some(default) = &item.default
                {
                    *value = default.clone();
                }
                fill(value, item);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn from_the_outside_inwards() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "n": {"type": "integer", "default": 3},
                "nullable": {"type": "string", "nullable": true, "default": "x"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string", "default": "b"}}}},
            }},
        }}));
        let mut empty = json!({});
        fill(&mut empty, &schema);
        assert_eq!(empty, json!({"spec": {"n": 3, "nullable": "x"}}));
        let mut given = json!({"spec": {"n": null, "nullable": null, "list": [{}, {"a": "c"}]}});
        fill(&mut given, &schema);
        assert_eq!(
            given,
            json!({"spec": {"n": 3, "nullable": null, "list": [{"a": "b"}, {"a": "c"}]}})
        );
    }
}
