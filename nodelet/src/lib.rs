//! Runs the pods of one node.

pub mod core;
pub mod images;
pub mod logs;
pub mod make;
pub mod objects;
pub mod runtime;
pub mod volumes;
