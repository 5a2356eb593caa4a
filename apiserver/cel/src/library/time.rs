//! Points and spans of time.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::call::Outcome;
use crate::eval::fault;
use crate::value::Value;

const SECOND: i64 = 1_000_000_000;

/// Reads a duration as Go writes it: `1h30m`, `-1.5s`. In nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_f64;
    let mut any = false;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ];
        let fitting = units.iter().filter(|(unit, _)| tail.starts_with(unit));
        let (unit, times) = fitting.max_by_key(|(unit, _)| unit.len())?;
        total += number.parse::<f64>().ok()? * times;
        rest = &tail[unit.len()..];
        any = true;
    }
    (any && total < 9.2e18).then_some((sign * total).round() as i64)
}

/// A duration as CEL writes it: in seconds.
pub fn shown(nanos: i64) -> String {
    let (whole, part) = (nanos / SECOND, (nanos % SECOND).abs());
    let sign = if nanos < 0 && whole == 0 { "-" } else { "" };
    match part {
        0 => format!("{whole}s"),
        part => format!(
            "{sign}{whole}.{}s",
            format!("{part:09}").trim_end_matches('0')
        ),
    }
}

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("timestamp", [Value::Timestamp(_)]) | ("duration", [Value::Duration(_)]) => {
            Ok(args[0].clone())
        }
        ("timestamp", [Value::String(text)]) => match text.parse() {
            Ok(time) => Ok(Value::Timestamp(time)),
            Err(_) => fault(format!(
                "type conversion error from 'string' to 'google.protobuf.Timestamp': {text}"
            )),
        },
        ("timestamp", [Value::Int(seconds)]) => match Timestamp::from_second(*seconds) {
            Ok(time) => Ok(Value::Timestamp(time)),
            Err(_) => fault("timestamp overflow"),
        },
        ("duration", [Value::String(text)]) => match parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => fault(format!(
                "type conversion error from 'string' to 'google.protobuf.Duration': {text}"
            )),
        },
        ("_+_" | "_-_", [a, b]) => return sum(name, a, b),
        ("-_", [Value::Duration(nanos)]) => Ok(Value::Duration(nanos.saturating_neg())),
        (name, [Value::Duration(nanos)]) => Ok(Value::Int(match name {
            "getHours" => nanos / (3600 * SECOND),
            "getMinutes" => nanos / (60 * SECOND),
            "getSeconds" => nanos / SECOND,
            "getMilliseconds" => nanos / 1_000_000,
            _ => return None,
        })),
        (name, [Value::Timestamp(time)]) => return part(name, *time, TimeZone::UTC),
        (name, [Value::Timestamp(time), Value::String(zone)]) => match zone_of(zone) {
            Some(zone) => return part(name, *time, zone),
            None => fault(format!("unknown time zone {zone}")),
        },
        _ => return None,
    })
}

fn sum(name: &str, a: &Value, b: &Value) -> Option<Outcome> {
    let add = name == "_+_";
    let moved = |time: &Timestamp, nanos: i64| {
        let nanos = i128::from(if add { nanos } else { -nanos });
        let at = time.as_nanosecond().checked_add(nanos);
        match at.and_then(|at| Timestamp::from_nanosecond(at).ok()) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => fault("timestamp overflow"),
        }
    };
    Some(match (a, b) {
        (Value::Timestamp(time), Value::Duration(nanos)) => moved(time, *nanos),
        (Value::Duration(nanos), Value::Timestamp(time)) if add => moved(time, *nanos),
        (Value::Timestamp(a), Value::Timestamp(b)) if !add => {
            match i64::try_from(a.as_nanosecond() - b.as_nanosecond()) {
                Ok(nanos) => Ok(Value::Duration(nanos)),
                Err(_) => fault("duration overflow"),
            }
        }
        (Value::Duration(a), Value::Duration(b)) => {
            let total = if add {
                a.checked_add(*b)
            } else {
                a.checked_sub(*b)
            };
            total.map_or_else(
                || fault("duration overflow"),
                |nanos| Ok(Value::Duration(nanos)),
            )
        }
        _ => return None,
    })
}

/// A zone by its name, or as an offset `+01:30`.
fn zone_of(text: &str) -> Option<TimeZone> {
    let offset = text.strip_prefix('-').map(|rest| (-1, rest));
    let offset = offset.or_else(|| Some((1, text.strip_prefix('+').unwrap_or(text))));
    if let Some((sign, rest)) = offset
        && let Some((hours, minutes)) = rest.split_once(':')
    {
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        return Some(TimeZone::fixed(Offset::from_seconds(sign * seconds).ok()?));
    }
    TimeZone::get(text).ok()
}

fn part(name: &str, time: Timestamp, zone: TimeZone) -> Option<Outcome> {
    let at = time.to_zoned(zone);
    Some(Ok(Value::Int(match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(at.month()) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(at.day_of_year()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    })))
}
