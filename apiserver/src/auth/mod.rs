//! Authentication and authorisation: who asks, and whether they may.
//!
//! [`action`] says what is asked for, [`authorizer`] is the seam, [`rbac`] answers by roles and
//! bindings.

pub mod action;
pub mod authorizer;
pub mod impersonation;
pub mod rbac;
pub mod tokens;
pub mod user;
pub mod x509;
