//! What the store promises, tested from outside.

mod common;
mod durability;
mod semantics;
