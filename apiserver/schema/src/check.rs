//! Checks a decoded value against a schema, in one walk.
//!
//! It does what decoding into Go's structs does, for that is what clients have learned to
//! expect: a wrong type is an error, an unknown field is dropped and noted, a null is as if the
//! field were not there, and quantities, times and base64 take their canonical text.

use serde_json::{Map as JsonMap, Value};
use thiserror::Error;

use crate::custom::prune::prune;
use crate::graph::{Node, Object, Schema, Type};
use crate::path::{Path, Step};
use crate::scalar::{self, Mismatch};

/// How many faults of one object are told.
const FAULTS_MAX: usize = 100;

/// What a client asks to happen to unknown and duplicate fields (`fieldValidation=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// The request fails.
    Strict,
    /// They are dropped, with a warning each.
    #[default]
    Warn,
    /// They are dropped.
    Ignore,
}

/// A value that is not of its field's type. The message is the decoder's, without the
/// sentence about the kind around it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TypeError(pub String);

/// The faults of an object whose sender asked for strictness.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("strict decoding error: {}", .0.join(", "))]
pub struct StrictError(pub Vec<String>);

impl FieldValidation {
    /// Reads the query parameter; empty means the default. `None` for what it may not be.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }

    /// What becomes of the faults found by decoding and [`check`]: the warnings to send, or an
    /// error.
    pub fn settle(self, faults: Vec<String>) -> Result<Vec<String>, StrictError> {
        match self {
            Self::Strict if !faults.is_empty() => Err(StrictError(faults)),
            Self::Warn => Ok(faults),
            _ => Ok(Vec::new()),
        }
    }
}

/// Checks a value, and makes it what the API keeps: without unknown fields and nulls, with
/// scalars in canonical form. Gives the faults, as `unknown field "spec.x"`, at most 100.
pub fn check(value: &mut Value, schema: &Schema) -> Result<Vec<String>, TypeError> {
    let mut walk = Walk { faults: Vec::new() };
    match schema.custom() {
        None => walk.value(value, schema.root(), &Path::ROOT, "")?,
        Some(custom) => {
            walk.metadata(value, schema)?;
            walk.faults.extend(prune(value, custom));
        }
    }
    Ok(walk.faults)
}

struct Walk {
    faults: Vec<String>,
}

impl Walk {
    /// Checks the metadata of a custom resource; the rest is taken as it comes.
    fn metadata(&mut self, value: &mut Value, schema: &Schema) -> Result<(), TypeError> {
        let (Some(fields), Some(node)) = (value.as_object_mut(), schema.root().child("metadata"))
        else {
            return Ok(());
        };
        match fields.get_mut("metadata") {
            Some(Value::Null) => {
                fields.remove("metadata");
                Ok(())
            }
            Some(metadata) => self.value(
                metadata,
                node,
                &Path::ROOT.then(Step::Field("metadata")),
                "",
            ),
            None => Ok(()),
        }
    }

    /// `owner` is the struct whose field is at `path`.
    fn value(
        &mut self,
        value: &mut Value,
        node: Node<'_>,
        path: &Path<'_>,
        owner: &str,
    ) -> Result<(), TypeError> {
        match (node.ty(), &mut *value) {
            (Type::Scalar(scalar), value) => {
                let given = scalar::canonical(*scalar, value, node.graph.quantity);
                given.map_err(|fault| type_error(value, node, path, owner, fault))
            }
            (Type::Object(object), Value::Object(fields)) => {
                self.object(fields, object, node, path)
            }
            (Type::Map(map), Value::Object(entries)) => {
                let inner = node.to(map.value);
                for (key, value) in entries.iter_mut() {
                    self.element(value, inner, &path.then(Step::Field(key)), owner)?;
                }
                Ok(())
            }
            (Type::List(list), Value::Array(items)) => {
                let inner = node.to(list.item);
                for (index, value) in items.iter_mut().enumerate() {
                    self.element(value, inner, &path.then(Step::Index(index)), owner)?;
                }
                Ok(())
            }
            (_, value) => Err(type_error(value, node, path, owner, Mismatch::Type)),
        }
    }

    fn object(
        &mut self,
        fields: &mut JsonMap<String, Value>,
        object: &Object,
        node: Node<'_>,
        path: &Path<'_>,
    ) -> Result<(), TypeError> {
        let mut failed = Ok(());
        fields.retain(|name, value| {
            if failed.is_err() {
                return true;
            }
            let Some(field) = object.field(name) else {
                return self.unknown(object, name, path);
            };
            if value.is_null() {
                return false;
            }
            let path = path.then(Step::Field(name));
            failed = self.value(value, node.to(field.ty), &path, &object.name);
            true
        });
        failed
    }

    /// An item of a list or a value of a map: a null becomes what Go makes of it.
    fn element(
        &mut self,
        value: &mut Value,
        node: Node<'_>,
        path: &Path<'_>,
        owner: &str,
    ) -> Result<(), TypeError> {
        if !value.is_null() {
            return self.value(value, node, path, owner);
        }
        *value = match node.ty() {
            Type::Scalar(scalar) => scalar::zero(*scalar),
            Type::List(_) => Value::Array(Vec::new()),
            Type::Map(_) | Type::Object(_) => Value::Object(JsonMap::new()),
        };
        Ok(())
    }

    /// Notes a field that the schema does not know; says whether it stays.
    fn unknown(&mut self, object: &Object, name: &str, path: &Path<'_>) -> bool {
        if object.keeps_unknown {
            return true;
        }
        if self.faults.len() < FAULTS_MAX {
            let path = path.then(Step::Field(name));
            self.faults.push(format!("unknown field \"{path}\""));
        }
        false
    }
}

#[cold]
fn type_error(
    value: &Value,
    node: Node<'_>,
    path: &Path<'_>,
    owner: &str,
    fault: Mismatch,
) -> TypeError {
    let given = match (fault, value) {
        (Mismatch::Parse(message), _) => return TypeError(message),
        (Mismatch::Range(number), _) => format!("number {number}"),
        (Mismatch::Type, Value::Null) => "null".to_owned(),
        (Mismatch::Type, Value::Bool(_)) => "bool".to_owned(),
        (Mismatch::Type, Value::Number(_)) => "number".to_owned(),
        (Mismatch::Type, Value::String(_)) => "string".to_owned(),
        (Mismatch::Type, Value::Array(_)) => "array".to_owned(),
        (Mismatch::Type, Value::Object(_)) => "object".to_owned(),
    };
    let target = node.go_name();
    let place = path.fields();
    TypeError(match owner.rsplit('.').next() {
        Some(owner) if !place.is_empty() => format!(
            "json: cannot unmarshal {given} into Go struct field {owner}.{place} of type {target}"
        ),
        _ => format!("json: cannot unmarshal {given} into Go value of type {target}"),
    })
}
