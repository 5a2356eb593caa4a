//! The Common Expression Language as the Kubernetes API uses it.
//!
//! An expression is [compiled](Program::compile) once: parsed, type-checked against the
//! [types](types) of its variables, and its worst cost estimated from their sizes; then
//! [evaluated](Program::eval) as often as needed, within a budget that it cannot exceed.
//!
//! - [`parse`]: text to a tree, macros included, bounded in depth;
//! - [`check`]: types, by the table of [`library`]'s signatures;
//! - [`cost`]: what an expression may cost at worst;
//! - [`eval`]: what it is worth, and what it did cost;
//! - [`library`]: CEL's own functions and those of Kubernetes: lists, sets, strings, regular
//!   expressions, URLs, IP addresses, CIDRs, quantities, semantic versions, formats, optionals.
//!
//! Everything here is a pure function of its arguments. The crate knows no object of Kubernetes,
//! no schema language, no clock.
//!
//! See <https://github.com/google/cel-spec> and "Common Expression Language in Kubernetes".

pub mod ast;
pub mod budget;
pub mod check;
pub mod cost;
pub mod eval;
mod lex;
pub mod library;
pub mod parse;
mod program;
pub mod types;
pub mod value;

pub use budget::{Budget, Spent};
pub use eval::EvalError;
pub use program::{CompileError, Env, Program};
pub use types::{ObjectType, Type};
pub use value::Value;
