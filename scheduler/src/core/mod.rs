//! The pure core: the snapshot, the decision, the queue. No IO, no clock, no randomness of its own.

pub mod decide;
pub mod drivers;
pub mod events;
pub mod input;
pub mod node;
pub mod plugins;
pub mod preempt;
pub mod queue;
pub mod reason;
pub mod resources;
pub mod scheduler;
pub mod shape;
pub mod snapshot;
pub mod topology;
pub mod volumes;
