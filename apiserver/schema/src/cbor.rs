//! CBOR (RFC 8949), as Kubernetes uses it: what JSON can say, and nothing more.
//!
//! Bodies begin with the tag of self-described CBOR. Texts are written as byte strings, as
//! upstream writes them, and read from both; a byte string that is tagged for a later encoding
//! (RFC 8949, 3.4.5.2) reads as that text. Maps and lists are written without their length, so
//! that JSON is rewritten in one pass.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use minicbor::data::Type;
use minicbor::encode::Write;
use minicbor::{Decoder, Encoder};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use crate::decode::{Decoded, Faults};
use crate::path::{Path, Step};

/// The media type of one value.
pub const MEDIA_TYPE: &str = "application/cbor";
/// The media type of a watch: values one after the other (RFC 8742).
pub const SEQUENCE: &str = "application/cbor-seq";
/// The tag of self-described CBOR.
const SELF_DESCRIBED: u64 = 55_799;
/// How deep a value may nest, as upstream has it.
const DEPTH_MAX: usize = 64;

/// The bytes are no CBOR, or say what JSON cannot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cbor: {0}")]
pub struct CborError(String);

impl From<minicbor::decode::Error> for CborError {
    fn from(fault: minicbor::decode::Error) -> Self {
        Self(fault.to_string())
    }
}

impl From<serde_json::Error> for CborError {
    fn from(fault: serde_json::Error) -> Self {
        Self(fault.to_string())
    }
}

fn refuse<T>(why: impl fmt::Display) -> Result<T, CborError> {
    Err(CborError(why.to_string()))
}

/// Reads one value, noting duplicate fields.
pub fn decode(bytes: &[u8]) -> Result<Decoded, CborError> {
    let mut reader = Reader {
        input: Decoder::new(bytes),
        faults: Faults::default(),
    };
    let value = reader.value(&Path::ROOT, DEPTH_MAX)?;
    match reader.input.position() == bytes.len() {
        true => Ok(Decoded {
            value,
            faults: reader.faults.into(),
        }),
        false => refuse("more bytes follow the value"),
    }
}

/// Reads the values of a sequence (RFC 8742).
pub fn decode_sequence(bytes: &[u8]) -> Result<Vec<Value>, CborError> {
    let mut reader = Reader {
        input: Decoder::new(bytes),
        faults: Faults::default(),
    };
    let mut values = Vec::new();
    while reader.input.position() < bytes.len() {
        values.push(reader.value(&Path::ROOT, DEPTH_MAX)?);
    }
    Ok(values)
}

/// Rewrites JSON as a body.
pub fn encode(json: &[u8]) -> Result<Vec<u8>, CborError> {
    let mut out = Encoder::new(Vec::with_capacity(json.len()));
    mark(&mut out);
    append(json, &mut out)?;
    Ok(out.into_writer())
}

/// Rewrites JSON as the next item of a list.
pub fn append_item(json: &[u8], out: &mut Vec<u8>) -> Result<(), CborError> {
    append(json, &mut Encoder::new(out))
}

/// What stands before the items of a list: the other fields of it, given as a JSON object, and
/// the name of its items.
pub fn list_head(fields: &Map<String, Value>, items: &str) -> Result<Vec<u8>, CborError> {
    let mut out = Encoder::new(Vec::new());
    mark(&mut out);
    ok(out.begin_map());
    for (name, value) in fields {
        ok(out.bytes(name.as_bytes()));
        append(&serde_json::to_vec(value)?, &mut out)?;
    }
    ok(out.bytes(items.as_bytes()));
    ok(out.begin_array());
    Ok(out.into_writer())
}

/// What stands behind the items of a list.
pub const LIST_END: &[u8] = &[0xff, 0xff];

/// One event of a watch, whose object is a body of its own.
pub fn watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Encoder::new(Vec::with_capacity(object.len() + 32));
    mark(&mut out);
    ok(out.map(2));
    ok(out.bytes(b"type"));
    ok(out.bytes(kind.as_bytes()));
    ok(out.bytes(b"object"));
    let mut event = out.into_writer();
    event.extend_from_slice(object);
    event
}

fn mark<W: Write<Error: fmt::Debug>>(out: &mut Encoder<W>) {
    ok(out.tag(minicbor::data::Tag::new(SELF_DESCRIBED)));
}

