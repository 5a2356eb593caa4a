//! Lists: sizes, order, sums, and lists made of lists.

use std::cmp::Ordering;
use std::sync::Arc;

use super::call::Outcome;
use crate::eval::fault;
use crate::value::Value;

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    if let (true, Some(size)) = (name == "size", size(args)) {
        return Some(Ok(Value::Int(size)));
    }
    let Some((Value::List(list), rest)) = args.split_first() else {
        return None;
    };
    let items = &list.items;
    Some(match (name, rest) {
        ("_+_", [Value::List(other)]) => Ok(Value::List(Arc::new(list.joined(other)))),
        ("isSorted", []) => {
            Ok(Value::Bool(items.windows(2).all(|pair| {
                pair[0].compare(&pair[1]) != Some(Ordering::Greater)
            })))
        }
        ("sum", []) => sum(items),
        ("min" | "max", []) => {
            let wanted = if name == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let mut best: Option<&Value> = None;
            for item in items {
                if best.is_none_or(|best| item.compare(best) == Some(wanted)) {
                    best = Some(item);
                }
            }
            best.cloned()
                .map_or_else(|| fault(format!("{name} called on empty list")), Ok)
        }
        ("indexOf", [item]) => Ok(place(items.iter().position(|one| one.equals(item)))),
        ("lastIndexOf", [item]) => Ok(place(items.iter().rposition(|one| one.equals(item)))),
        ("first", []) => Ok(Value::Optional(items.first().cloned().map(Arc::new))),
        ("last", []) => Ok(Value::Optional(items.last().cloned().map(Arc::new))),
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        ("distinct", []) => {
            let mut out: Vec<Value> = Vec::new();
            for item in items {
                if !out.iter().any(|one| one.equals(item)) {
                    out.push(item.clone());
                }
            }
            Ok(Value::list(out))
        }
        ("sort", []) => {
            let mut out = items.clone();
            out.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Ok(Value::list(out))
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| items.get(from..to)) {
                Some(part) => Ok(Value::list(part.to_vec())),
                None => fault(format!(
                    "cannot slice({from}, {to}), list is length {}",
                    items.len()
                )),
            }
        }
        ("flatten", []) => {
            let flat = items.iter().flat_map(|item| match item {
                Value::List(inner) => inner.items.clone(),
                other => vec![other.clone()],
            });
            Ok(Value::list(flat.collect()))
        }
        _ => return None,
    })
}

fn size(args: &[Value]) -> Option<i64> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            Some(i64::try_from(value.size()).unwrap_or(i64::MAX))
        }
        _ => None,
    }
}

fn place(found: Option<usize>) -> Value {
    Value::Int(found.map_or(-1, |at| at as i64))
}

fn sum(items: &[Value]) -> Outcome {
    let Some(first) = items.first() else {
        return Ok(Value::Int(0));
    };
    let mut total = first.clone();
    for item in &items[1..] {
        total = super::call::call("_+_", false, &[total, item.clone()])?;
    }
    Ok(total)
}
