//! Reading a container's log: from a time, from the last lines, up to a size, and on as it is
//! written, across rotations.
//!
//! What to say about a line is decided by [`Formatter`], which knows no files. [`Reader`]
//! brings it the lines; at the end of a log that is followed it sleeps until the kernel reports a
//! change in the log's directory.

mod files;
mod formatter;

use std::fs;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::sync::CancellationToken;

pub use self::formatter::{Formatter, Options};

use super::format::LINE_MAX;
use crate::dir_watch::Watch;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Longest line of a log file: content, time and tags. A longer one is none of ours, and
/// skipped.
const FILE_LINE_MAX: usize = LINE_MAX + 1024;

/// Reads one log.
pub struct Reader {
    path: PathBuf,
    file: File,
    inode: u64,
    /// What was read of a line whose end is not there yet.
    pending: Vec<u8>,
    /// Within a line that is longer than any of ours.
    skipping: bool,
    /// The file was found to have been renamed.
    set_aside: bool,
    /// Unless the log is followed: the file that was current at first, and how much of it there
    /// was. A busy writer does not keep us for ever.
    end: Option<(u64, u64)>,
    formatter: Formatter,
    watch: Option<Watch>,
    /// The log is complete: what is there is read to its end, and no more is waited for.
    complete: CancellationToken,
    done: bool,
}

// === impl Reader ===

impl Reader {
    /// Opens the log at `path`. With `follow`, reading ends after `complete` was cancelled: cancel it
    /// when the container has ended and its log is complete.
    pub async fn open(
        path: &Path,
        options: &Options,
        complete: CancellationToken,
    ) -> io::Result<Self> {
        // Before the first read: no change is missed.
        let watch = match (options.follow, path.parent()) {
            (true, Some(dir)) => Some(Watch::new(dir)?),
            _ => None,
        };
        let end = fs::metadata(path).map(|metadata| (metadata.ino(), metadata.len()));
        let mut end = Some(end?);
        let (first, offset) = files::start(path, options.tail).await?;
        let (mut file, inode) = files::open(&first).await?;
        file.seek(SeekFrom::Start(offset)).await?;
        if let Some((_, length)) = end.as_mut().filter(|(last, _)| *last == inode) {
            *length = length.saturating_sub(offset);
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            inode,
            pending: Vec::new(),
            skipping: false,
            set_aside: false,
            end: if options.follow { None } else { end },
            formatter: Formatter::new(options),
            watch,
            complete,
            done: options.limit_bytes == Some(0),
        })
    }

    /// What comes next, in pieces; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut chunk = vec![0; CHUNK];
        while !self.done {
            let length = self.file.read(&mut chunk).await?;
            let length = self.within_end(length);
            if length > 0 {
                let out = self.accept(&chunk[..length]);
                if !out.is_empty() {
                    return Ok(Some(out.into()));
                }
            } else if !self.next_file().await? {
                self.wait().await?;
            }
        }
        Ok(None)
    }

    /// As a stream of pieces.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures::stream::try_unfold(self, |mut reader| async move {
            Ok(reader.next().await?.map(|piece| (piece, reader)))
        })
    }

    /// How much of what was read counts.
    fn within_end(&mut self, length: usize) -> usize {
        match &mut self.end {
            Some((last, left)) if *last == self.inode => {
                let counted = (length as u64).min(*left);
                *left -= counted;
                counted as usize
            }
            _ => length,
        }
    }

    fn accept(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = match part.split_last() {
                Some((b'\n', line)) => (line, true),
                _ => (part, false),
            };
            if self.pending.len() + part.len() > FILE_LINE_MAX {
                self.skipping = true;
                self.pending.clear();
            }
            if !self.skipping {
                self.pending.extend_from_slice(part);
            }
            if ended && !self.skipping && !self.formatter.push(&self.pending, &mut out) {
                self.done = true;
                return out;
            }
            if ended {
                self.pending.clear();
                self.skipping = false;
            }
        }
        out
    }

    /// At the end of a file: goes on with the one that took its place, if it was set aside. Gives
    /// whether there is something to read.
    async fn next_file(&mut self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.ino() == self.inode => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if !self.set_aside {
            // Something may have been written between the last read and the renaming.
            self.set_aside = true;
            return Ok(true);
        }
        self.set_aside = false;
        self.pending.clear();
        let next = files::successor(&self.path, self.inode)?;
        (self.file, self.inode) = files::open(&next).await?;
        Ok(true)
    }

    async fn wait(&mut self) -> io::Result<()> {
        let Some(watch) = &mut self.watch else {
            self.done = true;
            return Ok(());
        };
        if self.complete.is_cancelled() {
            self.done = true;
            return Ok(());
        }
        tokio::select! {
            changed = watch.changed() => changed,
            () = self.complete.cancelled() => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
