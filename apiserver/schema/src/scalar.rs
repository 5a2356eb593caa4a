//! Scalars of the wire: what text and numbers each type takes, and its canonical form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::graph::{CanonicalQuantity, Scalar};

/// Why a value is not of a scalar type.
pub(crate) enum Mismatch {
    /// The value is of another JSON type.
    Type,
    /// The number does not fit; its text.
    Range(String),
    /// The type's own parser refuses it, in its words.
    Parse(String),
}

/// Checks a value that is not null, and brings it to its canonical form.
pub(crate) fn canonical(
    scalar: Scalar,
    value: &mut Value,
    quantity: CanonicalQuantity,
) -> Result<(), Mismatch> {
    match scalar {
        Scalar::Any => Ok(()),
        Scalar::String => expect(value.is_string()),
        Scalar::Bool => expect(value.is_boolean()),
        Scalar::Number => expect(value.is_number()),
        Scalar::Int32 => integer(value, i64::from(i32::MIN), i64::from(i32::MAX)),
        Scalar::Int64 => integer(value, i64::MIN, i64::MAX),
        Scalar::IntOrString | Scalar::Int64OrString if value.is_string() => Ok(()),
        Scalar::IntOrString => integer(value, i64::from(i32::MIN), i64::from(i32::MAX)),
        Scalar::Int64OrString => integer(value, i64::MIN, i64::MAX),
        Scalar::Quantity => canonical_quantity(value, quantity),
        Scalar::Time => time(value, 0),
        Scalar::MicroTime => time(value, 6),
        Scalar::Bytes => bytes(value),
    }
}

/// What Go's decoder makes of a null in a map or a list.
pub(crate) fn zero(scalar: Scalar) -> Value {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::from(""),
        Scalar::Int32
        | Scalar::Int64
        | Scalar::Number
        | Scalar::IntOrString
        | Scalar::Int64OrString => Value::from(0),
        Scalar::Bool => Value::from(false),
        Scalar::Quantity => Value::from("0"),
        Scalar::Time | Scalar::MicroTime | Scalar::Any => Value::Null,
    }
}

fn expect(right: bool) -> Result<(), Mismatch> {
    if right { Ok(()) } else { Err(Mismatch::Type) }
}

fn integer(value: &Value, min: i64, max: i64) -> Result<(), Mismatch> {
    match value {
        Value::Number(number) => match number.as_i64() {
            Some(n) if (min..=max).contains(&n) => Ok(()),
            _ => Err(Mismatch::Range(number.to_string())),
        },
        _ => Err(Mismatch::Type),
    }
}

fn canonical_quantity(value: &mut Value, quantity: CanonicalQuantity) -> Result<(), Mismatch> {
    let written = match value {
        Value::String(text) => quantity(text.trim()),
        Value::Number(number) => quantity(&number.to_string()),
        _ => return Err(Mismatch::Parse(quantity("?").err().unwrap_or_default())),
    };
    let canonical = written.map_err(Mismatch::Parse)?;
    if value.as_str() != Some(&canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

fn time(value: &mut Value, decimals: i16) -> Result<(), Mismatch> {
    let Value::String(text) = value else {
        return Err(Mismatch::Type);
    };
    if decimals == 0 && is_canonical_time(text.as_bytes()) {
        return Ok(());
    }
    let layout = match decimals {
        0 => "2006-01-02T15:04:05Z07:00",
        _ => "2006-01-02T15:04:05.000000Z07:00",
    };
    let refused = || format!("parsing time {text:?} as {layout:?}: cannot parse {text:?}");
    let parsed: Timestamp = text.parse().map_err(|_| Mismatch::Parse(refused()))?;
    *text = match decimals {
        0 => parsed.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => parsed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
    };
    Ok(())
}

/// Whether the text looks like `2026-01-02T03:04:05Z` and its parts are in range for any month.
fn is_canonical_time(text: &[u8]) -> bool {
    let pattern = b"dddd-dd-ddTdd:dd:ddZ";
    let shaped = |(&t, &p): (&u8, &u8)| {
        if p == b'd' {
            t.is_ascii_digit()
        } else {
            t == p
        }
    };
    if text.len() != pattern.len() || !text.iter().zip(pattern).all(shaped) {
        return false;
    }
    let number = |at: usize| (text[at] - b'0') * 10 + (text[at + 1] - b'0');
    (1..=12).contains(&number(5))
        && (1..=28).contains(&number(8))
        && number(11) < 24
        && number(14) < 60
        && number(17) < 60
}

fn bytes(value: &mut Value) -> Result<(), Mismatch> {
    let Value::String(text) = value else {
        return Err(Mismatch::Type);
    };
    if text.contains(['\n', '\r']) {
        text.retain(|c| c != '\n' && c != '\r');
    }
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            let message = format!("illegal base64 data at input byte {at}");
            Err(Mismatch::Parse(message))
        }
    }
}
