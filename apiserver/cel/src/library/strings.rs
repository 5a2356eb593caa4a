//! Texts, and regular expressions over them.

use regex::{Regex, RegexBuilder};

use super::call::Outcome;
use crate::eval::{EvalError, fault};
use crate::value::Value;

/// Most bytes of a compiled pattern.
const PATTERN_MAX: usize = 1 << 20;
/// Most bytes of a text that a function makes.
const TEXT_MAX: usize = 4 << 20;

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    if let ("join", Some((Value::List(list), rest))) = (name, args.split_first()) {
        return Some(join(&list.items, rest));
    }
    if let ("_+_", [Value::Bytes(a), Value::Bytes(b)]) = (name, args) {
        return Some(Ok(Value::Bytes([&a[..], &b[..]].concat().into())));
    }
    let Some((Value::String(text), rest)) = args.split_first() else {
        return None;
    };
    on_text(name, text, rest)
}

fn on_text(name: &str, text: &str, rest: &[Value]) -> Option<Outcome> {
    let truth = |truth| Ok(Value::Bool(truth));
    Some(match (name, rest) {
        ("_+_", [Value::String(other)]) => bounded(format!("{text}{other}")),
        ("contains", [Value::String(part)]) => truth(text.contains(&**part)),
        ("startsWith", [Value::String(part)]) => truth(text.starts_with(&**part)),
        ("endsWith", [Value::String(part)]) => truth(text.ends_with(&**part)),
        ("matches", [Value::String(pattern)]) => {
            compiled(pattern).map(|regex| Value::Bool(regex.is_match(text)))
        }
        ("find", [Value::String(pattern)]) => compiled(pattern)
            .map(|regex| Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        ("findAll", [Value::String(pattern)]) => find_all(text, pattern, -1),
        ("findAll", [Value::String(pattern), Value::Int(limit)]) => find_all(text, pattern, *limit),
        ("charAt", [Value::Int(index)]) => char_at(text, *index),
        ("indexOf", [Value::String(part)]) => index_of(text, part, 0),
        ("indexOf", [Value::String(part), Value::Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Value::String(part)]) => last_index_of(text, part, i64::MAX),
        ("lastIndexOf", [Value::String(part), Value::Int(from)]) => {
            last_index_of(text, part, *from)
        }
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("replace", [Value::String(old), Value::String(new)]) => replace(text, old, new, -1),
        ("replace", [Value::String(old), Value::String(new), Value::Int(limit)]) => {
            replace(text, old, new, *limit)
        }
        ("split", [Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(by), Value::Int(limit)]) => Ok(split(text, by, *limit)),
        ("substring", [Value::Int(from)]) => substring(text, *from, None),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("reverse", []) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("format", [Value::List(args)]) => format(text, &args.items),
        ("strings.quote", []) => Ok(Value::text(format!("{text:?}"))),
        ("jsonpatch.escapeKey", []) => Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))),
        _ => return None,
    })
}

/// Compiles a pattern, within a bound on its size.
fn compiled(pattern: &str) -> Result<Regex, EvalError> {
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_MAX).build();
    built.or_else(|error| fault(format!("error parsing regexp: {error}")))
}

fn bounded(text: String) -> Outcome {
    match text.len() > TEXT_MAX {
        true => fault(format!("text is longer than {TEXT_MAX} bytes")),
        false => Ok(Value::text(text)),
    }
}

fn find_all(text: &str, pattern: &str, limit: i64) -> Outcome {
    let regex = compiled(pattern)?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = regex.find_iter(text).take(most);
    Ok(Value::list(
        found.map(|found| Value::text(found.as_str())).collect(),
    ))
}

fn char_at(text: &str, index: i64) -> Outcome {
    let count = text.chars().count();
    match usize::try_from(index) {
        Ok(index) if index == count => Ok(Value::text("")),
        Ok(index) if index < count => Ok(Value::text(
            text.chars()
                .nth(index)
                .map(String::from)
                .unwrap_or_default(),
        )),
        _ => fault(format!("index out of range: {index}")),
    }
}

