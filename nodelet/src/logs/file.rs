//! A log file and its rotation by size: `0.log` is the current one, `0.log.20261123-070809` an
//! older one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// How much of a container's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size at which a file is set aside, in bytes.
    pub file_bytes: u64,
    /// Number of files, the current one included; at least 1.
    pub files: usize,
}

impl Default for Limits {
    /// The kubelet's: 10 MiB, 5 files.
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            files: 5,
        }
    }
}

/// A log that is being written.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    limits: Limits,
    file: File,
    size: u64,
}

// === impl LogFile ===

impl LogFile {
    /// Opens the log for appending; makes it and its directory where needed.
    pub fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let (file, size) = append_to(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            limits,
            file,
            size,
        })
    }

    /// Its size, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends whole lines.
    pub fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines);
        self.size = match &written {
            Ok(()) => self.size + lines.len() as u64,
            // A full disk may have taken a part.
            Err(_) => self.file.metadata().map_or(self.size, |meta| meta.len()),
        };
        written
    }

    /// Takes away what stands behind a place.
    pub fn cut(&mut self, size: u64) -> io::Result<()> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    /// Sets a file aside that is full, and begins another; says whether it did.
    pub fn rotate_if_full(&mut self, now: Timestamp) -> io::Result<bool> {
        let full = self.size >= self.limits.file_bytes;
        if full {
            self.rotate(now)?;
        }
        Ok(full)
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        // With nanoseconds: a fast writer fills several files in a second.
        let suffix = now.strftime("%Y%m%d-%H%M%S.%9f").to_string();
        let mut aside = self.path.clone().into_os_string();
        aside.push(".");
        aside.push(suffix);
        fs::rename(&self.path, PathBuf::from(aside))?;
        (self.file, self.size) = append_to(&self.path)?;
        let older = rotated(&self.path)?;
        let surplus = older
            .len()
            .saturating_sub(self.limits.files.saturating_sub(1));
        older[..surplus].iter().try_for_each(fs::remove_file)
    }
}

/// A crash may have cut the last line short: it is ended, so that the next one can be read.
fn append_to(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::FileExt;
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    let mut size = file.metadata()?.len();
    let mut last = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut last, size - 1)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
        size += 1;
    }
    Ok((file, size))
}

/// The older files of a log, the oldest first.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(Vec::new());
    };
    let mut prefix = OsString::from(name);
    prefix.push(".");
    let prefix = prefix.as_encoded_bytes();
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn files_are_rotated_and_the_oldest_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/app/0.log");
        let mut log = LogFile::open(
            &path,
            Limits {
                file_bytes: 8,
                files: 3,
            },
        )
        .unwrap();
        for second in 0..5 {
            for lines in [format!("line {second}\n").as_str(), ".\n"] {
                log.append(lines.as_bytes()).unwrap();
                log.rotate_if_full(at(second)).unwrap();
            }
        }
        let older = rotated(&path).unwrap();
        let text = |path: &PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(
            older.iter().map(text).collect::<Vec<_>>(),
            ["line 3\n.\n", "line 4\n.\n"]
        );
        assert_eq!(text(&path), "");
    }

    #[test]
    fn a_line_cut_short_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "whole\ncut sh").unwrap();
        LogFile::open(&path, Limits::default())
            .unwrap()
            .append(b"next\n")
            .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ncut sh\nnext\n");
    }
}
