//! The files of a log, its rotated ones among them: with which to begin, and which comes next.

use std::fs;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::CHUNK;
use crate::logs::file::rotated;

/// A file, and its inode.
pub(super) async fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path).await?;
    let inode = file.metadata().await?.ino();
    Ok((file, inode))
}

/// The file to begin with, and where in it.
pub(super) async fn start(path: &Path, tail: Option<u64>) -> io::Result<(PathBuf, u64)> {
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
pub(super) fn successor(path: &Path, inode: u64) -> io::Result<PathBuf> {
    let mut files = rotated(path)?;
    files.push(path.to_path_buf());
    let is_it = |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.ino() == inode);
    let next = files.iter().position(is_it).map_or(0, |at| at + 1);
    Ok(files
        .into_iter()
        .nth(next)
        .unwrap_or_else(|| path.to_path_buf()))
}
