//! Messages as octets.

mod session;

pub use session::{FamilySession, Session};