/// Writing to memory does not fail.
fn ok<T, E>(written: Result<T, E>) {
    debug_assert!(written.is_ok(), "writing to memory failed");
}

fn append<W: Write>(json: &[u8], out: &mut Encoder<W>) -> Result<(), CborError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Rewrite(out).deserialize(&mut reader)?;
    Ok(reader.end()?)
}

/// Writes what is read.
struct Rewrite<'o, W>(&'o mut Encoder<W>);

impl<'de, W: Write> DeserializeSeed<'de> for Rewrite<'_, W> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de, W: Write> Visitor<'de> for Rewrite<'_, W> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        ok(self.0.null());
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        ok(self.0.bool(truth));
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        ok(self.0.i64(number));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        ok(self.0.u64(number));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        ok(self.0.f64(number));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        ok(self.0.bytes(text.as_bytes()));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        ok(self.0.begin_array());
        while items.next_element_seed(Rewrite(&mut *self.0))?.is_some() {}
        ok(self.0.end());
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        ok(self.0.begin_map());
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            ok(self.0.bytes(key.as_bytes()));
            entries.next_value_seed(Rewrite(&mut *self.0))?;
        }
        ok(self.0.end());
        Ok(())
    }
}

/// Reads a value, item by item.
struct Reader<'b> {
    input: Decoder<'b>,
    faults: Faults,
}

// === impl Reader ===

