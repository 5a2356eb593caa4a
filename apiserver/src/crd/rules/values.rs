//! Values as expressions see them: typed as their schema says.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use peapod_cel::Value;
use peapod_cel::value::{Key, List, ListKind};
use peapod_schema::custom::{Additional, JsonType, ListType, Structural};
use serde_json::Value as Json;

use super::types::escaped;

/// A value as its schema types it. `resource` says that it is an object of the API.
pub(super) fn of(json: &Json, schema: &Structural, resource: bool) -> Value {
    if schema.int_or_string {
        return Value::of_json(json);
    }
    match (schema.ty, json) {
        (Some(JsonType::Number), Json::Number(number)) => {
            Value::Double(number.as_f64().unwrap_or_default())
        }
        (Some(JsonType::Integer), Json::Number(number)) => {
            let whole = number
                .as_i64()
                .or_else(|| number.as_f64().map(|float| float as i64));
            Value::Int(whole.unwrap_or_default())
        }
        (Some(JsonType::String), Json::String(text)) => of_text(text, schema),
        (Some(JsonType::Array), Json::Array(items)) => {
            let item = |json| match schema.items.as_deref() {
                Some(inner) => of(json, inner, inner.embedded),
                None => Value::of_json(json),
            };
            let kind = match &schema.list {
                ListType::Atomic => ListKind::Plain,
                ListType::Set => ListKind::Set,
                ListType::Map(keys) => ListKind::Map(
                    keys.iter()
                        .map(|key| Key::from(escaped(key).as_str()))
                        .collect(),
                ),
            };
            Value::List(Arc::new(List {
                items: items.iter().map(item).collect(),
                kind,
            }))
        }
        (Some(JsonType::Object), Json::Object(fields)) => {
            let mut out = BTreeMap::new();
            for (name, json) in fields {
                if let Some((key, value)) = field(name, json, schema, resource || schema.embedded) {
                    out.insert(key, value);
                }
            }
            Value::Map(Arc::new(out))
        }
        _ => Value::of_json(json),
    }
}

fn field(name: &str, json: &Json, schema: &Structural, resource: bool) -> Option<(Key, Value)> {
    if let Additional::Of(values) = &schema.additional {
        return Some((Key::from(name), of(json, values, values.embedded)));
    }
    if resource && matches!(name, "apiVersion" | "kind" | "metadata") {
        return Some((Key::from(name), Value::of_json(json)));
    }
    let inner = schema.properties.get(name)?;
    // Expressions see no null where a field may be null: it is as if it were not there.
    let absent = json.is_null() && inner.nullable;
    (!absent).then(|| {
        (
            Key::from(escaped(name).as_str()),
            of(json, inner, inner.embedded),
        )
    })
}

fn of_text(text: &str, schema: &Structural) -> Value {
    let typed = match schema.bounds.format.as_str() {
        "date-time" => text.parse().ok().map(Value::Timestamp),
        "date" => format!("{text}T00:00:00Z")
            .parse()
            .ok()
            .map(Value::Timestamp),
        "duration" => peapod_cel::library::time::parse_duration(text).map(Value::Duration),
        "byte" => STANDARD
            .decode(text)
            .ok()
            .map(|bytes| Value::Bytes(bytes.into())),
        _ => None,
    };
    typed.unwrap_or_else(|| Value::text(text))
}
