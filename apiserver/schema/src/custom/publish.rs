//! A custom resource's schema as the OpenAPI documents show it.

use serde_json::{Map as JsonMap, Value, json};

/// What is particular to the documents that a kind is shown in.
#[derive(Clone, Copy, Debug)]
pub struct Publication<'a> {
    /// The reference to `ObjectMeta` in the document.
    pub metadata: &'a Value,
    /// Whether the document is OpenAPI v2, which cannot say everything.
    pub v2: bool,
}

/// What v2 has no words for; what depends on it is left open.
const NOT_IN_V2: [&str; 5] = ["allOf", "anyOf", "not", "nullable", "oneOf"];

/// The definition of a kind: the author's schema, with the fields that every object has.
pub fn publish(schema: &Value, to: Publication<'_>) -> Value {
    let mut shape = schema.clone();
    let keeps = schema["x-kubernetes-preserve-unknown-fields"] == Value::Bool(true);
    if to.v2 && keeps {
        // v2's readers take any field beside those that are named for a fault.
        return json!({"type": "object"});
    }
    if !shape.is_object() {
        shape = json!({"type": "object"});
    }
    if to.v2 {
        simplify(&mut shape);
    }
    if !shape["properties"].is_object() {
        shape["properties"] = json!({});
    }
    for (name, description) in [
        (
            "apiVersion",
            "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
        ),
        (
            "kind",
            "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
        ),
    ] {
        shape["properties"][name] = json!({"type": "string", "description": description});
    }
    let description = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    shape["properties"]["metadata"] = match to.v2 {
        true => {
            let mut metadata = to.metadata.clone();
            metadata["description"] = description.into();
            metadata
        }
        false => json!({"allOf": [to.metadata], "description": description}),
    };
    shape
}

/// Drops what v2 cannot say, in the whole schema.
fn simplify(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    let open = fields.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    let nullable = fields.get("nullable") == Some(&Value::Bool(true));
    fields.retain(|name, _| !NOT_IN_V2.contains(&name.as_str()));
    if fields.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) || nullable {
        // Clients that check by v2 would refuse the other type.
        for name in [
            "type",
            "format",
            "enum",
            "items",
            "properties",
            "additionalProperties",
        ] {
            fields.remove(name);
        }
    }
    if open {
        // An open object may have any field, which v2's readers take for a fault.
        for name in ["type", "items", "properties", "additionalProperties"] {
            fields.remove(name);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            simplify(inner);
        }
    }
    let nothing = &mut JsonMap::new();
    let properties = fields.get_mut("properties").and_then(Value::as_object_mut);
    properties
        .unwrap_or(nothing)
        .values_mut()
        .for_each(simplify);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v2_says_no_more_of_an_open_object_than_that_it_is_one() {
        let metadata = json!({"$ref": "#/definitions/ObjectMeta"});
        let schema = json!({
            "type": "object", "description": "open", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"spec": {"type": "object"}},
        });
        let published = |v2| {
            let metadata = &metadata;
            publish(&schema, Publication { metadata, v2 })
        };
        assert_eq!(published(true), json!({"type": "object"}));
        let v3 = published(false);
        assert_eq!(v3["x-kubernetes-preserve-unknown-fields"], true);
        assert_eq!(v3["properties"]["kind"]["type"], "string");
    }
}
