//! What the agent says to the shim: one JSON document per line over a socket, one request per
//! connection.
//!
//! Fields may be added, with defaults: an agent speaks to a shim of an older version for as long as that
//! one's containers run.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest request or reply, in bytes; a list has a short line per container.
pub const MESSAGE_MAX: usize = 8 << 20;

/// What to run. The directory holds `config.json` (the OCI specification, whose root is
/// [`crate::client::Shim::rootfs`]) and the fifos `stdin`, `stdout` and `stderr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// OCI runtime, by name or path.
    pub runtime: String,
    /// The root file system's mount.
    pub rootfs: Vec<Mount>,
    /// It has a terminal.
    pub tty: bool,
    /// It has standard input.
    pub stdin: bool,
    /// User that owns its streams.
    pub uid: u32,
    /// Its processes do not end with the first: it has no PID namespace of its own.
    pub shares_pids: bool,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub kind: String,
    /// Source.
    pub source: String,
    /// Options.
    pub options: Vec<String>,
}

/// A command to run in a container. The directory holds `process.json` and the fifos `stdin`,
/// `stdout` and `stderr`, the last two with a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container.
    pub id: String,
    /// The command's directory.
    pub dir: PathBuf,
    /// It has a terminal.
    pub tty: bool,
    /// It has standard input.
    pub stdin: bool,
    /// User that owns its streams.
    pub uid: u32,
}

/// A container as the shim sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The container.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 and the signal's number for one that was killed; `None` when nobody saw it.
    pub code: Option<i32>,
    /// When.
    pub at: Timestamp,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Who is there?
    Hello,
    /// Run a container, unless it runs or has run: [`Reply::Task`].
    Start(TaskSpec),
    /// Look at a container: [`Reply::Task`].
    Get(String),
    /// Look at all: [`Reply::Tasks`].
    List,
    /// Signal the first process, or all.
    Signal {
        /// The container.
        id: String,
        /// Number of the signal.
        signal: i32,
        /// Every process of the container.
        all: bool,
    },
    /// Answer when it has ended: [`Reply::Task`].
    Wait(String),
    /// Change its limits to those in this file.
    Update {
        /// The container.
        id: String,
        /// A `LinuxResources` document.
        file: PathBuf,
    },
    /// Change the size of its terminal.
    Resize {
        /// The container.
        id: String,
        /// The size.
        size: Size,
    },
    /// No more comes from standard input.
    CloseStdin(String),
    /// Forget a container that has ended.
    Delete(String),
    /// Run a command: [`Reply::Started`], and when it has ended [`Reply::Exited`]. In between the
    /// client may send [`ExecInput`], each answered by [`Reply::Done`]. The command is killed when the connection ends.
    Exec(ExecSpec),
    /// Tell every end, first of all those that were not deleted: [`Reply::Ended`].
    Events,
    /// End; containers run on.
    Shutdown,
}

/// What a client may say while its command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecInput {
    /// Change the size of the terminal.
    Resize(Size),
    /// No more comes from standard input.
    CloseStdin,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Hello`].
    Hello {
        /// Version of the program.
        version: String,
        /// Its process.
        pid: u32,
        /// How many containers it has.
        tasks: usize,
    },
    /// A container.
    Task(Task),
    /// Containers.
    Tasks(Vec<Task>),
    /// A command runs.
    Started,
    /// A command ended with this exit code.
    Exited(i32),
    /// A container ended.
    Ended(String),
    /// There is no such container.
    NotFound,
    /// Not done, and why.
    Failed(String),
}
