//! The API server as its clients see it: in the process, over TLS, by stock kubectl.

mod common;
mod kubectl;
mod objects;
mod wire;
