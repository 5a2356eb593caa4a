//! Types: every part of an expression gets one, or the expression is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Call, Expr, Fold, FoldKind, Kind, Select};
use crate::library::signatures;
use crate::types::{ObjectType, Type};
use crate::value::Value;

/// An expression is of no type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeFault {
    /// Where, in bytes.
    pub at: usize,
    /// Why.
    pub message: String,
}

/// The variables that are in scope, the innermost last, and the objects that literals may name.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: Vec<(String, Type)>,
    /// Object types by name.
    pub objects: BTreeMap<String, Arc<ObjectType>>,
}

/// What the checker is told of: each part with its type, from the inside outwards.
pub trait Observer {
    /// An expression has this type; `parts` are those of its operands.
    fn seen(&mut self, expr: &Expr, ty: &Type, parts: &[Type]);
    /// A macro begins to go over so many.
    fn enter(&mut self, times: u64);
    /// It ends.
    fn leave(&mut self);
}

struct Nobody;

impl Observer for Nobody {
    fn seen(&mut self, _: &Expr, _: &Type, _: &[Type]) {}
    fn enter(&mut self, _: u64) {}
    fn leave(&mut self) {}
}

// === impl Scope ===

impl Scope {
    /// Adds a variable.
    pub fn with(mut self, name: &str, ty: Type) -> Self {
        self.variables.push((name.to_owned(), ty));
        self
    }

    fn find(&self, name: &str) -> Option<&Type> {
        let mut found = self.variables.iter().rev();
        found
            .find(|(variable, _)| variable == name)
            .map(|(_, ty)| ty)
    }
}

/// The type of an expression.
///
/// # Errors
/// [`TypeFault`] says which part is of no type.
pub fn check(expr: &Expr, scope: &Scope) -> Result<Type, TypeFault> {
    observed(expr, scope, &mut Nobody)
}

/// The type of an expression, telling the types of its parts.
///
/// # Errors
/// [`TypeFault`] says which part is of no type.
pub fn observed(
    expr: &Expr,
    scope: &Scope,
    observer: &mut dyn Observer,
) -> Result<Type, TypeFault> {
    let mut checker = Checker {
        scope: scope.clone(),
        observer,
    };
    checker.expr(expr)
}

struct Checker<'a> {
    scope: Scope,
    observer: &'a mut dyn Observer,
}

type Checked = Result<Type, TypeFault>;

fn fault<T>(expr: &Expr, message: impl Into<String>) -> Result<T, TypeFault> {
    Err(TypeFault {
        at: expr.at,
        message: message.into(),
    })
}

