//! Authentication and authorisation: who asks, and whether they may.
//!
//! Who asks is found out by certificates ([`x509`]), tokens ([`bearer`], [`tokens`]) and
//! [`impersonation`]; the answer is a [`user`]. [`action`] says what is asked for, [`authorizer`]
//! is the seam to those that decide: [`rbac`] by roles and bindings, [`node`] for nodes.

pub mod action;
pub mod authorizer;
pub mod bearer;
pub mod impersonation;
pub mod node;
pub mod rbac;
pub mod tokens;
pub mod user;
pub mod x509;

/// Whether two secrets are the same, in a time that does not tell how far they are.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && differs == 0
}
