//! What several cores share. Pure: no IO, no clock, no task.

pub mod history;
pub mod key;
pub mod merge;
pub mod owner;
pub mod pods;
pub mod portion;

#[cfg(test)]
pub mod testing;

pub use key::Key;
