//! Container logs: written by a process that outlives the agent, read by whoever asks.
//!
//! ```text
//!   container --fifo--> log writer --> pods/.../0.log (CRI format)
//!                                        |  ^
//!                           attached clients  the agent: open, flush, close
//! ```
//!
//! | file | owns |
//! | --- | --- |
//! | [`format`] | the CRI log format: lines from bytes, bytes from lines (pure) |
//! | [`file`] | a log file and its rotation |
//! | [`journal`] | what was taken from a fifo and is not in the log yet |
//! | [`sink`] | a container's log by way of its journal |
//! | [`writer`] | the process: one for a node, fed by fifos |
//! | [`protocol`] | what the agent says to it |
//! | [`client`] | the agent's end: starts it, talks to it, restarts it |
//! | [`reader`] | tail, since, follow, across rotations |
//!
//! The container itself (with containerd: its shim) holds both ends of every fifo, so while the writer is
//! restarted nothing is lost; nor is what a writer had in hand when it was killed.
//! Neither the writer nor its files know about pods.

pub mod client;
pub mod file;
pub mod format;
pub mod journal;
pub mod protocol;
pub mod reader;
pub mod sink;
pub mod writer;

pub use writer::writer_main;