/// Where a part begins, in characters.
fn index_of(text: &str, part: &str, from: i64) -> Outcome {
    let Ok(from) = usize::try_from(from) else {
        return fault(format!("index out of range: {from}"));
    };
    let start = byte_of(text, from);
    let Some(start) = start else {
        return if part.is_empty() {
            Ok(Value::Int(from as i64))
        } else {
            Ok(Value::Int(-1))
        };
    };
    let found = text[start..]
        .find(part)
        .map(|at| text[..start + at].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of(text: &str, part: &str, from: i64) -> Outcome {
    let Ok(from) = usize::try_from(from) else {
        return fault(format!("index out of range: {from}"));
    };
    let latest = byte_of(text, from).unwrap_or(text.len());
    let end = latest.saturating_add(part.len()).min(text.len());
    let end = (end..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    let found = text[..end]
        .rfind(part)
        .map(|at| text[..at].chars().count() as i64);
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn byte_of(text: &str, index: usize) -> Option<usize> {
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().nth(index)
}

fn replace(text: &str, old: &str, new: &str, limit: i64) -> Outcome {
    let times = match usize::try_from(limit) {
        Ok(limit) => limit,
        Err(_) => usize::MAX,
    };
    let count = text.matches(old).count().min(times);
    if text.len().saturating_add(count.saturating_mul(new.len())) > TEXT_MAX {
        return fault(format!("text is longer than {TEXT_MAX} bytes"));
    }
    Ok(Value::text(text.replacen(old, new, times)))
}

fn split(text: &str, by: &str, limit: i64) -> Value {
    let parts: Vec<Value> = match limit {
        0 => Vec::new(),
        limit if by.is_empty() => {
            let chars: Vec<String> = text.chars().map(String::from).collect();
            let most = usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(chars.len().max(1));
            let (head, tail) = chars.split_at(most.saturating_sub(1).min(chars.len()));
            let mut parts: Vec<Value> = head.iter().map(|c| Value::text(c.as_str())).collect();
            if !tail.is_empty() {
                parts.push(Value::text(tail.concat()));
            }
            parts
        }
        limit if limit < 0 => text.split(by).map(Value::text).collect(),
        limit => text
            .splitn(usize::try_from(limit).unwrap_or(usize::MAX), by)
            .map(Value::text)
            .collect(),
    };
    Value::list(parts)
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Outcome {
    let count = text.chars().count() as i64;
    let to = to.unwrap_or(count);
    if from < 0 || to > count || from > to {
        return fault(format!("index out of range: {from}"));
    }
    let part = text.chars().skip(from as usize).take((to - from) as usize);
    Ok(Value::text(part.collect::<String>()))
}

fn join(items: &[Value], rest: &[Value]) -> Outcome {
    let by = match rest {
        [] => "",
        [Value::String(by)] => by,
        _ => return fault("no such overload: join"),
    };
    let mut out = String::new();
    for (index, item) in items.iter().enumerate() {
        let Value::String(text) = item else {
            return fault("no such overload: join of a list that is not of strings");
        };
        if index > 0 {
            out.push_str(by);
        }
        out.push_str(text);
        if out.len() > TEXT_MAX {
            return bounded(out);
        }
    }
    bounded(out)
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o`, with a precision for `%f` and `%e`.
fn format(text: &str, args: &[Value]) -> Outcome {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                chars.next();
            }
            precision = digits.parse::<usize>().ok().filter(|p| *p <= 100);
        }
        let Some(verb) = chars.next() else {
            return fault("could not parse formatting clause: unexpected end of string");
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(arg) = args.next() else {
            return fault(format!("index {} out of range", args.len()));
        };
        out.push_str(&clause(verb, precision, arg)?);
    }
    bounded(out)
}

fn clause(verb: char, precision: Option<usize>, arg: &Value) -> Result<String, EvalError> {
    let digits = precision.unwrap_or(6);
    Ok(match (verb, arg) {
        ('s', arg) => arg.shown(),
        ('d', Value::Int(_) | Value::Uint(_)) => arg.shown(),
        ('d', Value::Double(number)) => format!("{number}"),
        ('f', Value::Double(number)) => format!("{number:.digits$}"),
        ('f', Value::Int(number)) => format!("{:.digits$}", *number as f64),
        ('f', Value::Uint(number)) => format!("{:.digits$}", *number as f64),
        ('e', Value::Double(number)) => exponent(*number, digits),
        ('e', Value::Int(number)) => exponent(*number as f64, digits),
        ('b', Value::Int(number)) => signed(*number, |n| format!("{n:b}")),
        ('b', Value::Uint(number)) => format!("{number:b}"),
        ('b', Value::Bool(truth)) => u8::from(*truth).to_string(),
        ('o', Value::Int(number)) => signed(*number, |n| format!("{n:o}")),
        ('o', Value::Uint(number)) => format!("{number:o}"),
        ('x', Value::Int(number)) => signed(*number, |n| format!("{n:x}")),
        ('X', Value::Int(number)) => signed(*number, |n| format!("{n:X}")),
        ('x', Value::Uint(number)) => format!("{number:x}"),
        ('X', Value::Uint(number)) => format!("{number:X}"),
        ('x', Value::String(text)) => text.bytes().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::String(text)) => text.bytes().map(|b| format!("{b:02X}")).collect(),
        ('x', Value::Bytes(bytes)) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
        ('X', Value::Bytes(bytes)) => bytes.iter().map(|b| format!("{b:02X}")).collect(),
        (verb, arg) => {
            return fault(format!(
                "error during formatting: {:?} clause cannot be used on {}",
                verb,
                arg.type_name()
            ));
        }
    })
}

fn exponent(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, size) = match exponent.strip_prefix('-') {
                Some(size) => ('-', size),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{size:0>2}")
        }
        None => text,
    }
}

fn signed(number: i64, show: impl Fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", show(number.unsigned_abs()))
}
