//! Octets as hexadecimal text, in what is recorded for people and tools.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Visitor};
use serde::ser::Serializer;

/// Writes octets as text, two digits each.
pub(crate) fn serialize<S: Serializer>(octets: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{:x}", octets))
}

/// Reads them back.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    from.deserialize_str(Digits)
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an even number of hexadecimal digits")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
        let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
        let digit = |octet: u8| char::from(octet).to_digit(16);
        let pairs = text.as_bytes().chunks(2).map(|pair| {
            let (high, low) = (digit(*pair.first()?)?, digit(*pair.get(1)?)?);
            u8::try_from(high << 4 | low).ok()
        });
        pairs
            .collect::<Option<Vec<u8>>>()
            .map(Bytes::from)
            .ok_or_else(wrong)
    }
}
