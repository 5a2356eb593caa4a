//! What an expression is worth. Every step is paid for; faults are values of their own, which
//! `&&`, `||`, `all` and `exists` may absorb.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, FoldKind, Kind, Select};
use crate::budget::{Meter, Spent};
use crate::cost;
use crate::library::call;
use crate::value::{Key, Value};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An operation failed.
    #[error("{0}")]
    Fault(String),
    /// It costs too much.
    #[error(transparent)]
    Spent(#[from] Spent),
}

/// Variables that are computed when they are first asked for.
pub trait Lazy {
    /// The fields of this value are computed by [`Self::field`].
    fn field(&self, name: &str) -> Option<Result<Value, EvalError>>;
}

/// The values of the variables.
#[derive(Clone, Default)]
pub struct Bindings<'a> {
    values: Vec<(String, Value)>,
    lazy: Option<(&'a str, &'a dyn Lazy)>,
}

// === impl Bindings ===

impl<'a> Bindings<'a> {
    /// Sets a variable.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.values.push((name.to_owned(), value));
        self
    }

    /// Makes the fields of a variable ones that are computed when they are asked for.
    pub fn with_lazy(mut self, name: &'a str, lazy: &'a dyn Lazy) -> Self {
        self.lazy = Some((name, lazy));
        self
    }
}

type Evaluated = Result<Value, EvalError>;

/// A fault of an operation.
pub(crate) fn fault<T>(message: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Fault(message.into()))
}

pub(crate) fn eval(expr: &Expr, bindings: &Bindings<'_>, meter: &mut Meter<'_>) -> Evaluated {
    let mut evaluator = Evaluator {
        bindings,
        locals: Vec::new(),
        meter,
    };
    evaluator.expr(expr)
}

struct Evaluator<'a, 'm> {
    bindings: &'a Bindings<'a>,
    locals: Vec<(String, Value)>,
    meter: &'a mut Meter<'m>,
}

