//! The types that expressions see: from a schema, with the sizes that it, or the size of a
//! request, bounds.

use std::collections::BTreeMap;
use std::sync::Arc;

use peapod_cel::{ObjectType, Type};
use peapod_schema::custom::{Additional, JsonType, Structural};

/// Most bytes of a request, which bounds what has no bound of its own.
const REQUEST_MAX: u64 = 3 * 1024 * 1024;
/// Words that no field of an expression may be called.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The type of a schema's values. `resource` says that they are objects of the API.
pub(super) fn of(schema: &Structural, resource: bool) -> Type {
    if schema.int_or_string {
        return Type::Dyn;
    }
    let bounds = &schema.bounds;
    match schema.ty {
        None => Type::Dyn,
        Some(JsonType::Boolean) => Type::Bool,
        Some(JsonType::Integer) => Type::Int,
        Some(JsonType::Number) => Type::Double,
        Some(JsonType::String) => text(schema),
        Some(JsonType::Array) => {
            let item = schema.items.as_deref();
            let least = item.map_or(1, least_bytes);
            let max = bounds.max_items.unwrap_or((REQUEST_MAX - 2) / (least + 1));
            let item = item.map_or(Type::Dyn, |item| of(item, item.embedded));
            Type::List(Arc::new(item), max)
        }
        Some(JsonType::Object) => match &schema.additional {
            Additional::Of(values) => {
                let max = bounds
                    .max_properties
                    .unwrap_or((REQUEST_MAX - 2) / (least_bytes(values) + 6));
                Type::Map(
                    Arc::new(Type::STRING.sized(256)),
                    Arc::new(of(values, values.embedded)),
                    max,
                )
            }
            _ => object(schema, resource || schema.embedded),
        },
    }
}

fn text(schema: &Structural) -> Type {
    let bounds = &schema.bounds;
    let unbounded = REQUEST_MAX - 2;
    match bounds.format.as_str() {
        "byte" => Type::Bytes(bounds.max_length.unwrap_or(unbounded)),
        "duration" => Type::Duration,
        "date" | "date-time" => Type::Timestamp,
        _ => {
            let longest = bounds
                .allowed
                .iter()
                .filter_map(|one| Some(one.as_str()?.len() as u64))
                .max();
            // A character may take four bytes.
            let max = bounds.max_length.map(|max| max.saturating_mul(4));
            Type::String(longest.or(max).unwrap_or(unbounded).min(unbounded))
        }
    }
}

fn object(schema: &Structural, resource: bool) -> Type {
    let mut fields = BTreeMap::new();
    for (name, field) in &schema.properties {
        // What has no type is not for expressions to see.
        let hidden = field.ty.is_none() && !field.int_or_string;
        if !hidden {
            fields.insert(escaped(name), of(field, field.embedded));
        }
    }
    if resource {
        let name = || Type::String(253);
        let metadata = Type::object(
            "metadata",
            ["name", "generateName"].map(|field| (field.to_owned(), name())),
        );
        fields.insert("apiVersion".to_owned(), Type::String(253));
        fields.insert("kind".to_owned(), Type::String(63));
        fields.insert("metadata".to_owned(), metadata);
    }
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    Type::Object(Arc::new(ObjectType {
        name: format!("object({})", names.join(",")),
        fields,
        open: false,
    }))
}

/// The fewest bytes that a value takes in a request.
fn least_bytes(schema: &Structural) -> u64 {
    if schema.int_or_string {
        return 1;
    }
    match schema.ty {
        Some(JsonType::Boolean) => 4,
        Some(JsonType::String) => match schema.bounds.format.as_str() {
            "date" => 12,
            "date-time" => 22,
            _ => 2,
        },
        Some(JsonType::Object) => {
            let required = schema.bounds.required.iter();
            let fields = required.filter_map(|name| Some((name, schema.properties.get(name)?)));
            let fields = fields.filter(|(_, field)| field.default.is_none());
            2 + fields
                .map(|(name, field)| name.len() as u64 + least_bytes(field) + 4)
                .sum::<u64>()
        }
        Some(JsonType::Array) => 2,
        _ => 1,
    }
}

/// A field's name as expressions spell it.
pub(super) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        for (name, expected) in [
            ("namespace", "__namespace__"),
            ("a.b-c/d", "a__dot__b__dash__c__slash__d"),
            ("a__b", "a__underscores__b"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(escaped(name), expected);
        }
    }
}
