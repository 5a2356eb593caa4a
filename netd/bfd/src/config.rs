//! What an operator chooses for a session.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

/// The settings of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// This end's number for the session; no two sessions of a system may have the same.
    pub discriminator: NonZeroU32,
    /// Time between packets that this end would like to send. It sends one per second at most
    /// while the session is not Up.
    pub desired_min_tx: Duration,
    /// Time between packets that this end can receive. Zero asks the neighbour to send none.
    pub required_min_rx: Duration,
    /// Intervals without a packet after which the neighbour is to take this end for gone.
    pub detect_multiplier: NonZeroU8,
    /// This end's BFD lives through a loss of its control plane (C bit). False where the process
    /// that speaks BFD also speaks the routing protocol (RFC 5882 §4.3).
    pub control_plane_independent: bool,
    /// Sends nothing before the neighbour does (RFC 5880 §6.1).
    pub passive: bool,
}

impl Config {
    /// The usual settings: 3 × 300 ms, active, sharing the fate of the control plane.
    pub fn new(discriminator: NonZeroU32) -> Config {
        Config {
            discriminator,
            desired_min_tx: Duration::from_millis(300),
            required_min_rx: Duration::from_millis(300),
            detect_multiplier: const { NonZeroU8::new(3).unwrap() },
            control_plane_independent: false,
            passive: false,
        }
    }
}
