//! Which of several processes leads: leader election by a Lease, as client-go's `leaderelection`
//! does it, so that either side may be the other's candidate.
//!
//! This crate owns the turns; it must not know what a leader does in its own. [`candidate`]
//! decides, and reads no clock: what a look at the Lease says, and until when a leader may lead. [`lead`] asks
//! the API and runs the work.
//!
//! Why two never lead at once: a leader ends its work when `renew_deadline` has passed since it
//! *sent* the last renewal that was acknowledged, and has until `lease` for ending it; others count `lease` from when
//! they *saw* that renewal, which is later. Each measures by its own clock how long it waits, so that
//! clocks need not agree on the time, only on how fast it passes.

pub mod candidate;
mod lead;

pub use candidate::Election;
pub use lead::lead;
