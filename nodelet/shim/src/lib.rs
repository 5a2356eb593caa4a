//! The shim: one process for a node that runs its containers by an OCI runtime (crun, runc ...), and
//! outlives the agent.
//!
//! ```text
//!   agent --socket--> shim --exec--> crun run --detach --> container
//!                      |  ^                                  |  |
//!                      |  +------- reaps: exit code ---------+  |
//!                      +-- pidfd: signals                       +-- stdout, stderr: fifos
//! ```
//!
//! A container is no child of the OCI runtime for long: the runtime ends when it runs, and the shim
//! inherits it (as a subreaper). No byte of its output passes through here: what the container gets as
//! standard output is the fifo itself, open for reading as well, so that it neither ends nor blocks
//! when the shim or the log writer dies. Only terminals are copied.
//!
//! What it knows is on disk ([`files`]), so a shim that was killed is replaced by another that takes
//! the containers over, running: see [`take_over`].
//!
//! | file | owns |
//! | --- | --- |
//! | [`protocol`] | what the agent says to it |
//! | [`client`] | the agent's end |
//! | [`daemon`] | a process behind a socket that whoever first needs it starts |
//! | [`server`] | connections and requests |
//! | [`tasks`] | containers: start, signal, delete |
//! | [`exec`] | commands in containers |
//! | [`runtime`] | command lines of OCI runtimes, and their errors |
//! | [`rootfs`] | the mount of a root file system (pure) |
//! | [`streams`], [`console`] | fifos and terminals |
//! | [`reaper`] | children and their ends |
//! | [`files`], [`take_over`] | what is kept, and taking it up |
//! | [`sys`] | system calls |
//!
//! It knows nothing of pods, images or Kubernetes.

pub mod client;
mod console;
pub mod daemon;
mod exec;
mod files;
pub mod protocol;
mod reaper;
mod rootfs;
mod runtime;
mod server;
mod streams;
mod sys;
mod take_over;
mod tasks;

pub use server::shim_main;
