//! Runs the pods of one node.

pub mod core;
pub mod runtime;
