//! The node on two leaves of other makes: FRR, BIRD, GoBGP; and on one that misbehaves.

#[path = "../support/mod.rs"]
mod support;

mod bad_leaf;
mod config;
mod interop;
mod outages;
mod rack;
mod racks;
mod source;
