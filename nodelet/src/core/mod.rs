//! The life of one pod, as a pure state machine.
//!
//! [`Machine::handle`] takes what happened ([`Event`]) and the time, and answers with what to do
//! ([`Action`]); [`Machine::status`] is what the API is told, and [`Machine::wake_at`] is when to
//! come back if nothing happens before. The machine reads no clock, socket or file: an action is
//! carried out by the worker, and its end comes back as an event.
//!
//! It is level-triggered: every event is followed by one comparison of what should be with what
//! is (`step`), so that a repeated, late or missing event does no harm. After a restart of the
//! agent [`Machine::recover`] builds it again from the API's status and the runtime's containers.
//!
//! ```text
//!            Event                         Action
//!  watch ──► Desired, Gone      ┌───────┐  SyncVolumes, CreateSandbox, EnsureImage
//!  worker ─► ...Ready, ...Failed│Machine│  StartContainer, RunHook, Probe
//!  runtime ► Exited, Reconciled └───────┘  Signal, RemoveContainer, TearDown, Finish, Record
//! ```
//!
//! Phases, reasons, conditions and messages are the kubelet's.

pub mod admit;
mod apply;
mod backoff;
mod container;
mod end;
mod event;
mod machine;
mod probe;
pub mod qos;
mod recover;
mod resize;
mod restart;
mod spec;
mod status;
mod step;
mod stop;

#[cfg(test)]
mod golden;

pub use end::Eviction;
pub use event::{
    Action, Event, Exit, Given, Hook, ImageFault, ImageRef, Kind, Note, Observed, ObservedState,
    Outcome, ProbeKind, Severity, StartFault, StopSignal,
};
pub use machine::Machine;
pub use resize::Judgement;
pub use spec::{View, find, find_container, full_name, of as spec_of, view};
pub use status::{bare_id, is_own_condition};
