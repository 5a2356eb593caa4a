//! The API server as its clients see it: in the process, over TLS, by stock kubectl.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;

mod admission;
mod audit;
mod authz;
mod common;
mod custom_resources;
mod encodings;
mod events;
mod flow;
mod fuzz;
mod kinds;
mod kubectl;
mod nodes;
mod objects;
mod placements;
mod proxies;
mod service_ranges;
mod several;
mod tokens;
mod webhooks;
mod wire;
