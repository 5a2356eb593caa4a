//! Bytes to a JSON value: JSON or YAML, bounded in depth, duplicate keys noted.
//!
//! The size of a body is its reader's concern; the depth is bounded here, so that every later
//! walk may recurse.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map as JsonMap, Number, Value};
use thiserror::Error;

use crate::path::{Path, Step};

/// How deep a value may nest.
const DEPTH_MAX: usize = 128;
/// How many duplicate fields of one body are told.
const FAULTS_MAX: usize = 100;

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The value; of a duplicate key, the last.
    pub value: Value,
    /// The faults that strictness refuses, as `duplicate field "spec.x"`, at most 100.
    pub faults: Vec<String>,
}

/// Faults as they are found.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<String>);

impl Faults {
    /// Notes a field that stands there twice.
    pub(crate) fn duplicate(&mut self, path: &Path<'_>) {
        if self.0.len() < FAULTS_MAX {
            self.0.push(format!("duplicate field \"{path}\""));
        }
    }
}

impl From<Faults> for Vec<String> {
    fn from(faults: Faults) -> Self {
        faults.0
    }
}

/// The body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is no JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    /// It is no YAML, or it expands to more than a body may.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Yaml(String),
    /// It is no UTF-8.
    #[error("the body is not valid UTF-8")]
    Utf8,
}

/// Reads JSON.
pub fn json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut faults = Faults::default();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed {
        faults: &mut faults,
        path: &Path::ROOT,
        depth: 0,
    };
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| DecodeError::Json(error.to_string()))?;
    Ok(Decoded {
        value,
        faults: faults.into(),
    })
}

/// Reads one YAML document. Anchors may not expand beyond the parser's default budget.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
    let mut faults = Faults::default();
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        let seed = Seed {
            faults: &mut faults,
            path: &Path::ROOT,
            depth: 0,
        };
        seed.deserialize(reader)
    })
    .map_err(|error| DecodeError::Yaml(error.to_string()))?;
    Ok(Decoded {
        value,
        faults: faults.into(),
    })
}

/// Builds a value at a path.
struct Seed<'a> {
    faults: &'a mut Faults,
    path: &'a Path<'a>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        if self.depth > DEPTH_MAX {
            return Err(D::Error::custom("exceeded max depth"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let path = self.path.then(Step::Index(list.len()));
            let seed = Seed {
                faults: &mut *self.faults,
                path: &path,
                depth: self.depth + 1,
            };
            match items.next_element_seed(seed)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = JsonMap::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = self.path.then(Step::Field(&key));
            let seed = Seed {
                faults: &mut *self.faults,
                path: &path,
                depth: self.depth + 1,
            };
            let value = entries.next_value_seed(seed)?;
            match map.entry(key) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(mut place) => {
                    let path = self.path.then(Step::Field(place.key()));
                    self.faults.duplicate(&path);
                    place.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}
