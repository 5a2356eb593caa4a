//! Pruning: fields that the schema does not name are dropped, and told.

use serde_json::{Map as JsonMap, Value};

use super::{Additional, Structural};
use crate::path::{Path, Step};

/// How many dropped fields of one object are told.
const FAULTS_MAX: usize = 100;

/// Drops what the schema does not know; tells it, as `unknown field "spec.x"`. The root's
/// `apiVersion`, `kind` and `metadata` stay.
pub fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut walk = Walk { faults: Vec::new() };
    walk.value(object, schema, &Path::ROOT, true);
    walk.faults
}

struct Walk {
    faults: Vec<String>,
}

impl Walk {
    /// `resource` says that the value is an object of the API: the root, or an embedded one.
    fn value(&mut self, value: &mut Value, schema: &Structural, path: &Path<'_>, resource: bool) {
        match value {
            Value::Object(fields) => self.object(fields, schema, path, resource),
            Value::Array(items) => {
                let Some(item) = schema.items.as_deref() else {
                    return;
                };
                for (index, value) in items.iter_mut().enumerate() {
                    self.value(value, item, &path.then(Step::Index(index)), item.embedded);
                }
            }
            _ => {}
        }
    }

    fn object(
        &mut self,
        fields: &mut JsonMap<String, Value>,
        schema: &Structural,
        path: &Path<'_>,
        resource: bool,
    ) {
        fields.retain(|name, value| {
            if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            let path = path.then(Step::Field(name));
            if let Some(child) = schema.child(name) {
                // A null where none may be is as if the field were not there.
                let stays = !value.is_null() || child.nullable || child.preserves_unknown;
                self.value(value, child, &path, child.embedded);
                return stays;
            }
            if schema.preserves_unknown || matches!(schema.additional, Additional::Allowed(true)) {
                return true;
            }
            if self.faults.len() < FAULTS_MAX {
                self.faults.push(format!("unknown field \"{path}\""));
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_go_and_are_told() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "null": {"type": "string"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                         "properties": {"known": {"type": "object", "properties": {"x": {"type": "integer"}}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "list": {"type": "array", "items": {"type": "object", "x-kubernetes-embedded-resource": true}},
            }},
        }}));
        let mut object = json!({"kind": "X", "metadata": {"name": "a"}, "odd": 1, "spec": {
            "a": "b", "null": null, "odd": 2,
            "free": {"any": [1], "known": {"x": 1, "y": 2}},
            "map": {"one": {"k": "v", "odd": 1}},
            "list": [{"kind": "Y", "odd": 1}],
        }});
        let told = prune(&mut object, &schema);
        assert_eq!(
            object,
            json!({"kind": "X", "metadata": {"name": "a"}, "spec": {
                "a": "b",
                "free": {"any": [1], "known": {"x": 1}},
                "map": {"one": {"k": "v"}},
                "list": [{"kind": "Y"}],
            }})
        );
        let fields = [
            "odd",
            "spec.free.known.y",
            "spec.list[0].odd",
            "spec.map.one.odd",
            "spec.odd",
        ];
        let mut wanted: Vec<String> = fields
            .iter()
            .map(|f| format!("unknown field \"{f}\""))
            .collect();
        let mut told = told;
        told.sort();
        wanted.sort();
        assert_eq!(told, wanted);
    }
}