impl Reader<'_> {
    fn value(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, CborError> {
        let Some(depth) = depth.checked_sub(1) else {
            return refuse(format_args!("values nest more than {DEPTH_MAX} deep"));
        };
        Ok(match self.input.datatype()? {
            Type::Null => self.input.null().map(|()| Value::Null)?,
            Type::Bool => self.input.bool()?.into(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.input.i64()?.into(),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => self.input.i64()?.into(),
            Type::F16 | Type::F32 | Type::F64 => match Number::from_f64(self.float()?) {
                Some(number) => Value::Number(number),
                None => return refuse("a number is not finite"),
            },
            Type::String | Type::StringIndef | Type::Bytes | Type::BytesIndef => {
                self.text()?.into()
            }
            Type::Array | Type::ArrayIndef => self.list(path, depth)?,
            Type::Map | Type::MapIndef => self.object(path, depth)?,
            Type::Tag => return self.tagged(path, depth),
            other => return refuse(format_args!("{other} has no counterpart in JSON")),
        })
    }

    fn float(&mut self) -> Result<f64, CborError> {
        Ok(match self.input.datatype()? {
            Type::F16 => self.input.f16()?.into(),
            Type::F32 => self.input.f32()?.into(),
            _ => self.input.f64()?,
        })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, CborError> {
        let mut all = Vec::new();
        match self.input.datatype()? {
            Type::String | Type::StringIndef => {
                for part in self.input.str_iter()? {
                    all.extend_from_slice(part?.as_bytes());
                }
            }
            _ => {
                for part in self.input.bytes_iter()? {
                    all.extend_from_slice(part?);
                }
            }
        }
        Ok(all)
    }

    fn text(&mut self) -> Result<String, CborError> {
        String::from_utf8(self.bytes()?).or_else(|_| refuse("a text is not valid UTF-8"))
    }

    fn tagged(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, CborError> {
        let tag = self.input.tag()?.as_u64();
        let bytes = matches!(self.input.datatype()?, Type::Bytes | Type::BytesIndef);
        match tag {
            2 | 3 => refuse("big numbers have no counterpart in JSON"),
            21 if bytes => Ok(URL_SAFE_NO_PAD.encode(self.bytes()?).into()),
            22 if bytes => Ok(STANDARD.encode(self.bytes()?).into()),
            23 if bytes => {
                let hex = self
                    .bytes()?
                    .iter()
                    .map(|byte| format!("{byte:02X}"))
                    .collect();
                Ok(Value::String(hex))
            }
            _ => self.value(path, depth),
        }
    }

    /// Whether another item follows, of a container with `left` items or up to its break.
    fn follows(&mut self, left: &mut Option<u64>) -> Result<bool, CborError> {
        match left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if self.input.datatype()? == Type::Break => {
                self.input.skip()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn list(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, CborError> {
        let mut left = self.input.array()?;
        let mut items = Vec::new();
        while self.follows(&mut left)? {
            items.push(self.value(&path.then(Step::Index(items.len())), depth)?);
        }
        Ok(Value::Array(items))
    }

    fn object(&mut self, path: &Path<'_>, depth: usize) -> Result<Value, CborError> {
        let mut left = self.input.map()?;
        let mut fields = Map::new();
        while self.follows(&mut left)? {
            match self.input.datatype()? {
                Type::String | Type::StringIndef | Type::Bytes | Type::BytesIndef => {}
                other => return refuse(format_args!("a key is of type {other}")),
            }
            let key = self.text()?;
            let path = path.then(Step::Field(&key));
            let value = self.value(&path, depth)?;
            if fields.contains_key(&key) {
                self.faults.duplicate(&path);
            }
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// From the hexadecimal notation of RFC 8949.
    fn read(hex: &str) -> Result<Value, CborError> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits.chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).unwrap()
        });
        decode(&bytes.collect::<Vec<_>>()).map(|decoded| decoded.value)
    }

    #[test]
    fn examples_of_the_rfc() {
        for (hex, value) in [
            ("00", json!(0)),
            ("3903e7", json!(-1000)),
            ("1a000f4240", json!(1_000_000)),
            ("f93e00", json!(1.5)),
            ("fa47c35000", json!(100_000.0)),
            ("fb3ff199999999999a", json!(1.1)),
            ("f5", json!(true)),
            ("f6", json!(null)),
            ("6449455446", json!("IETF")),
            ("4449455446", json!("IETF")),
            ("7f657374726561646d696e67ff", json!("streaming")),
            ("d64401020304", json!("AQIDBA==")),
            ("d54401020304", json!("AQIDBA")),
            ("d74401020304", json!("01020304")),
            ("d9d9f7a26161016162820203", json!({"a": 1, "b": [2, 3]})),
            ("9f018202039f0405ffff", json!([1, [2, 3], [4, 5]])),
            ("bf61610161629f0203ffff", json!({"a": 1, "b": [2, 3]})),
            (
                "c074323031332d30332d32315432303a30343a30305a",
                json!("2013-03-21T20:04:00Z"),
            ),
        ] {
            assert_eq!(read(hex), Ok(value), "{hex}");
        }
        for hex in [
            "",
            "f7",
            "f97e00",
            "f97c00",
            "c249010000000000000000",
            "1bffffffffffffffff",
            "a10102",
            "61ff",
            "0000",
            "9f01",
            "ff",
            "f8ff",
            "5f",
            "bf6161ff",
        ] {
            assert!(read(hex).is_err(), "{hex}");
        }
    }

    #[test]
    fn duplicates_are_noted_and_depth_is_bounded() {
        let twice = decode(&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2]).unwrap();
        assert_eq!(twice.value, json!({"a": 2}));
        assert_eq!(twice.faults, ["duplicate field \"a\""]);
        assert!(decode(&[0x81; 100_000]).is_err());
        assert!(decode(&[0xc6; 100_000]).is_err());
        assert!(decode(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn a_list_and_an_event() {
        let fields = json!({"kind": "List", "metadata": {"resourceVersion": "1"}});
        let mut list = list_head(fields.as_object().unwrap(), "items").unwrap();
        append_item(b"{\"a\":1}", &mut list).unwrap();
        append_item(b"[]", &mut list).unwrap();
        list.extend_from_slice(LIST_END);
        let read = decode(&list).unwrap().value;
        assert_eq!(read["items"], json!([{"a": 1}, []]));
        assert_eq!(read["metadata"]["resourceVersion"], "1");
        let event = watch_event("ADDED", &encode(b"{\"a\":1}").unwrap());
        let read = decode(&event).unwrap().value;
        assert_eq!(read, json!({"type": "ADDED", "object": {"a": 1}}));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|eighths| (f64::from(eighths) / 8.0).into()),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(".{0,4}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_json()) {
            let body = encode(value.to_string().as_bytes()).unwrap();
            prop_assert_eq!(&body[..3], [0xd9, 0xd9, 0xf7]);
            prop_assert_eq!(decode(&body).unwrap().value, value);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
