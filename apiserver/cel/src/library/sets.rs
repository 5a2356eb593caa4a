//! Lists as sets.

use super::call::Outcome;
use crate::value::Value;

pub(super) fn call(name: &str, args: &[Value]) -> Option<Outcome> {
    let [Value::List(a), Value::List(b)] = args else {
        return None;
    };
    let holds = |list: &[Value], item: &Value| list.iter().any(|one| one.equals(item));
    let all = |of: &[Value], inside: &[Value]| of.iter().all(|item| holds(inside, item));
    let (a, b) = (&a.items, &b.items);
    let truth = match name {
        "sets.contains" => all(b, a),
        "sets.equivalent" => all(b, a) && all(a, b),
        "sets.intersects" => b.iter().any(|item| holds(a, item)),
        _ => return None,
    };
    Some(Ok(Value::Bool(truth)))
}
