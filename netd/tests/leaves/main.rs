//! The node on two leaves of other makes: FRR, BIRD, GoBGP.

#[path = "../support/mod.rs"]
mod support;

mod interop;
mod rack;