impl Checker<'_> {
    fn expr(&mut self, expr: &Expr) -> Checked {
        let mut parts = Vec::new();
        let ty = self.kind(expr, &mut parts)?;
        self.observer.seen(expr, &ty, &parts);
        Ok(ty)
    }

    fn kind(&mut self, expr: &Expr, parts: &mut Vec<Type>) -> Checked {
        match &expr.kind {
            Kind::Literal(value) => Ok(literal(value)),
            Kind::Ident(name) => self.ident(expr, name),
            Kind::Select(select) => self.select(expr, select, parts),
            Kind::Call(call) => self.call(expr, call, parts),
            Kind::List(items) => {
                let mut joined: Option<Type> = None;
                for (item, optional) in items {
                    let ty = self.element(item, *optional)?;
                    joined = Some(joined.map_or(ty.clone(), |all| all.join(&ty)));
                }
                Ok(Type::List(
                    Arc::new(joined.unwrap_or(Type::Dyn)),
                    items.len() as u64,
                ))
            }
            Kind::Map(entries) => {
                let mut joined: Option<(Type, Type)> = None;
                for (key, value, optional) in entries {
                    let key = self.expr(key)?;
                    let value = self.element(value, *optional)?;
                    joined = Some(match joined {
                        None => (key, value),
                        Some((k, v)) => (k.join(&key), v.join(&value)),
                    });
                }
                let (key, value) = joined.unwrap_or((Type::Dyn, Type::Dyn));
                Ok(Type::Map(
                    Arc::new(key),
                    Arc::new(value),
                    entries.len() as u64,
                ))
            }
            Kind::Struct(name, fields) => self.object(expr, name, fields),
            Kind::Fold(fold) => self.fold(expr, fold, parts),
            Kind::Bind(name, value, body) => {
                let ty = self.expr(value)?;
                self.within(&[(name, ty)], |this| this.expr(body))
            }
            Kind::OptMap(target, name, body, flat) => {
                let inner = match self.expr(target)? {
                    Type::Optional(inner) => (*inner).clone(),
                    Type::Dyn => Type::Dyn,
                    other => {
                        return fault(
                            expr,
                            format!("found no matching overload for 'optMap' applied to '{other}'"),
                        );
                    }
                };
                let ty = self.within(&[(name, inner)], |this| this.expr(body))?;
                Ok(if *flat { ty } else { Type::optional(ty) })
            }
        }
    }

    /// An item of a literal; an optional one counts as what it may hold.
    fn element(&mut self, item: &Expr, optional: bool) -> Checked {
        let ty = self.expr(item)?;
        match (optional, ty) {
            (true, Type::Optional(inner)) => Ok((*inner).clone()),
            (true, Type::Dyn) => Ok(Type::Dyn),
            (true, other) => fault(item, format!("expected an optional value, found '{other}'")),
            (false, ty) => Ok(ty),
        }
    }

    fn within<T>(&mut self, variables: &[(&String, Type)], work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.scope.variables.len();
        let added = variables
            .iter()
            .map(|(name, ty)| ((*name).clone(), ty.clone()));
        self.scope.variables.extend(added);
        let outcome = work(self);
        self.scope.variables.truncate(before);
        outcome
    }

    fn ident(&self, expr: &Expr, name: &str) -> Checked {
        if let Some(ty) = self.scope.find(name) {
            return Ok(ty.clone());
        }
        let types = [
            "bool",
            "bytes",
            "double",
            "duration",
            "int",
            "list",
            "map",
            "null_type",
            "string",
            "timestamp",
            "type",
            "uint",
        ];
        match types.contains(&name) {
            true => Ok(Type::Type),
            false => fault(
                expr,
                format!("undeclared reference to '{name}' (in container '')"),
            ),
        }
    }

    fn select(&mut self, expr: &Expr, select: &Select, parts: &mut Vec<Type>) -> Checked {
        let operand = self.expr(&select.operand)?;
        parts.push(operand.clone());
        let (held, optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            _ => (operand, select.optional),
        };
        let field = match &held {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value, _) => (**value).clone(),
            Type::Object(object) => match object.fields.get(&select.field) {
                Some(ty) => ty.clone(),
                None if object.open => Type::Dyn,
                None => return fault(expr, format!("undefined field '{}'", select.field)),
            },
            Type::Opaque("kubernetes.authorization.Authorizer")
                if select.field == "requestResource" =>
            {
                Type::Opaque("kubernetes.authorization.ResourceCheck")
            }
            other => {
                return fault(
                    expr,
                    format!("type '{other}' does not support field selection"),
                );
            }
        };
        Ok(match (select.test, optional) {
            (true, _) => Type::Bool,
            (false, true) if !matches!(field, Type::Optional(_)) => Type::optional(field),
            (false, _) => field,
        })
    }

    fn call(&mut self, expr: &Expr, call: &Call, parts: &mut Vec<Type>) -> Checked {
        if let Some(target) = &call.target {
            parts.push(self.expr(target)?);
        }
        for arg in &call.args {
            parts.push(self.expr(arg)?);
        }
        let method = call.target.is_some();
        let mut results: Vec<Type> = Vec::new();
        let all = signatures::of(&call.function);
        for overload in all
            .iter()
            .filter(|o| o.method == method && o.args.len() == parts.len())
        {
            let mut found = [None, None, None, None];
            if parts
                .iter()
                .zip(&overload.args)
                .all(|(given, wanted)| given.fits(wanted, &mut found))
            {
                results.push(overload.result.filled(&found));
            }
        }
        let Some(first) = results.first() else {
            if all.is_empty() {
                return fault(
                    expr,
                    format!(
                        "undeclared reference to '{}' (in container '')",
                        call.function
                    ),
                );
            }
            let shown: Vec<String> = parts.iter().map(ToString::to_string).collect();
            let applied = match (method, shown.split_first()) {
                (true, Some((target, args))) => format!("{target}.({})", args.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = &call.function;
            return fault(
                expr,
                format!("found no matching overload for '{name}' applied to '{applied}'"),
            );
        };
        let joined = results
            .iter()
            .skip(1)
            .fold(first.clone(), |all, ty| all.join(ty));
        Ok(sized(&call.function, joined, parts))
    }

    fn object(&mut self, expr: &Expr, name: &str, fields: &[(String, Expr, bool)]) -> Checked {
        let whole = name.split('.').next().unwrap_or_default();
        let parts = self.scope.objects.get(whole).filter(|object| object.open);
        let found = self.scope.objects.get(name).or(parts);
        let Some(object) = found.cloned() else {
            return fault(
                expr,
                format!("undeclared reference to '{name}' (in container '')"),
            );
        };
        for (field, value, optional) in fields {
            let given = self.element(value, *optional)?;
            let Some(wanted) = object.fields.get(field) else {
                if object.open {
                    continue;
                }
                return fault(value, format!("undefined field '{field}'"));
            };
            if !given.fits(wanted, &mut [None, None, None, None]) {
                return fault(
                    value,
                    format!(
                        "expected type of field '{field}' is '{wanted}' but provided type is '{given}'"
                    ),
                );
            }
        }
        Ok(Type::Object(object))
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold, parts: &mut Vec<Type>) -> Checked {
        let range = self.expr(&fold.range)?;
        parts.push(range.clone());
        let (first, second) = match &range {
            Type::List(item, _) => ((**item).clone(), None),
            Type::Map(key, value, _) => ((**key).clone(), Some((**value).clone())),
            Type::Dyn => (Type::Dyn, Some(Type::Dyn)),
            other => {
                return fault(
                    &fold.range,
                    format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    ),
                );
            }
        };
        let variables = match (&fold.var2, second) {
            (None, _) => vec![(&fold.var, first)],
            (Some(var2), Some(value)) => vec![(&fold.var, first), (var2, value)],
            (Some(var2), None) => vec![(&fold.var, Type::Int), (var2, first)],
        };
        self.observer.enter(range.size());
        let outcome = self.within(&variables, |this| {
            let condition = fold.filter.as_ref().map(|filter| this.truth(filter));
            condition.transpose()?;
            match fold.kind {
                FoldKind::Map | FoldKind::TransformMap => this.expr(&fold.body),
                _ => this.truth(&fold.body),
            }
        });
        self.observer.leave();
        let body = outcome?;
        let key = match &range {
            Type::Map(key, ..) => (**key).clone(),
            _ => Type::Int,
        };
        let _ = expr;
        Ok(match fold.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::Bool,
            FoldKind::Map => Type::List(Arc::new(body), range.size()),
            FoldKind::TransformMap => Type::Map(Arc::new(key), Arc::new(body), range.size()),
            FoldKind::Filter => match range {
                Type::Map(key, _, max) => Type::List(key, max),
                other => other,
            },
        })
    }

    fn truth(&mut self, expr: &Expr) -> Checked {
        match self.expr(expr)? {
            ty @ (Type::Bool | Type::Dyn) => Ok(ty),
            other => fault(expr, format!("expected type 'bool' but found '{other}'")),
        }
    }
}

fn literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String(value.size()),
        Value::Bytes(_) => Type::Bytes(value.size()),
        _ => Type::Dyn,
    }
}

/// The result of a function with the size that its arguments bound it to.
fn sized(function: &str, result: Type, parts: &[Type]) -> Type {
    let size = |index: usize| parts.get(index).map_or(1, Type::size);
    match function {
        "_+_" => result.sized(size(0).saturating_add(size(1))),
        "find" | "charAt" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "reverse"
        | "distinct" | "sort" | "slice" | "findAll" | "split" | "bytes" | "filter"
        | "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" => {
            result.sized(size(0))
        }
        "string" => match parts.first() {
            Some(Type::String(max)) => result.sized(*max),
            Some(Type::Dyn | Type::Bytes(_)) | None => result,
            Some(_) => result.sized(64),
        },
        "replace" => result.sized(size(0).saturating_mul(size(2).max(1))),
        "base64.encode" => result.sized(size(0).saturating_mul(4) / 3 + 4),
        "base64.decode" => result.sized(size(0)),
        _ => result,
    }
}
