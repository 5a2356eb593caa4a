//! What runs containers' processes: [`ByShim`], Peapod's own, or [`ByContainerd`], containerd's
//! tasks with its runc shim. Which of them a container has is written in its record.
//!
//! [`ByShim`]: super::by_shim::ByShim
//! [`ByContainerd`]: super::by_containerd::ByContainerd

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::Shared;
use super::state::{Record, State};
use crate::runtime::{ContainerId, Resources, Result, TerminalSize};

/// A container's processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// The container.
    pub id: String,
    /// The first process.
    pub pid: u32,
    /// Where it stands.
    pub state: TaskState,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// Not started.
    Created,
    /// It runs.
    Running,
    /// It is there; its shim has not said in time what it does.
    Unknown,
    /// It has ended.
    Stopped {
        /// Exit code; 128 and the signal's number for one that was killed; `None` when nobody saw it.
        code: Option<i32>,
        /// When; `None` when it is not told.
        at: Option<Timestamp>,
    },
}

// === impl Task ===

impl Task {
    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, TaskState::Stopped { .. })
    }
}

/// A command in a container.
#[derive(Clone, Debug)]
pub(super) struct ExecRequest {
    /// Its name; others have others.
    pub exec_id: String,
    /// Directory with its fifos.
    pub dir: PathBuf,
    /// What to run.
    pub process: oci_spec::runtime::Process,
    /// It has a terminal.
    pub tty: bool,
    /// It has standard input.
    pub stdin: bool,
    /// The user of the host that it runs as.
    pub owner: u32,
}

/// A command that runs. Dropping it ends the command and what is kept of it.
#[async_trait]
pub(super) trait Running: Send + Sync {
    /// Waits for its end.
    async fn wait(&self) -> Result<i32>;
    /// No more comes from standard input.
    async fn close_stdin(&self);
    /// Changes the size of its terminal.
    async fn resize(&self, size: TerminalSize);
}

/// What runs containers' processes.
#[async_trait]
pub(super) trait Tasks: Send + Sync {
    /// Remembers what to run, before anything runs.
    async fn prepare(&self, id: &ContainerId, made: &Made<'_>) -> Result<()>;
    /// Starts a container, or finds it started. Gives a time just before the process began.
    async fn start(&self, id: &ContainerId, state: &State, record: &Record) -> Result<Timestamp>;
    /// A container's task, if it has one.
    async fn find(&self, id: &ContainerId) -> Result<Option<Task>>;
    /// All tasks.
    async fn list(&self) -> Result<Vec<Task>>;
    /// Signals the first process, or with `SIGKILL` all. That it has ended is no error.
    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()>;
    /// Waits for its end; returns at once when there is no task.
    async fn wait(&self, id: &ContainerId) -> Result<()>;
    /// Changes the limits of a running container.
    async fn update(&self, id: &ContainerId, state: &State, resources: &Resources) -> Result<()>;
    /// Forgets how it ended, and removes what is left of it.
    async fn delete(&self, id: &ContainerId) -> Result<()>;
    /// No more comes from standard input.
    async fn close_stdin(&self, id: &ContainerId);
    /// Changes the size of its terminal.
    async fn resize(&self, id: &ContainerId, size: TerminalSize);
    /// Runs a command.
    async fn exec(
        &self,
        shared: &Arc<Shared>,
        id: &ContainerId,
        request: ExecRequest,
    ) -> Result<Box<dyn Running>>;
}

/// What a new container is made of.
pub(super) struct Made<'a> {
    /// Its directory.
    pub state: &'a State,
    /// What does not change of it.
    pub record: &'a Record,
    /// The specification.
    pub oci: oci_spec::runtime::Spec,
    /// The OCI runtime.
    pub oci_runtime: &'a str,
    /// The image's ID.
    pub image_id: &'a str,
}
