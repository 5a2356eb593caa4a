//! The Node object: what the machine is, how it is, and that it is alive.
//!
//! [`facts`] reads the machine, [`object`] makes the Node of it (pure), [`conditions`] says how
//! it is (pure), and [`keeper`] registers it and keeps it current: the Lease every 10 s, the
//! status when it changes and every 5 min.

pub mod conditions;
pub mod facts;
pub mod keeper;
pub mod lease;
pub mod object;
