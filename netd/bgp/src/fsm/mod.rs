//! The finite state machine of a peer (RFC 4271 section 8).
//!
//! ```text
//!            start              connected            OPEN             KEEPALIVE
//!   Idle ───────────▶ Connect ────────────▶ OpenSent ─────▶ OpenConfirm ─────▶ Established
//!    ▲  ◀── idle hold   │  ▲                   ▲                │                   │
//!    │                  ▼  │ connect retry     │ connected      │                   │
//!    │                 Active ─────────────────┘                │                   │
//!    └────────────────────────── error, NOTIFICATION, stop ◀────┴───────────────────┘
//! ```
//!
//! One machine has the timers of the peer and, while two speakers happen to call each other, two
//! [connections](connection), of which [collision] leaves one. Messages and the time go in;
//! [actions](Action) come out. It knows nothing of routes.
//!
//! Where RFC 4271 lets a failed attempt to connect lead to Idle, this machine goes to Active and
//! tries again when ConnectRetryTimer expires, as other speakers do; Idle, with a wait that
//! doubles, is for peers that were there and misbehaved.

pub mod collision;
mod connection;
mod damping;
mod event;
mod machine;
mod terms;

pub use damping::Damping;
pub use event::{Action, ConnectionId, Down, Event, Pause, State, Why};
pub use machine::Fsm;
pub use terms::{Agreement, Terms};
