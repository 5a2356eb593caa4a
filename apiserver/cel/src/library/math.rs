//! Arithmetic, which overflows into faults, and the `math` functions.

use super::call::{self, Outcome};
use crate::eval::fault;
use crate::value::Value;

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    Some(match (name, args) {
        ("-_", [Value::Int(number)]) => number
            .checked_neg()
            .map_or_else(|| fault("integer overflow"), |n| Ok(Value::Int(n))),
        ("-_", [Value::Double(number)]) => Ok(Value::Double(-number)),
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [Value::Int(a), Value::Int(b)]) => {
            ints(name, *a, *b)
        }
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [Value::Uint(a), Value::Uint(b)]) => {
            uints(name, *a, *b)
        }
        ("_+_" | "_-_" | "_*_" | "_/_", [Value::Double(a), Value::Double(b)]) => {
            Ok(Value::Double(match name {
                "_+_" => a + b,
                "_-_" => a - b,
                "_*_" => a * b,
                _ => a / b,
            }))
        }
        ("math.greatest" | "math.least", args) => extreme(name, args),
        ("math.abs", [Value::Int(n)]) => n
            .checked_abs()
            .map_or_else(|| fault("integer overflow"), |n| Ok(Value::Int(n))),
        ("math.abs", [Value::Uint(n)]) => Ok(Value::Uint(*n)),
        ("math.abs", [Value::Double(n)]) => Ok(Value::Double(n.abs())),
        ("math.sign", [Value::Int(n)]) => Ok(Value::Int(n.signum())),
        ("math.sign", [Value::Uint(n)]) => Ok(Value::Uint((*n).min(1))),
        ("math.sign", [Value::Double(n)]) => {
            Ok(Value::Double(if *n == 0.0 { 0.0 } else { n.signum() }))
        }
        ("math.ceil", [Value::Double(n)]) => Ok(Value::Double(n.ceil())),
        ("math.floor", [Value::Double(n)]) => Ok(Value::Double(n.floor())),
        ("math.round", [Value::Double(n)]) => Ok(Value::Double(n.round())),
        ("math.trunc", [Value::Double(n)]) => Ok(Value::Double(n.trunc())),
        ("math.sqrt", [Value::Double(n)]) => Ok(Value::Double(n.sqrt())),
        ("math.isNaN", [Value::Double(n)]) => Ok(Value::Bool(n.is_nan())),
        ("math.isInf", [Value::Double(n)]) => Ok(Value::Bool(n.is_infinite())),
        ("math.isFinite", [Value::Double(n)]) => Ok(Value::Bool(n.is_finite())),
        ("math.bitAnd", [Value::Int(a), Value::Int(b)]) => Ok(Value::Int(a & b)),
        ("math.bitOr", [Value::Int(a), Value::Int(b)]) => Ok(Value::Int(a | b)),
        ("math.bitXor", [Value::Int(a), Value::Int(b)]) => Ok(Value::Int(a ^ b)),
        ("math.bitNot", [Value::Int(a)]) => Ok(Value::Int(!a)),
        ("math.bitShiftLeft", [Value::Int(a), Value::Int(by)]) => {
            shift(*by, |by| a.checked_shl(by).unwrap_or(0))
        }
        ("math.bitShiftRight", [Value::Int(a), Value::Int(by)]) => {
            shift(*by, |by| (*a as u64).checked_shr(by).unwrap_or(0) as i64)
        }
        _ => return None,
    })
}

fn ints(name: &str, a: i64, b: i64) -> Outcome {
    let found = match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" if b == 0 => return fault("division by zero"),
        "_%_" if b == 0 => return fault("modulus by zero"),
        "_/_" => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    found.map_or_else(|| fault("integer overflow"), |n| Ok(Value::Int(n)))
}

fn uints(name: &str, a: u64, b: u64) -> Outcome {
    let found = match name {
        "_+_" => a.checked_add(b),
        "_-_" => a.checked_sub(b),
        "_*_" => a.checked_mul(b),
        "_/_" if b == 0 => return fault("division by zero"),
        "_%_" if b == 0 => return fault("modulus by zero"),
        "_/_" => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    found.map_or_else(
        || fault("unsigned integer overflow"),
        |n| Ok(Value::Uint(n)),
    )
}

fn shift(by: i64, work: impl Fn(u32) -> i64) -> Outcome {
    match u32::try_from(by) {
        Ok(by) => Ok(Value::Int(work(by))),
        Err(_) => fault(format!("negative offset: {by}")),
    }
}

fn extreme(name: &str, args: &[Value]) -> Outcome {
    let of = |items: &[Value]| {
        let method = if name == "math.greatest" {
            "max"
        } else {
            "min"
        };
        call::call(method, true, &[Value::list(items.to_vec())])
    };
    match args {
        [Value::List(list)] => of(&list.items),
        args => of(args),
    }
}
