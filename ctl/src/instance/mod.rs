//! An instance: the cluster on this machine that `up` starts, `status` shows and `down` stops.

pub mod api_flags;
pub mod cni_flags;
mod daemon;
mod down;
pub mod handshake;
pub mod layout;
pub mod preflight;
mod rack;
pub mod ready;
pub mod runtime_flags;
pub mod settings;
pub mod state;
mod status;
pub mod store_flags;
mod unit;
mod up;
mod warnings;

pub use down::{DownArgs, down};
pub use layout::Layout;
pub use state::State;
pub use status::{StatusArgs, status};
pub use up::{UpArgs, start_node, up};
