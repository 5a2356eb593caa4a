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
//! | [`writer`] | the process: one for a node, fed by fifos |
//! | [`protocol`] | what the agent says to it |
//! | [`client`] | the agent's end: starts it, talks to it, restarts it |
//! | [`reader`] | tail, since, follow, across rotations |
//!
//! The container itself (with containerd: its shim) holds both ends of every fifo, so while the writer is
//! restarted nothing is lost.
//! Neither the writer nor its files know about pods.

pub mod client;
pub mod file;
pub mod format;
pub mod protocol;
pub mod reader;
pub mod writer;

pub use writer::writer_main;
