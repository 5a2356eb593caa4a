//! Reading a container's log: from a time, from the last lines, up to a size, and on as it is
//! written, across rotations.
//!
//! What to say about a line is decided by [`Formatter`], which knows no files. [`Reader`]
//! brings it the lines; at the end of a log that is followed it sleeps until the kernel reports a
//! change in the log's directory.

use std::fs;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::sync::CancellationToken;

use super::file::rotated;
use super::format::{self, LINE_MAX};
use crate::dir_watch::Watch;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// Longest line of a log file: content, time and tags. A longer one is none of ours, and
/// skipped.
const FILE_LINE_MAX: usize = LINE_MAX + 1024;

/// What to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
    /// Each line preceded by the time it was written.
    pub timestamps: bool,
    /// Go on as the log is written.
    pub follow: bool,
    /// Only this stream.
    pub stream: Option<format::Stream>,
}

/// Turns lines of a log file into what the reader of a log sees.
#[derive(Debug)]
pub struct Formatter {
    since: Option<Timestamp>,
    stream: Option<format::Stream>,
    timestamps: bool,
    left: u64,
    at_line_start: bool,
}

// === impl Formatter ===

impl Formatter {
    /// Nothing has been said yet.
    pub fn new(options: &Options) -> Self {
        Self {
            since: options.since,
            stream: options.stream,
            timestamps: options.timestamps,
            left: options.limit_bytes.unwrap_or(u64::MAX),
            at_line_start: true,
        }
    }

    /// Appends what a line of the file says. Gives `false` when the limit is reached.
    pub fn push(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = format::parse(line) else {
            return true;
        };
        let too_old = self.since.is_some_and(|since| line.time < since);
        if too_old || self.stream.is_some_and(|stream| stream != line.stream) {
            return true;
        }
        let before = out.len();
        if self.timestamps && self.at_line_start {
            out.extend_from_slice(format!("{:.9} ", line.time).as_bytes());
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.at_line_start = !line.partial;
        let said = (out.len() - before) as u64;
        let kept = said.min(self.left);
        out.truncate(before + kept as usize);
        self.left -= kept;
        self.left > 0
    }
}

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
        let (first, offset) = start(path, options.tail).await?;
        let (mut file, inode) = open(&first).await?;
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
        let next = successor(&self.path, self.inode)?;
        (self.file, self.inode) = open(&next).await?;
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

async fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path).await?;
    let inode = file.metadata().await?.ino();
    Ok((file, inode))
}

/// The file to begin with, and where in it.
async fn start(path: &Path, tail: Option<u64>) -> io::Result<(PathBuf, u64)> {
    let mut files = rotated(path)?;
    files.push(path.to_path_buf());
    let oldest = files[0].clone();
    let Some(mut wanted) = tail else {
        return Ok((oldest, 0));
    };
    for file in files.into_iter().rev() {
        match tail_offset(&file, wanted).await? {
            Ok(offset) => return Ok((file, offset)),
            Err(lines) => wanted -= lines,
        }
    }
    Ok((oldest, 0))
}

/// Where the last `wanted` lines of a file begin, or how many lines it has if it has fewer.
async fn tail_offset(path: &Path, wanted: u64) -> io::Result<Result<u64, u64>> {
    let mut file = File::open(path).await?;
    let mut end = file.metadata().await?.len();
    if wanted == 0 {
        return Ok(Ok(end));
    }
    let mut chunk = vec![0; CHUNK];
    let mut lines = 0;
    while end > 0 {
        let length = end.min(CHUNK as u64) as usize;
        let begin = end - length as u64;
        file.seek(SeekFrom::Start(begin)).await?;
        file.read_exact(&mut chunk[..length]).await?;
        for (at, byte) in chunk[..length].iter().enumerate().rev() {
            if *byte != b'\n' {
                continue;
            }
            // The end of the line before the first wanted one.
            if lines == wanted {
                return Ok(Ok(begin + at as u64 + 1));
            }
            lines += 1;
        }
        end = begin;
    }
    if lines == wanted {
        Ok(Ok(0))
    } else {
        Ok(Err(lines))
    }
}

/// The file after the one with this inode: the next younger one. If that one was removed, the
/// oldest.
fn successor(path: &Path, inode: u64) -> io::Result<PathBuf> {
    let mut files = rotated(path)?;
    files.push(path.to_path_buf());
    let is_it = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.ino() == inode);
    let next = files.iter().position(is_it).map_or(0, |at| at + 1);
    Ok(files
        .into_iter()
        .nth(next)
        .unwrap_or_else(|| path.to_path_buf()))
}

