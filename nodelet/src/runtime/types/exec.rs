//! Commands in containers, and their streams.

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// How much of a command's output [`crate::runtime::Runtime::exec_sync`] keeps, per stream, in bytes.
pub const EXEC_OUTPUT_MAX: usize = 16 * 1024;

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments; the program is looked up in the container's `PATH`.
    pub command: Vec<String>,
    /// With a terminal (then there is no separate stderr).
    pub tty: bool,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The caller's ends of a process's streams.
#[derive(Default)]
pub struct Streams {
    /// Bytes for the process; its end closes the process's standard input.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes standard output.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Takes standard error; unused with a terminal.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Sizes of the terminal, as they change.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// What a command printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Exit code.
    pub code: i32,
    /// Standard output, capped.
    pub stdout: Vec<u8>,
    /// Standard error, capped.
    pub stderr: Vec<u8>,
}
