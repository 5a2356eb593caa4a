//! The worst that an expression can cost, from the sizes of the types of its parts: in cel-go's
//! units, by its and Kubernetes' rules.

use crate::ast::{Expr, Kind};
use crate::check::{Observer, Scope, TypeFault, observed};
use crate::types::Type;

/// A tenth of a unit for each character that is looked at.
pub(crate) fn traversal(size: u64) -> u64 {
    size / 10 + u64::from(!size.is_multiple_of(10))
}

/// What matching a text against a pattern of a length may cost.
pub(crate) fn matching(size: u64, pattern: u64) -> u64 {
    let pattern = pattern / 4 + u64::from(!pattern.is_multiple_of(4));
    traversal(size.saturating_add(1)).saturating_mul(pattern.max(1))
}

/// What a call costs, by the sizes of its arguments (and, for those that compare, of their
/// parts).
pub(crate) fn of_call(function: &str, sizes: &[u64]) -> u64 {
    let size = |index: usize| sizes.get(index).copied().unwrap_or(1);
    match function {
        "_&&_" | "_||_" | "!_" | "_?_:_" => 0,
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => traversal(size(0).min(size(1))).max(1),
        "_+_" => traversal(size(0).saturating_add(size(1))).max(1),
        "@in" => size(1).max(1),
        "startsWith" | "endsWith" => traversal(size(1)).max(1),
        "contains" => traversal(size(0)).saturating_mul(traversal(size(1))).max(1),
        "matches" | "find" | "findAll" => matching(size(0), size(1)),
        "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "reverse"
        | "charAt"
        | "replace"
        | "split"
        | "bytes"
        | "string"
        | "url"
        | "isURL"
        | "ip"
        | "isIP"
        | "ip.isCanonical"
        | "cidr"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "validate"
        | "base64.encode"
        | "base64.decode"
        | "strings.quote"
        | "jsonpatch.escapeKey" => traversal(size(0)).max(1),
        "join" => traversal(size(0)).saturating_mul(2).max(1),
        "format" => traversal(size(0)).saturating_add(size(1)).max(1),
        "isSorted" | "sum" | "min" | "max" | "flatten" | "slice" => size(0).max(1),
        "indexOf" | "lastIndexOf" => size(0).saturating_mul(traversal(size(1)).max(1)).max(1),
        "distinct" | "sort" => size(0).saturating_mul(size(0)).max(1),
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)).max(1),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2).max(1),
        // An authorizer asks the host.
        "check" => 350_000,
        _ => 1,
    }
}

/// The cost of making a list, a map, an object.
pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const OBJECT: u64 = 40;

/// The worst cost of an expression.
///
/// # Errors
/// [`TypeFault`] where it is of no type.
pub fn estimate(expr: &Expr, scope: &Scope) -> Result<u64, TypeFault> {
    let mut meter = Estimate {
        total: 0,
        times: vec![1],
    };
    observed(expr, scope, &mut meter)?;
    Ok(meter.total)
}

struct Estimate {
    total: u64,
    /// How often what is looked at is evaluated; of each macro around it.
    times: Vec<u64>,
}

impl Observer for Estimate {
    fn seen(&mut self, expr: &Expr, _: &Type, parts: &[Type]) {
        let own = match &expr.kind {
            Kind::Literal(_) | Kind::Bind(..) | Kind::OptMap(..) => 0,
            Kind::Ident(_) | Kind::Select(_) => 1,
            Kind::List(_) => LIST,
            Kind::Map(_) => MAP,
            Kind::Struct(..) => OBJECT,
            Kind::Fold(_) => 1,
            Kind::Call(call) => {
                let sizes: Vec<u64> = parts.iter().map(Type::size).collect();
                of_call(&call.function, &sizes)
            }
        };
        let times = self.times.last().copied().unwrap_or(1);
        self.total = self.total.saturating_add(own.saturating_mul(times));
    }

    fn enter(&mut self, times: u64) {
        let around = self.times.last().copied().unwrap_or(1);
        let inside = around.saturating_mul(times);
        // Each turn asks whether to go on.
        self.total = self.total.saturating_add(inside.saturating_mul(2));
        self.times.push(inside);
    }

    fn leave(&mut self) {
        self.times.pop();
    }
}
