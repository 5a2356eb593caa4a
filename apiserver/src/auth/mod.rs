//! Authentication and authorisation: who asks, and whether they may.

pub mod authorizer;
pub mod tokens;
pub mod user;
pub mod x509;
