//! What decides, without IO, clocks or randomness: events and the time go in, what should be
//! comes out.

pub mod facts;
pub mod ipam;
pub mod neighbourhood;
pub mod services;
pub mod ways;
pub mod zone;