impl Evaluator<'_, '_> {
    fn expr(&mut self, expr: &Expr) -> Evaluated {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(call),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(_, fields) => self.object(fields),
            Kind::Fold(fold) => self.fold(fold),
            Kind::Bind(name, value, body) => {
                let value = self.expr(value)?;
                self.within(name, value, body)
            }
            Kind::OptMap(target, name, body, flat) => match self.expr(target)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(inner)) => {
                    let made = self.within(name, (*inner).clone(), body)?;
                    Ok(if *flat { made } else { Value::some(made) })
                }
                other => fault(format!("no such overload: optMap on {}", other.type_name())),
            },
        }
    }

    fn within(&mut self, name: &str, value: Value, body: &Expr) -> Evaluated {
        self.locals.push((name.to_owned(), value));
        let outcome = self.expr(body);
        self.locals.pop();
        outcome
    }

    fn ident(&mut self, name: &str) -> Evaluated {
        self.meter.pay(1)?;
        let locals = self
            .locals
            .iter()
            .rev()
            .chain(self.bindings.values.iter().rev());
        let mut found = locals.filter(|(variable, _)| variable == name);
        match found.next() {
            Some((_, value)) => Ok(value.clone()),
            None => match name {
                "bool" | "bytes" | "double" | "int" | "list" | "map" | "null_type" | "string"
                | "type" | "uint" => Ok(Value::Type(name.into())),
                "timestamp" => Ok(Value::Type("google.protobuf.Timestamp".into())),
                "duration" => Ok(Value::Type("google.protobuf.Duration".into())),
                _ => fault(format!("no such attribute(s): {name}")),
            },
        }
    }

    fn select(&mut self, select: &Select) -> Evaluated {
        self.meter.pay(1)?;
        if let (Kind::Ident(name), Some((lazy, fields))) =
            (&select.operand.kind, self.bindings.lazy)
            && name == lazy
            && !self.locals.iter().any(|(local, _)| local == name)
        {
            let found = fields.field(&select.field);
            return match (select.test, found) {
                (true, found) => Ok(Value::Bool(found.is_some())),
                (false, Some(value)) => value,
                (false, None) => fault(format!("no such key: {}", select.field)),
            };
        }
        let operand = self.expr(&select.operand)?;
        let (held, optional) = match operand {
            Value::Optional(None) if select.test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, select.optional),
        };
        if let Value::Host(host) = &held {
            return host.call(&select.field, &[]).or_else(fault);
        }
        let Value::Map(fields) = &held else {
            return fault(format!(
                "no such overload: {}.{}",
                held.type_name(),
                select.field
            ));
        };
        let found = fields.get(&Key::from(select.field.as_str()));
        match (select.test, optional, found) {
            (true, _, found) => Ok(Value::Bool(found.is_some())),
            (false, true, Some(value)) => Ok(match value {
                already @ Value::Optional(_) => already.clone(),
                value => Value::some(value.clone()),
            }),
            (false, true, None) => Ok(Value::Optional(None)),
            (false, false, Some(value)) => Ok(value.clone()),
            (false, false, None) => fault(format!("no such key: {}", select.field)),
        }
    }

    fn call(&mut self, call: &Call) -> Evaluated {
        match (call.function.as_str(), call.args.as_slice()) {
            ("_&&_", [left, right]) => return self.logic(left, right, false),
            ("_||_", [left, right]) => return self.logic(left, right, true),
            ("_?_:_", [condition, then, otherwise]) => {
                return match self.expr(condition)? {
                    Value::Bool(true) => self.expr(then),
                    Value::Bool(false) => self.expr(otherwise),
                    other => fault(format!(
                        "no such overload: condition of type {}",
                        other.type_name()
                    )),
                };
            }
            ("or" | "orValue", [other]) => {
                if let Some(target) = &call.target {
                    let target = self.expr(target)?;
                    return self.otherwise(&call.function, target, other);
                }
            }
            _ => {}
        }
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.as_deref().into_iter().chain(&call.args) {
            args.push(self.expr(arg)?);
        }
        let compares = matches!(call.function.as_str(), "_==_" | "_!=_" | "@in" | "format");
        let size = |value: &Value| {
            if compares {
                value.weight()
            } else {
                value.size()
            }
        };
        let sizes: Vec<u64> = args.iter().map(size).collect();
        self.meter.pay(cost::of_call(&call.function, &sizes))?;
        call::call(&call.function, call.target.is_some(), &args)
    }

    /// What an optional value is, or else another.
    fn otherwise(&mut self, function: &str, target: Value, other: &Expr) -> Evaluated {
        self.meter.pay(1)?;
        match (function, target) {
            ("or", some @ Value::Optional(Some(_))) => Ok(some),
            (_, Value::Optional(Some(inner))) => Ok((*inner).clone()),
            (_, Value::Optional(None)) => self.expr(other),
            (name, value) => fault(format!("no such overload: {}.{name}()", value.type_name())),
        }
    }

    /// `&&` (`decides` is false) or `||` (it is true): one side may decide, whatever the other is.
    fn logic(&mut self, left: &Expr, right: &Expr, decides: bool) -> Evaluated {
        let left = self.truth(left);
        if matches!(left, Ok(truth) if truth == decides) || matches!(left, Err(EvalError::Spent(_)))
        {
            return left.map(Value::Bool);
        }
        let right = self.truth(right);
        match (left, right) {
            (_, Err(spent @ EvalError::Spent(_))) => Err(spent),
            (_, Ok(truth)) if truth == decides => Ok(Value::Bool(decides)),
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
            (Ok(_), Ok(_)) => Ok(Value::Bool(!decides)),
        }
    }

    fn truth(&mut self, expr: &Expr) -> Result<bool, EvalError> {
        match self.expr(expr)? {
            Value::Bool(truth) => Ok(truth),
            other => fault(format!(
                "no such overload: {} is no bool",
                other.type_name()
            )),
        }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> Evaluated {
        self.meter.pay(cost::LIST)?;
        let mut out = Vec::with_capacity(items.len());
        for (item, optional) in items {
            match (self.expr(item)?, optional) {
                (Value::Optional(None), true) => {}
                (Value::Optional(Some(inner)), true) => out.push((*inner).clone()),
                (value, _) => out.push(value),
            }
        }
        Ok(Value::list(out))
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Evaluated {
        self.meter.pay(cost::MAP)?;
        let mut out = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.expr(key)?;
            let Some(key) = Key::of(&key) else {
                return fault(format!("unsupported key type: {}", key.type_name()));
            };
            let value = match (self.expr(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            if out.insert(key, value).is_some() {
                return fault("Failed with repeated key");
            }
        }
        Ok(Value::Map(Arc::new(out)))
    }

    fn object(&mut self, fields: &[(String, Expr, bool)]) -> Evaluated {
        self.meter.pay(cost::OBJECT)?;
        let mut out = BTreeMap::new();
        for (name, value, optional) in fields {
            let value = match (self.expr(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(inner)), true) => (*inner).clone(),
                (value, _) => value,
            };
            out.insert(Key::from(name.as_str()), value);
        }
        Ok(Value::Map(Arc::new(out)))
    }

    fn fold(&mut self, fold: &Fold) -> Evaluated {
        self.meter.pay(1)?;
        let range = self.expr(&fold.range)?;
        let pairs: Vec<(Value, Value)> = match &range {
            Value::List(list) => {
                let items = list.items.iter().enumerate();
                items
                    .map(|(index, item)| (Value::Int(index as i64), item.clone()))
                    .collect()
            }
            Value::Map(map) => map
                .iter()
                .map(|(key, value)| (key.to_value(), value.clone()))
                .collect(),
            other => {
                return fault(format!(
                    "no such overload: {} is no range",
                    other.type_name()
                ));
            }
        };
        let is_list = matches!(range, Value::List(_));
        let mut turns = Turns::new(fold.kind);
        for (key, value) in pairs {
            self.meter.pay(2)?;
            // One variable is the item of a list, or the key of a map.
            let first = match (&fold.var2, is_list) {
                (None, true) => value.clone(),
                _ => key.clone(),
            };
            let before = self.locals.len();
            self.locals.push((fold.var.clone(), first.clone()));
            if let Some(var2) = &fold.var2 {
                self.locals.push((var2.clone(), value));
            }
            let outcome = self.turn(fold, first, key, &mut turns);
            self.locals.truncate(before);
            if outcome? {
                break;
            }
        }
        turns.finish()
    }

    /// One turn of a macro; says whether it is the last.
    fn turn(
        &mut self,
        fold: &Fold,
        item: Value,
        key: Value,
        turns: &mut Turns,
    ) -> Result<bool, EvalError> {
        if let Some(filter) = &fold.filter
            && !self.truth(filter)?
        {
            return Ok(false);
        }
        match fold.kind {
            FoldKind::All | FoldKind::Exists => {
                let decides = fold.kind == FoldKind::Exists;
                match self.truth(&fold.body) {
                    Ok(truth) if truth == decides => {
                        turns.decided = true;
                        return Ok(true);
                    }
                    Ok(_) => {}
                    Err(spent @ EvalError::Spent(_)) => return Err(spent),
                    Err(fault) => turns.fault = Some(fault),
                }
            }
            FoldKind::ExistsOne => turns.count += usize::from(self.truth(&fold.body)?),
            FoldKind::Filter => {
                if self.truth(&fold.body)? {
                    turns.items.push(item);
                }
            }
            FoldKind::Map => {
                let made = self.expr(&fold.body)?;
                turns.items.push(made);
            }
            FoldKind::TransformMap => {
                let made = self.expr(&fold.body)?;
                let Some(key) = Key::of(&key) else {
                    return fault("unsupported key type");
                };
                turns.entries.insert(key, made);
            }
        }
        Ok(false)
    }
}

/// What the turns of a macro come to.
struct Turns {
    kind: FoldKind,
    decided: bool,
    fault: Option<EvalError>,
    count: usize,
    items: Vec<Value>,
    entries: BTreeMap<Key, Value>,
}

impl Turns {
    fn new(kind: FoldKind) -> Self {
        Self {
            kind,
            decided: false,
            fault: None,
            count: 0,
            items: Vec::new(),
            entries: BTreeMap::new(),
        }
    }

    fn finish(self) -> Evaluated {
        Ok(match self.kind {
            FoldKind::All | FoldKind::Exists => match (self.decided, self.fault) {
                (true, _) => Value::Bool(self.kind == FoldKind::Exists),
                (false, Some(fault)) => return Err(fault),
                (false, None) => Value::Bool(self.kind == FoldKind::All),
            },
            FoldKind::ExistsOne => Value::Bool(self.count == 1),
            FoldKind::Map | FoldKind::Filter => Value::list(self.items),
            FoldKind::TransformMap => Value::Map(Arc::new(self.entries)),
        })
    }
}
