//! The demands, each a function from a pod to what it breaks, in upstream's words. Pure.

pub mod host;
pub mod privileges;
pub mod users;
