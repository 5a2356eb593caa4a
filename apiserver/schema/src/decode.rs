//! Bytes to a JSON value: JSON or YAML, bounded in depth, duplicate keys noted.
//!
//! The size of a body is its reader's concern; the depth is bounded here, so that every later
//! walk may recurse.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde_json::map::Entry;
use serde_json::{Map as JsonMap, Number, Value};
use serde_saphyr::Spanned;
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
        .map_err(|error| match error.is_eof() {
            true => DecodeError::Json("unexpected end of JSON input".to_owned()),
            false => DecodeError::Json(error.to_string()),
        })?;
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

/// Puts the faults of a body in JSON in the order in which their fields stand in it, which is how
/// upstream tells them.
pub fn in_order(bytes: &[u8], faults: Vec<String>) -> Vec<String> {
    let mut places = Places::of(&faults);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let walk = Whole::<String>::new(&mut places);
    if faults.len() < 2 || walk.deserialize(&mut reader).is_err() {
        return faults;
    }
    let mut ranked: Vec<(usize, String)> = faults
        .into_iter()
        .map(|fault| (places.rank(&fault).unwrap_or(usize::MAX), fault))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, fault)| fault).collect()
}

/// What a strict reader of YAML says of the keys that stand twice in a body: each with its line.
/// `None` where there are none.
pub fn repeated_keys(bytes: &[u8], faults: &[String]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut places = Places::of(faults.iter().filter(|fault| fault.starts_with(DUPLICATE)));
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        Whole::<Spanned<String>>::new(&mut places).deserialize(reader)
    })
    .ok()?;
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for (path, found) in &places.0 {
        let key = path.rsplit('.').next().unwrap_or(path);
        lines.extend(found.iter().skip(1).map(|line| (*line, key)));
    }
    lines.sort_unstable();
    let told = lines
        .iter()
        .map(|(line, key)| format!("\n  line {line}: key {key:?} already set in map"));
    (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:{}", told.collect::<String>()))
}

/// Where the fields of faults stand in a body: in the order of their appearance, or by line.
struct Places(HashMap<String, Vec<usize>>);

/// How a fault begins that is of a field that stands there twice.
const DUPLICATE: &str = "duplicate field";

// === impl Places ===

impl Places {
    fn of<'a>(faults: impl IntoIterator<Item = &'a String>) -> Self {
        let paths = faults.into_iter().filter_map(|fault| path_of(fault));
        Self(paths.map(|path| (path.to_owned(), Vec::new())).collect())
    }

    /// Where the field of a fault stands; one that stands there twice, for the second time.
    fn rank(&self, fault: &str) -> Option<usize> {
        let again = usize::from(fault.starts_with(DUPLICATE));
        self.0.get(path_of(fault)?)?.get(again).copied()
    }
}

fn path_of(fault: &str) -> Option<&str> {
    fault.split_once('"')?.1.strip_suffix('"')
}

/// A key of a mapping, and the line that it is on where the reader knows lines.
trait Place: DeserializeOwned {
    fn apart(self) -> (String, Option<usize>);
}

impl Place for String {
    fn apart(self) -> (String, Option<usize>) {
        (self, None)
    }
}

impl Place for Spanned<String> {
    fn apart(self) -> (String, Option<usize>) {
        let line = usize::try_from(self.referenced.line()).ok();
        (self.value, line)
    }
}

/// Notes where wanted fields are; values themselves are passed over. The body was read before, so
/// that its depth is known to be bounded.
struct Locate<'a, K> {
    places: &'a mut Places,
    /// How many fields came before.
    count: &'a mut usize,
    path: &'a Path<'a>,
    keys: PhantomData<K>,
}

/// A walk over a whole body.
struct Whole<'a, K> {
    places: &'a mut Places,
    keys: PhantomData<K>,
}

impl<'a, K: Place> Whole<'a, K> {
    fn new(places: &'a mut Places) -> Self {
        Self {
            places,
            keys: PhantomData,
        }
    }
}

impl<'de, K: Place> DeserializeSeed<'de> for Whole<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let locate = Locate::<K> {
            places: self.places,
            count: &mut 0,
            path: &Path::ROOT,
            keys: PhantomData,
        };
        locate.deserialize(reader)
    }
}

impl<'de, K: Place> DeserializeSeed<'de> for Locate<'_, K> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de, K: Place> Visitor<'de> for Locate<'_, K> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        self.deserialize(reader)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let path = self.path.then(Step::Index(index));
            let inner = Locate::<K> {
                places: &mut *self.places,
                count: &mut *self.count,
                path: &path,
                keys: PhantomData,
            };
            if items.next_element_seed(inner)?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<K>()? {
            let (key, line) = key.apart();
            let path = self.path.then(Step::Field(&key));
            *self.count += 1;
            if let Some(found) = self.places.0.get_mut(&path.to_string()) {
                found.push(line.unwrap_or(*self.count));
            }
            entries.next_value_seed(Locate::<K> {
                places: &mut *self.places,
                count: &mut *self.count,
                path: &path,
                keys: PhantomData,
            })?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_in_the_order_of_the_document() {
        let body =
            br#"{"spec": {"odd": 1, "replicas": 2, "a": [{"x": 1, "odd": 2}], "replicas": 3}}"#;
        let faults = [
            "duplicate field \"spec.replicas\"",
            "unknown field \"spec.a[0].odd\"",
            "unknown field \"spec.odd\"",
        ];
        let told = in_order(body, faults.map(str::to_owned).into());
        assert_eq!(told, [faults[2], faults[1], faults[0]]);
    }

    #[test]
    fn repeated_keys_of_yaml_have_lines() {
        let body = b"\nspec:\n  foo: a\n  bar:\n    - x: 1\n      x: 2\n  foo: b\n";
        let faults = yaml(body).unwrap().faults;
        assert_eq!(
            repeated_keys(body, &faults).unwrap(),
            "yaml: unmarshal errors:\n  line 6: key \"x\" already set in map\n  line 7: key \"foo\" already set in map"
        );
        assert_eq!(repeated_keys(b"a: 1\n", &[]), None);
    }
}
