//! Tests of the codec: golden messages, round trips, and the fuzz bodies with mutated inputs.

#[path = "../../fuzz/src/lib.rs"]
mod bodies;
mod golden;
mod mutation;
mod round_trip;
