//! What the agent says to the log writer: one JSON document per line over a socket; after
//! `Attach`, frames of output come back.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::format::Stream;

/// Longest request or reply, in bytes.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Longest frame of output, in bytes.
pub const FRAME_MAX: usize = 64 * 1024;

/// Name of a container's file in its directory that says where its output goes; a restarted writer
/// finds its work by it.
pub const LOG_RECORD: &str = "log.json";

/// Where a container's output goes. Its directory has the fifos `stdout` and, without a
/// terminal, `stderr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The container.
    pub id: String,
    /// The container's directory.
    pub dir: PathBuf,
    /// The log file; without one, output is read and dropped.
    pub path: Option<PathBuf>,
    /// With a terminal there is no separate standard error.
    pub tty: bool,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Take care of this container's output. Repeating is harmless.
    Open(LogSpec),
    /// Answer when everything written until now is in the file.
    Flush(String),
    /// As `Flush`, then let go of the container; its output is complete.
    Close(String),
    /// Send a copy of the container's output from now on, as frames.
    Attach(String),
    /// Answer never; the end of the connection tells that the writer is gone.
    Watch,
    /// End.
    Shutdown,
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// Done.
    Done,
    /// Not done, and why.
    Failed(String),
}

/// Writes a frame of output: stream, length, bytes.
pub async fn write_frame(
    out: &mut (impl AsyncWrite + Unpin),
    stream: Stream,
    bytes: &[u8],
) -> io::Result<()> {
    for part in bytes.chunks(FRAME_MAX) {
        let mut head = [0; 5];
        head[0] = u8::from(stream == Stream::Stderr);
        head[1..].copy_from_slice(&(part.len() as u32).to_be_bytes());
        out.write_all(&head).await?;
        out.write_all(part).await?;
    }
    Ok(())
}

/// Reads a frame; `None` at the end of the stream.
pub async fn read_frame(
    input: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<(Stream, Vec<u8>)>> {
    let mut head = [0; 5];
    match input.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME_MAX {
        return Err(io::Error::other(format!(
            "a frame of {length} bytes from the log writer"
        )));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).await?;
    let stream = if head[0] == 0 {
        Stream::Stdout
    } else {
        Stream::Stderr
    };
    Ok(Some((stream, bytes)))
}