#[cfg(test)]
mod tests {
    use super::super::file::{Limits, LogFile};
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    fn line(second: i64, stream: &str, tag: char, content: &str) -> String {
        format!("{:.9} {stream} {tag} {content}\n", at(second))
    }

    /// Appends "line N".
    fn add(log: &mut LogFile, n: i64) {
        let text = line(n, "stdout", 'F', &format!("line {n}"));
        log.append(text.as_bytes()).unwrap();
        log.rotate_if_full(at(n)).unwrap();
    }

    /// A log of lines "line 0" to "line 9", a second apart, in files of about three lines.
    fn ten_lines(path: &Path) -> LogFile {
        let one = line(0, "stdout", 'F', "line 0").len() as u64;
        let mut log = LogFile::open(
            path,
            Limits {
                file_bytes: 3 * one,
                files: 10,
            },
        )
        .unwrap();
        for n in 0..10 {
            add(&mut log, n);
        }
        log
    }

    async fn read(path: &Path, options: Options) -> String {
        let mut reader = Reader::open(path, &options, CancellationToken::new())
            .await
            .unwrap();
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).unwrap()
    }

    fn lines(range: std::ops::Range<u32>) -> String {
        range.map(|n| format!("line {n}\n")).collect()
    }

    #[tokio::test]
    async fn what_is_asked_for_is_read_across_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        ten_lines(&path);
        let all = Options::default();
        assert_eq!(read(&path, all.clone()).await, lines(0..10));
        for tail in 0..12 {
            let first = 10_u32.saturating_sub(tail);
            let options = Options {
                tail: Some(tail.into()),
                ..all.clone()
            };
            assert_eq!(read(&path, options).await, lines(first..10), "tail {tail}");
        }
        let options = Options {
            since: Some(at(7)),
            ..all.clone()
        };
        assert_eq!(read(&path, options).await, lines(7..10));
        let options = Options {
            limit_bytes: Some(9),
            ..all.clone()
        };
        assert_eq!(read(&path, options).await, "line 0\nli");
        let options = Options {
            limit_bytes: Some(0),
            ..all.clone()
        };
        assert_eq!(read(&path, options).await, "");
        let options = Options {
            timestamps: true,
            tail: Some(1),
            ..all
        };
        assert_eq!(read(&path, options).await, format!("{:.9} line 9\n", at(9)));
    }

    #[tokio::test]
    async fn partial_lines_are_joined_and_garbage_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let text = [
            line(0, "stdout", 'P', "one "),
            line(0, "stdout", 'F', "line"),
            "garbage\n".to_owned(),
            format!("{}\n", "x".repeat(FILE_LINE_MAX + 1)),
            line(1, "stderr", 'F', "error"),
            line(2, "stdout", 'P', "no end"),
        ];
        fs::write(&path, text.concat()).unwrap();
        let all = Options {
            timestamps: true,
            ..Options::default()
        };
        let expected = format!(
            "{:.9} one line\n{:.9} error\n{:.9} no end",
            at(0),
            at(1),
            at(2)
        );
        assert_eq!(read(&path, all).await, expected);
        let stderr = Some(format::Stream::Stderr);
        let options = Options {
            stream: stderr,
            ..Options::default()
        };
        assert_eq!(read(&path, options).await, "error\n");
    }

    #[tokio::test]
    async fn a_followed_log_goes_on_across_rotations_until_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = ten_lines(&path);
        let complete = CancellationToken::new();
        let options = Options {
            follow: true,
            tail: Some(2),
            ..Options::default()
        };
        let mut reader = Reader::open(&path, &options, complete.clone())
            .await
            .unwrap();
        let mut said = String::new();
        let mut next = 10;
        while said != lines(8..30) {
            // Each piece is written only after the one before was read.
            let piece = reader.next().await.unwrap().unwrap();
            said.push_str(std::str::from_utf8(&piece).unwrap());
            if said == lines(8..next) && next < 30 {
                for n in next..next + 4 {
                    add(&mut log, n.into());
                }
                next += 4;
            }
        }
        complete.cancel();
        assert_eq!(reader.next().await.unwrap(), None);
    }
}
