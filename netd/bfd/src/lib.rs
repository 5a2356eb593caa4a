//! BFD (RFC 5880) over one hop (RFC 5881), asynchronous mode, without IO: whether a neighbour's
//! forwarding is alive, known within milliseconds.
//!
//! The crate owns the [`Packet`] and the [`Session`]: packets, the time and random numbers go in;
//! packets to send, the next deadline and changes of state come out. There is no authentication,
//! no echo function, and demand mode only as far as a neighbour may ask for it.
//!
//! It must not know sockets, clocks, or what its answer is used for. Whoever owns the sockets
//! gives each session a discriminator of its own, finds the session of a received packet by
//! [`Packet::your_discriminator`] (by the neighbour's address while that is zero), and keeps to
//! [`CONTROL_PORT`], [`SOURCE_PORTS`] and [`TTL`].
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//! use peapod_bfd::{Config, Session, State};
//!
//! let mut session = Session::new(Config::new(NonZeroU32::MIN));
//! let now = Duration::ZERO; // since whatever moment, as long as it is always the same
//! assert_eq!(session.deadline(), Some(now));
//! let outcome = session.tick(now, 0);
//! assert_eq!(outcome.send.map(|packet| packet.state), Some(State::Down));
//! ```

mod config;
mod packet;
mod session;
mod state;
mod timing;

pub use config::Config;
pub use packet::{DecodeError, Packet};
pub use session::{Discard, Outcome, Received, Session, StateChange};
pub use state::{Diagnostic, State};

use std::ops::RangeInclusive;

/// UDP port that control packets are sent to (RFC 5881 §4).
pub const CONTROL_PORT: u16 = 3784;
/// UDP ports that they are sent from: one per session, kept as long as that lives.
pub const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;
/// TTL or hop limit that they are sent with, and must arrive with (RFC 5881 §5, RFC 5082).
pub const TTL: u8 = 255;
