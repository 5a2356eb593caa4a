//! `format`: the named forms of texts that the API server checks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::Date;

/// The formats that are checked; others are taken for comments.
const KNOWN: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "date-time",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8s-long-name",
    "k8s-short-name",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// Whether a format of texts is checked. Dashes do not count.
pub fn is_known(format: &str) -> bool {
    KNOWN.contains(&format)
}

/// Whether a text has a format; a format that is not known is had by all.
pub(super) fn has(format: &str, text: &str) -> bool {
    match format {
        "bsonobjectid" => text.len() == 24 && is_hex(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "cidr" => is_cidr(text),
        "creditcard" => {
            let digits: String = text.chars().filter(|c| !matches!(c, ' ' | '-')).collect();
            (13..=19).contains(&digits.len()) && is_luhn(&digits)
        }
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "email" => is_email(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && is_hex(digits)
        }
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "k8s-short-name" => is_dns_label(text),
        "k8s-long-name" => text.len() <= 253 && text.split('.').all(is_label_of_any_length),
        "mac" => is_mac(text),
        "rgbcolor" => is_rgb(text),
        "ssn" => has_groups(text, '-', &[3, 2, 4], u8::is_ascii_digit),
        "uri" => is_uri(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        _ => true,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let longest = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    let plain = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    plain && length.parse::<u8>().is_ok_and(|length| length <= longest)
}

fn is_luhn(digits: &str) -> bool {
    let mut sum = 0;
    for (place, byte) in digits.bytes().rev().enumerate() {
        if !byte.is_ascii_digit() {
            return false;
        }
        let digit = u32::from(byte - b'0') * if place % 2 == 1 { 2 } else { 1 };
        sum += if digit > 9 { digit - 9 } else { digit };
    }
    sum % 10 == 0
}

fn is_date_time(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let zoned = upper.ends_with('Z')
        || upper
            .get(19..)
            .is_some_and(|rest| rest.contains(['+', '-']));
    upper.len() >= 20 && upper.as_bytes()[10] == b'T' && zoned && upper.parse::<Timestamp>().is_ok()
}

/// Go's durations (`1h30m`), and the words that upstream takes beside them (`3 days`).
fn is_duration(text: &str) -> bool {
    is_go_duration(text) || is_worded_duration(text)
}

fn is_go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest
            .bytes()
            .take_while(|b| b.is_ascii_digit() || *b == b'.')
            .count();
        let (digits, tail) = rest.split_at(number);
        if !digits.bytes().any(|b| b.is_ascii_digit()) || digits.matches('.').count() > 1 {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        // The longest unit first: `ms` is not `m`.
        let unit = units
            .iter()
            .filter(|unit| tail.starts_with(**unit))
            .max_by_key(|unit| unit.len());
        match unit {
            Some(unit) => rest = &tail[unit.len()..],
            None => return false,
        }
    }
    true
}

fn is_worded_duration(text: &str) -> bool {
    let text = text.trim();
    let number = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text[number..].trim().to_lowercase();
    let units = [
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "m", "min", "h", "hr",
        "hour", "d", "day", "w", "week", "wk",
    ];
    number > 0
        && (units.contains(&unit.as_str())
            || unit.strip_suffix('s').is_some_and(|u| units.contains(&u)))
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let plain =
        |c: char| !c.is_whitespace() && !matches!(c, '<' | '>' | '(' | ')' | ',' | ';' | '"' | '@');
    !local.is_empty()
        && local.chars().all(plain)
        && !domain.is_empty()
        && domain.chars().all(plain)
        && !domain.starts_with('.')
        && !domain.ends_with('.')
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| {
            let inner = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
            !label.is_empty()
                && label.len() <= 63
                && label.chars().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_label_of_any_length(text)
}

fn is_label_of_any_length(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_isbn10(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b' ' | b'-')).collect();
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (place, byte) in digits.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => u32::from(byte - b'0'),
            b'X' if place == 9 => 10,
            _ => return false,
        };
        sum += digit * (10 - place as u32);
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b' ' | b'-')).collect();
    let all = digits.len() == 13 && digits.iter().all(u8::is_ascii_digit);
    let weigh =
        |(place, byte): (usize, &u8)| u32::from(byte - b'0') * if place % 2 == 0 { 1 } else { 3 };
    all && digits
        .iter()
        .enumerate()
        .map(weigh)
        .sum::<u32>()
        .is_multiple_of(10)
}

fn is_mac(text: &str) -> bool {
    let pairs = |separator| {
        [6, 8, 20]
            .iter()
            .any(|&count| has_groups(text, separator, &vec![2; count], u8::is_ascii_hexdigit))
    };
    let quads = [3, 4, 10]
        .iter()
        .any(|&count| has_groups(text, '.', &vec![4; count], u8::is_ascii_hexdigit));
    pairs(':') || pairs('-') || quads
}

fn has_groups(text: &str, separator: char, lengths: &[usize], of: fn(&u8) -> bool) -> bool {
    let groups: Vec<&str> = text.split(separator).collect();
    groups.len() == lengths.len()
        && groups
            .iter()
            .zip(lengths)
            .all(|(group, length)| group.len() == *length && group.as_bytes().iter().all(of))
}

fn is_rgb(text: &str) -> bool {
    let inner = text
        .strip_prefix("rgb(")
        .and_then(|rest| rest.strip_suffix(')'));
    let Some(inner) = inner else {
        return false;
    };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// A request URI: absolute, or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, _)) = text.split_once(':') else {
        return false;
    };
    let mut bytes = scheme.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let dashed = has_groups(text, '-', &[8, 4, 4, 4, 12], u8::is_ascii_hexdigit);
    let plain = text.len() == 32 && is_hex(text);
    (dashed || plain)
        && version.is_none_or(|version| digits[12] == version)
        && version.is_none_or(|v| {
            v == b'3' || matches!(digits[16].to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_formats() {
        for (format, good, bad) in [
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fd00::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("date", "2026-11-23", "2026-13-01"),
            ("date-time", "2026-11-23T09:00:00Z", "2026-11-23"),
            ("duration", "1h30m", "1x"),
            ("duration", "3 days", "days"),
            ("email", "a@b.c", "a b@c"),
            ("uri", "https://a/b", "not a uri"),
            ("uuid", "a987fbc9-4bed-3078-cf07-9141ba07c9f3", "a987fbc9"),
            (
                "uuid4",
                "57b73598-8764-4ad0-a76a-679bb6640eb1",
                "a987fbc9-4bed-3078-cf07-9141ba07c9f3",
            ),
            ("mac", "01:02:03:04:05:ab", "01:02"),
            ("isbn13", "978-3-16-148410-0", "978-3-16-148410-1"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("byte", "aGVsbG8=", "a"),
            ("hostname", "a.b-c.d", "-a"),
            ("hexcolor", "#fff", "#ggg"),
            ("rgbcolor", "rgb(1,2,3)", "rgb(1,2,300)"),
            ("k8s-short-name", "abc", "a.b"),
        ] {
            assert!(has(format, good), "{format} {good}");
            assert!(!has(format, bad), "{format} {bad}");
            assert!(is_known(format));
        }
        assert!(has("whatever", "x"));
    }
}
