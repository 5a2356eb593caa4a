//! An instance: the cluster on this machine that `up` starts, `status` shows and `down` stops.

mod api_flags;
mod daemon;
mod down;
mod handshake;
mod layout;
mod preflight;
mod ready;
mod settings;
mod state;
mod status;
mod unit;
mod up;
mod warnings;

pub use down::{DownArgs, down};
pub use layout::Layout;
pub use state::State;
pub use status::{StatusArgs, status};
pub use up::{UpArgs, up};
