//! Runs the pods of one node.

pub mod core;
pub mod images;
pub mod logs;
pub mod runtime;
