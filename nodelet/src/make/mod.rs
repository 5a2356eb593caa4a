//! From a pod to what the runtime is told: pure functions, everything they need handed in.
//!
//! [`sandbox`] makes the pod's shared part, [`container`] one container of it; [`env`],
//! [`expand`], [`fields`], [`security`] and [`resources`] are the pieces of the latter, and
//! [`etc`] writes the files in `/etc` that the node gives to a pod.

pub mod container;
pub mod env;
pub mod etc;
pub mod expand;
pub mod fields;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod service_env;

/// Something that a pod refers to is missing or unusable; the sentence names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);
