//! Quantities (`100m`, `1.5Gi`, `2e3`): exact arithmetic in billionths, and the canonical form.
//!
//! Follows the API reference of `Quantity`: a signed decimal number with a binary suffix
//! (`Ki`..`Ei`), a decimal suffix (`n`, `u`, `m`, none, `k`..`E`) or a decimal exponent. What is
//! finer than a billionth is rounded up; what is larger than the range is capped.

use std::fmt;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use thiserror::Error;

const NANO: i128 = 1_000_000_000;
/// The largest quantity, 2^63-1 units, as upstream caps it.
const MAX_NANO: i128 = (i64::MAX as i128) * NANO;

/// How a quantity was written, and so how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `Ki`, `Mi`, ...
    BinarySi,
    /// `m`, `k`, `M`, ...
    DecimalSi,
    /// `1e3`
    DecimalExponent,
}

/// A parsed quantity. Compares and adds by value; the format is only how it prints.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// The text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseError;

impl Quantity {
    /// A whole number of units.
    pub fn from_units(units: i64) -> Self {
        Self::of_nano(units as i128 * NANO, Format::DecimalSi)
    }

    /// A number of thousandths, as CPU is counted.
    pub fn from_milli(milli: i64) -> Self {
        Self::of_nano(milli as i128 * 1_000_000, Format::DecimalSi)
    }

    /// A number of bytes, printed with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Self {
        Self::of_nano(bytes as i128 * NANO, Format::BinarySi)
    }

    fn of_nano(nano: i128, format: Format) -> Self {
        let nano = nano.clamp(-MAX_NANO, MAX_NANO);
        Self { nano, format }
    }

    /// The number of units, rounded up (away from what is too small to fit).
    pub fn units(self) -> i64 {
        div_ceil(self.nano, NANO) as i64
    }

    /// The number of thousandths, rounded up; capped at the range of `i64`.
    pub fn milli(self) -> i64 {
        div_ceil(self.nano, 1_000_000).clamp(i64::MIN as i128, i64::MAX as i128) as i64
    }

    /// Whether it is exactly zero.
    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    /// The sum, in the format of `self` unless that is zero.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Self::of_nano(self.nano + other.nano, format)
    }

    /// The difference, in the format of `self` unless that is zero.
    pub fn minus(self, other: Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Self::of_nano(self.nano - other.nano, format)
    }

    /// The wire type.
    pub fn to_text(self) -> Text {
        Text(self.to_string())
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl TryFrom<&Text> for Quantity {
    type Error = ParseError;
    fn try_from(text: &Text) -> Result<Self, ParseError> {
        text.0.parse()
    }
}

fn div_ceil(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

/// What a suffix multiplies by: a power of two, or a power of ten.
enum Scale {
    Two(u32),
    Ten(i32),
}

fn suffix(text: &str) -> Option<(Scale, Format)> {
    let si = |power| Some((Scale::Ten(power), Format::DecimalSi));
    let binary = |power| Some((Scale::Two(power), Format::BinarySi));
    match text {
        "n" => si(-9),
        "u" => si(-6),
        "m" => si(-3),
        "" => si(0),
        "k" => si(3),
        "M" => si(6),
        "G" => si(9),
        "T" => si(12),
        "P" => si(15),
        "E" => si(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let digits = text.strip_prefix(['e', 'E'])?;
            let power: i32 = digits.parse().ok()?;
            Some((
                Scale::Ten(power.clamp(-1000, 1000)),
                Format::DecimalExponent,
            ))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let (scale, format) = suffix(tail).ok_or(ParseError)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseError);
        }
        let magnitude = magnitude(whole, fraction, scale);
        let nano = if negative { -magnitude } else { magnitude };
        Ok(Self::of_nano(nano, format))
    }
}

/// The value in billionths, rounded up, capped at [`MAX_NANO`]. `whole` and `fraction` are
/// digits only.
fn magnitude(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let mut digits: i128 = 0;
    let mut power = 9 - fraction.len() as i32;
    let mut lost = false;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if digits < 1_000_000_000_000_000_000_000 {
            digits = digits * 10 + i128::from(byte - b'0');
        } else {
            power += 1;
            lost |= byte != b'0';
        }
    }
    match scale {
        Scale::Ten(ten) => power += ten,
        Scale::Two(two) => {
            digits = digits.checked_mul(1 << two).unwrap_or(i128::MAX / 16);
        }
    }
    if digits == 0 {
        return 0;
    }
    while power > 0 && digits <= MAX_NANO {
        digits = digits.saturating_mul(10);
        power -= 1;
    }
    while power < 0 && digits > 0 {
        lost |= digits % 10 != 0;
        digits /= 10;
        power += 1;
    }
    (digits + i128::from(lost)).clamp(0, MAX_NANO)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.nano < 0 {
            f.write_str("-")?;
        }
        let magnitude = self.nano.abs();
        let binary =
            self.format == Format::BinarySi && magnitude % NANO == 0 && magnitude / NANO >= 1024;
        if binary {
            return write_binary(f, magnitude / NANO);
        }
        write_decimal(f, magnitude, self.format)
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut units: i128) -> fmt::Result {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut step = 0;
    while units % 1024 == 0 && step + 1 < SUFFIXES.len() {
        units /= 1024;
        step += 1;
    }
    write!(f, "{units}{}", SUFFIXES[step])
}

fn write_decimal(f: &mut fmt::Formatter<'_>, mut nano: i128, format: Format) -> fmt::Result {
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut step = 0;
    while nano % 1000 == 0 && step + 1 < SUFFIXES.len() {
        nano /= 1000;
        step += 1;
    }
    match (format, step) {
        (Format::DecimalExponent, 3) => write!(f, "{nano}"),
        (Format::DecimalExponent, _) => write!(f, "{nano}e{}", (step as i32 - 3) * 3),
        _ => write!(f, "{nano}{}", SUFFIXES[step]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("1e3", "1e3"),
            ("1000k", "1M"),
            ("1u", "1u"),
            ("0.1n", "1n"),
            ("-100m", "-100m"),
            ("9Ei", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            let parsed: Quantity = text.parse().unwrap();
            assert_eq!(parsed.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "", ".", "1.2.3", "abc", "1 ", "1Kii", "--1", "1mm", "1e", "Ki",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_up() {
        assert_eq!("1.2".parse::<Quantity>().unwrap().units(), 2);
        assert_eq!("100u".parse::<Quantity>().unwrap().milli(), 1);
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(nano in -1_000_000_000_000_000_i128..1_000_000_000_000_000) {
            let quantity = Quantity::of_nano(nano, Format::DecimalSi);
            let again: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(again, quantity);
        }

        #[test]
        fn never_panics(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
