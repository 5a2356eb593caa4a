//! Calls a function by its name.

use std::cmp::Ordering;

use super::{formats, lists, math, net, quantity, sets, strings, time};
use crate::eval::{EvalError, fault};
use crate::value::{Key, Value};

/// What a function gives, or that it cannot.
pub(crate) type Outcome = Result<Value, EvalError>;

/// Calls a function; the receiver of a method is the first argument.
pub(crate) fn call(name: &str, method: bool, args: &[Value]) -> Outcome {
    if let Some(Value::Host(host)) = args.first().filter(|_| method) {
        return host.call(name, &args[1..]).or_else(fault);
    }
    if let Some(outcome) = operator(name, args) {
        return outcome;
    }
    let families = [
        conversions,
        lists::call,
        strings::call,
        sets::call,
        math::call,
        net::call,
        quantity::call,
        time::call,
        formats::call,
        optionals,
    ];
    let found = families.iter().find_map(|family| family(name, args));
    found.unwrap_or_else(|| no_overload(name, args))
}

pub(crate) fn no_overload(name: &str, args: &[Value]) -> Outcome {
    let types: Vec<&str> = args.iter().map(Value::type_name).collect();
    fault(format!("no such overload: {name}({})", types.join(", ")))
}

fn operator(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("!_", [Value::Bool(truth)]) => Ok(Value::Bool(!truth)),
        ("_==_", [a, b]) => Ok(Value::Bool(a.equals(b))),
        ("_!=_", [a, b]) => Ok(Value::Bool(!a.equals(b))),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => order(name, a, b),
        ("@in", [item, Value::List(list)]) => {
            Ok(Value::Bool(list.items.iter().any(|one| one.equals(item))))
        }
        ("@in", [key, Value::Map(map)]) => Ok(Value::Bool(
            Key::of(key).is_some_and(|key| map.contains_key(&key)),
        )),
        ("_[_]", [held, index]) => self::index(held, index),
        ("_[?_]", [held, index]) => at(held, index).map(|found| match found {
            Some(found) => Value::some(found),
            None => Value::Optional(None),
        }),
        _ => return None,
    })
}

fn order(name: &str, a: &Value, b: &Value) -> Outcome {
    let Some(order) = a.compare(b) else {
        // NaN compares with nothing.
        return match (a, b) {
            (Value::Double(_), _) | (_, Value::Double(_)) => Ok(Value::Bool(false)),
            _ => no_overload(name, &[a.clone(), b.clone()]),
        };
    };
    Ok(Value::Bool(match name {
        "_<_" => order == Ordering::Less,
        "_<=_" => order != Ordering::Greater,
        "_>_" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn index(held: &Value, index: &Value) -> Outcome {
    if let Value::Optional(inner) = held {
        let Some(inner) = inner else {
            return Ok(Value::Optional(None));
        };
        return Ok(at(inner, index)?.map_or(Value::Optional(None), Value::some));
    }
    match at(held, index)? {
        Some(found) => Ok(found),
        None if matches!(held, Value::List(_)) => {
            fault(format!("index out of bounds: {}", index.shown()))
        }
        None => fault(format!("no such key: {}", index.shown())),
    }
}

fn at(held: &Value, index: &Value) -> Result<Option<Value>, EvalError> {
    match held {
        Value::Optional(Some(inner)) => at(inner, index),
        Value::Optional(None) => Ok(None),
        Value::List(list) => match index {
            Value::Int(index) => Ok(usize::try_from(*index)
                .ok()
                .and_then(|at| list.items.get(at))
                .cloned()),
            Value::Uint(index) => Ok(usize::try_from(*index)
                .ok()
                .and_then(|at| list.items.get(at))
                .cloned()),
            other => fault(format!("unsupported index type: {}", other.type_name())),
        },
        Value::Map(map) => Ok(Key::of(index).and_then(|key| map.get(&key).cloned())),
        other => fault(format!("no such overload: {}[]", other.type_name())),
    }
}

fn conversions(name: &str, args: &[Value]) -> Option<Outcome> {
    let [value] = args else {
        return None;
    };
    Some(match (name, value) {
        ("dyn", value) => Ok(value.clone()),
        ("type", value) => Ok(Value::Type(value.type_name().into())),
        ("bool", Value::Bool(_))
        | ("int", Value::Int(_))
        | ("uint", Value::Uint(_))
        | ("double", Value::Double(_))
        | ("string", Value::String(_))
        | ("bytes", Value::Bytes(_)) => Ok(value.clone()),
        ("bool", Value::String(text)) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            other => fault(format!(
                "type conversion error from 'string' to 'bool': {other}"
            )),
        },
        ("int", Value::Uint(number)) => i64::try_from(*number)
            .map(Value::Int)
            .or_else(|_| fault("integer overflow")),
        ("int", Value::Double(number)) => {
            match number.is_finite() && number.abs() < 9.223_372_036_854_775e18 {
                true => Ok(Value::Int(*number as i64)),
                false => fault("integer overflow"),
            }
        }
        ("int", Value::String(text)) => text.parse().map(Value::Int).or_else(|_| {
            fault(format!(
                "type conversion error from 'string' to 'int': {text}"
            ))
        }),
        ("int", Value::Timestamp(time)) => Ok(Value::Int(time.as_second())),
        ("uint", Value::Int(number)) => u64::try_from(*number)
            .map(Value::Uint)
            .or_else(|_| fault("unsigned integer overflow")),
        ("uint", Value::Double(number)) => match (0.0..1.844_674_407_370_955e19).contains(number) {
            true => Ok(Value::Uint(*number as u64)),
            false => fault("unsigned integer overflow"),
        },
        ("uint", Value::String(text)) => text.parse().map(Value::Uint).or_else(|_| {
            fault(format!(
                "type conversion error from 'string' to 'uint': {text}"
            ))
        }),
        ("double", Value::Int(number)) => Ok(Value::Double(*number as f64)),
        ("double", Value::Uint(number)) => Ok(Value::Double(*number as f64)),
        ("double", Value::String(text)) => text.parse().map(Value::Double).or_else(|_| {
            fault(format!(
                "type conversion error from 'string' to 'double': {text}"
            ))
        }),
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => fault("invalid UTF-8 in bytes, cannot convert to string"),
        },
        (
            "string",
            Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
            | Value::Ip(_)
            | Value::Cidr(_),
        ) => Ok(Value::text(value.shown())),
        ("bytes", Value::String(text)) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => return None,
    })
}

fn optionals(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => Ok(match is_zero(value) {
            true => Value::Optional(None),
            false => Value::some(value.clone()),
        }),
        ("hasValue", [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        ("value", [Value::Optional(Some(inner))]) => Ok((**inner).clone()),
        ("value", [Value::Optional(None)]) => fault("optional.none() dereference"),
        _ => return None,
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => {
            true
        }
        Value::Double(number) => *number == 0.0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        _ => false,
    }
}
