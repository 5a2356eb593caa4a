//! Backups: everything in the store at one revision, streamed as an [export](peapod_store::export) to
//! whoever may read everything; and a store made of such a file again.
//!
//! What is sent is an image that stays as it is while the store goes on, so that a backup is
//! consistent and holds nobody up.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use peapod_store::export::{self, ExportError, Head};
use peapod_store::{EtcdEngine, RestoreError as SledRestoreError, RestoreEtcdError};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::Api;
use crate::body::Body;
use crate::config::{Config, Engine};
use crate::rest::call::Reply;
use crate::status::{Result, Status};

/// Where a backup is had.
pub const PATH: &str = "/snapshot";
/// How many backups are sent at once; further ones get 429.
const AT_ONCE: usize = 2;
/// How much is sent at once, in bytes, and how many such pieces may wait.
const PIECE_BYTES: usize = 256 << 10;
const PIECES: usize = 4;
/// How long a receiver may not read before its backup ends.
const STALLED: Duration = Duration::from_secs(60);

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Why a backup cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Into the data directory.
    #[error(transparent)]
    Sled(#[from] SledRestoreError),
    /// Into etcd.
    #[error(transparent)]
    Etcd(#[from] RestoreEtcdError),
    /// The objects of that engine end with its process.
    #[error("a store in memory cannot be restored")]
    Memory,
}

/// Streams a backup of now.
pub async fn serve(api: &Api) -> Result<Reply> {
    let Ok(turn) = TURNS.try_acquire() else {
        let message = format!("{AT_ONCE} backups are being taken already; try again later");
        return Err(Status::too_many_requests(message, 10));
    };
    // Whatever was acknowledged before, to whichever server, is in it.
    let fence = api.store.fence().await;
    fence.map_err(|fault| Status::unavailable(fault.to_string()))?;
    let image = api.store.image();
    let (sender, pieces) = mpsc::channel(PIECES);
    let mut out = Pieces {
        filling: Vec::with_capacity(PIECE_BYTES),
        sender,
        runtime: Handle::current(),
    };
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        // A file that breaks off is seen by its reader: it does not verify.
        if let Err(error) = image.write_to(&mut out).and_then(|()| out.flush()) {
            tracing::warn!(%error, "a backup was not sent whole");
        }
    });
    let body = Body::stream(ReceiverStream::new(pieces).map(Bytes::from));
    Ok(Reply::of(StatusCode::OK, "application/octet-stream", body))
}

/// Verifies a backup, and says what it is.
///
/// # Errors
/// It cannot be read, or anything in it does not check.
pub fn verify(file: &Path) -> std::result::Result<Head, ExportError> {
    export::verify(file)
}

/// Makes the store of a configuration of a backup, and returns the revision that it goes on from:
/// `bump` above the backup's, for what was written after it and is lost.
///
/// # Errors
/// [`RestoreError`]: there is a store already, the backup is damaged, or the place cannot be written to.
pub async fn restore(
    config: &Config,
    file: &Path,
    bump: u64,
) -> std::result::Result<u64, RestoreError> {
    let revision = match &config.engine {
        Engine::Memory => return Err(RestoreError::Memory),
        Engine::Etcd(etcd) => EtcdEngine::restore(etcd.clone(), file, bump).await?,
        Engine::Sled => {
            let (dir, file) = (config.data_dir.join("store"), file.to_owned());
            let work =
                tokio::task::spawn_blocking(move || peapod_store::restore(&dir, &file, bump));
            let done = work.await;
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?
        }
    };
    Ok(revision.0)
}

/// Bytes in pieces of a size that is worth a message, from a thread that may block.
struct Pieces {
    filling: Vec<u8>,
    sender: mpsc::Sender<Vec<u8>>,
    runtime: Handle,
}

// === impl Pieces ===

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.filling, Vec::with_capacity(PIECE_BYTES));
        let sending = tokio::time::timeout(STALLED, self.sender.send(piece));
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("the receiver went away")),
            Err(_) => Err(io::Error::other("the receiver does not read")),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.filling.extend_from_slice(bytes);
        if self.filling.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.filling.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}
