//! Quantities (`100m`, `1.5Gi`) and semantic versions: what has an order of its own.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use semver::Version;

use super::call::Outcome;
use crate::eval::fault;
use crate::value::Value;

/// A quantity, exact to a billionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

/// Parts of a whole.
const UNIT: i128 = 1_000_000_000;
/// More digits than this are refused.
const DIGITS_MAX: usize = 27;

// === impl Quantity ===

impl Quantity {
    /// Reads a quantity.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + part.len() == 0
            || whole.len() + part.len() > DIGITS_MAX
            || part.contains('.')
        {
            return None;
        }
        let digits: i128 = format!("{whole}{part}").parse().ok()?;
        let (times, exponent) = scale(suffix)?;
        let shift = exponent - i32::try_from(part.len()).ok()? + 9;
        let scaled = digits.checked_mul(times)?;
        let nanos = match u32::try_from(shift) {
            Ok(up) => scaled.checked_mul(10_i128.checked_pow(up)?)?,
            // Beyond a billionth it is rounded up, away from zero.
            Err(_) => {
                let divisor = 10_i128.checked_pow(shift.unsigned_abs())?;
                scaled / divisor + i128::from(scaled % divisor != 0)
            }
        };
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// The quantity of a whole number.
    pub fn of(number: i64) -> Self {
        Self(i128::from(number) * UNIT)
    }

    fn as_integer(self) -> Option<i64> {
        (self.0 % UNIT == 0).then(|| i64::try_from(self.0 / UNIT).ok())?
    }
}

fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => {
            let exponent = other.strip_prefix(['e', 'E'])?;
            (
                1,
                exponent
                    .parse::<i32>()
                    .ok()
                    .filter(|e| (-27..=27).contains(e))?,
            )
        }
    })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let size = self.0.unsigned_abs();
        let unit = UNIT.unsigned_abs();
        for (divisor, suffix) in [
            (unit, ""),
            (unit / 1000, "m"),
            (unit / 1_000_000, "u"),
            (1, "n"),
        ] {
            if size.is_multiple_of(divisor) {
                return write!(f, "{sign}{}{suffix}", size / divisor);
            }
        }
        Ok(())
    }
}

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("quantity", [Value::String(text)]) => match Quantity::parse(text) {
            Some(quantity) => Ok(Value::Quantity(quantity)),
            None => fault(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        },
        ("isQuantity", [Value::String(text)]) => Ok(Value::Bool(Quantity::parse(text).is_some())),
        (name, [Value::Quantity(quantity), rest @ ..]) => {
            return of_quantity(name, *quantity, rest);
        }
        ("semver", [Value::String(text), rest @ ..]) => match version(text, rest) {
            Some(version) => Ok(Value::Semver(Arc::new(version))),
            None => fault(format!("invalid semantic version {text:?}")),
        },
        ("isSemver", [Value::String(text), rest @ ..]) => {
            Ok(Value::Bool(version(text, rest).is_some()))
        }
        (name, [Value::Semver(version), rest @ ..]) => return of_version(name, version, rest),
        _ => return None,
    })
}

fn compared(name: &str, order: Ordering) -> Option<Outcome> {
    Some(Ok(match name {
        "isGreaterThan" => Value::Bool(order == Ordering::Greater),
        "isLessThan" => Value::Bool(order == Ordering::Less),
        "compareTo" => Value::Int(order as i64),
        _ => return None,
    }))
}

fn of_quantity(name: &str, quantity: Quantity, rest: &[Value]) -> Option<Outcome> {
    Some(match (name, rest) {
        ("sign", []) => Ok(Value::Int(quantity.0.signum() as i64)),
        ("isInteger", []) => Ok(Value::Bool(quantity.as_integer().is_some())),
        ("asInteger", []) => match quantity.as_integer() {
            Some(number) => Ok(Value::Int(number)),
            None => fault("cannot convert value to integer"),
        },
        ("asApproximateFloat", []) => Ok(Value::Double(quantity.0 as f64 / UNIT as f64)),
        ("add" | "sub", [other]) => {
            let other = match other {
                Value::Quantity(other) => *other,
                Value::Int(number) => Quantity::of(*number),
                _ => return None,
            };
            let sum = match name {
                "add" => quantity.0.checked_add(other.0),
                _ => quantity.0.checked_sub(other.0),
            };
            sum.map_or_else(
                || fault("quantity overflow"),
                |sum| Ok(Value::Quantity(Quantity(sum))),
            )
        }
        (name, [Value::Quantity(other)]) => return compared(name, quantity.cmp(other)),
        _ => return None,
    })
}

/// A version; with `true` beside it, one that is written less strictly (`v1.0`).
fn version(text: &str, rest: &[Value]) -> Option<Version> {
    if !matches!(rest, [Value::Bool(true)]) {
        return Version::parse(text).ok();
    }
    let text = text.trim().trim_start_matches('v');
    let cut = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, tail) = text.split_at(cut);
    let mut parts: Vec<&str> = numbers.split('.').collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    let strip = |part: &&str| match part.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    let numbers: Vec<String> = parts.iter().map(strip).collect();
    Version::parse(&format!("{}{tail}", numbers.join("."))).ok()
}

fn of_version(name: &str, version: &Version, rest: &[Value]) -> Option<Outcome> {
    let number = |number: u64| Some(Ok(Value::Int(i64::try_from(number).unwrap_or(i64::MAX))));
    match (name, rest) {
        ("major", []) => number(version.major),
        ("minor", []) => number(version.minor),
        ("patch", []) => number(version.patch),
        (name, [Value::Semver(other)]) => compared(name, version.cmp_precedence(other)),
        _ => None,
    }
}
