//! The node on two leaves of other makes: FRR, BIRD, GoBGP.

#[path = "../support/mod.rs"]
mod support;

mod config;
mod interop;
mod outages;
mod rack;
