//! The kinds of Peapod's own group, `net.peapod.dev/v1`: a file each.

mod ip_block;
mod placement;

pub use ip_block::{IpBlock, IpBlockSpec, block_name};
pub use placement::{Arrival, Departure, Placement, PlacementLeaf, PlacementSpec};

/// The group's name.
pub const GROUP: &str = "net.peapod.dev";
