//! An expression that is ready to run.

use crate::ast::Expr;
use crate::budget::{Budget, Meter};
use crate::check::{Scope, check};
use crate::cost;
use crate::eval::{Bindings, EvalError, eval};
use crate::parse::parse;
use crate::types::Type;
use crate::value::Value;

/// What an expression is compiled for: its variables and their types.
pub type Env = Scope;

/// An expression that is ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    expr: Expr,
    ty: Type,
    cost: u64,
}

/// An expression cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ERROR: <input>:{line}:{column}: {message}\n | {source_line}\n | {}^", ".".repeat(column.saturating_sub(1)))]
pub struct CompileError {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// Why.
    pub message: String,
    /// The line itself.
    pub source_line: String,
}

// === impl CompileError ===

impl CompileError {
    fn new(source: &str, at: usize, message: String) -> Self {
        let mut at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        let before = &source[..at];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            message,
            source_line: source[start..]
                .lines()
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

// === impl Program ===

impl Program {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// [`CompileError`] says what is wrong and where.
    pub fn compile(source: &str, env: &Env) -> Result<Self, CompileError> {
        let expr =
            parse(source).map_err(|fault| CompileError::new(source, fault.at, fault.message))?;
        let bad =
            |fault: crate::check::TypeFault| CompileError::new(source, fault.at, fault.message);
        let ty = check(&expr, env).map_err(bad)?;
        let cost = cost::estimate(&expr, env).map_err(bad)?;
        Ok(Self { expr, ty, cost })
    }

    /// The type of its value.
    pub fn result(&self) -> &Type {
        &self.ty
    }

    /// The worst that it can cost.
    pub fn worst_cost(&self) -> u64 {
        self.cost
    }

    /// Whether it names a variable.
    pub fn names(&self, variable: &str) -> bool {
        self.expr.names(variable)
    }

    /// What it is worth, within a budget.
    ///
    /// # Errors
    /// [`EvalError`] where it has no value, or costs too much.
    pub fn eval(&self, bindings: &Bindings<'_>, budget: &mut Budget) -> Result<Value, EvalError> {
        let mut meter: Meter<'_> = budget.meter();
        eval(&self.expr, bindings, &mut meter)
    }
}
