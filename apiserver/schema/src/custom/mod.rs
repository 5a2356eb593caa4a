//! Schemas of custom resources: the structural subset of OpenAPI v3 with Kubernetes' extensions,
//! read once from a definition, and what is done with a value by them: pruning ([`prune`]),
//! defaults ([`defaults`]) and validation ([`validate`]).
//!
//! Built-in kinds are decoded as Go's structs are: a wrong type is a malformed request. Custom
//! resources are taken as they come, and a wrong type is a fault of the object, like any other.
//!
//! See "Extend the Kubernetes API with CustomResourceDefinitions" in Kubernetes' docs.

pub mod defaults;
mod formats;
mod lists;
pub mod prune;
mod publish;
mod read;
pub mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

pub use formats::is_known as is_known_format;
pub use publish::{Publication, publish};
pub use validate::{Fault, FaultKind};

/// A type of JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// What an object's fields may be that `properties` does not name.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// Anything, or nothing.
    Allowed(bool),
    /// Values of one schema.
    Of(Box<Structural>),
}

/// How a list is told apart (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// It is one value.
    #[default]
    Atomic,
    /// Each item at most once.
    Set,
    /// Items are objects, known by these fields.
    Map(Vec<String>),
}

/// A `pattern`, compiled.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// As it was written.
    pub text: String,
    /// Compiled; none when it is no regular expression, which then matches everything (such a
    /// definition is refused when it is written).
    pub regex: Option<Regex>,
}

/// One rule of `x-kubernetes-validations`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// What is told when it is false.
    pub message: String,
    /// The expression that makes that text.
    pub message_expression: String,
    /// `FieldValueInvalid` and the like; empty for that.
    pub reason: String,
    /// The field that is blamed, relative to the rule's place, as `.a.b`.
    pub field_path: String,
    /// Whether a transition rule also runs where there was no value, `oldSelf` being optional.
    pub optional_old_self: bool,
}

/// Bounds on a value, which may stand in any schema, also below `allOf` and its like.
#[derive(Clone, Debug, Default)]
pub struct Bounds {
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `pattern`
    pub pattern: Option<Pattern>,
    /// `maxItems`
    pub max_items: Option<u64>,
    /// `minItems`
    pub min_items: Option<u64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `maxProperties`
    pub max_properties: Option<u64>,
    /// `minProperties`
    pub min_properties: Option<u64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub allowed: Vec<Value>,
    /// `format`
    pub format: String,
}

/// A schema.
#[derive(Clone, Debug, Default)]
pub struct Structural {
    /// `type`
    pub ty: Option<JsonType>,
    /// `nullable`
    pub nullable: bool,
    /// `default`
    pub default: Option<Value>,
    /// `properties`
    pub properties: BTreeMap<String, Structural>,
    /// `additionalProperties`
    pub additional: Additional,
    /// `items`
    pub items: Option<Box<Structural>>,
    /// Bounds on the value.
    pub bounds: Bounds,
    /// `allOf`
    pub all_of: Vec<Structural>,
    /// `anyOf`
    pub any_of: Vec<Structural>,
    /// `oneOf`
    pub one_of: Vec<Structural>,
    /// `not`
    pub not: Option<Box<Structural>>,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserves_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type` and its keys.
    pub list: ListType,
    /// `x-kubernetes-validations`
    pub rules: Vec<Rule>,
}

// === impl JsonType ===

impl JsonType {
    /// Reads the name of a type.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The name of the type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

// === impl Structural ===

impl Structural {
    /// Reads a schema; what it does not know is ignored.
    pub fn of(schema: &Value) -> Self {
        read::structural(schema, 0)
    }

    /// The schema of a field or of a map's values.
    pub fn child(&self, name: &str) -> Option<&Self> {
        if let Some(found) = self.properties.get(name) {
            return Some(found);
        }
        match &self.additional {
            Additional::Of(values) => Some(values),
            _ => None,
        }
    }

    /// Whether there is a default anywhere.
    pub fn has_defaults(&self) -> bool {
        self.default.is_some() || self.children().any(Self::has_defaults)
    }

    /// Whether there are rules anywhere.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty() || self.children().any(Self::has_rules)
    }

    /// The schemas of parts: fields, values, items.
    pub fn children(&self) -> impl Iterator<Item = &Self> {
        let additional = match &self.additional {
            Additional::Of(values) => Some(&**values),
            _ => None,
        };
        self.properties
            .values()
            .chain(additional)
            .chain(self.items.as_deref())
    }
}
