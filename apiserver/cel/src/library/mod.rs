//! The functions that expressions may call: what each takes and gives ([`signatures`]), and what
//! each does.

pub(crate) mod call;
mod formats;
mod lists;
mod math;
mod net;
pub mod quantity;
mod sets;
pub(crate) mod signatures;
mod strings;
pub mod time;

pub use net::{parse_cidr, parse_ip};
