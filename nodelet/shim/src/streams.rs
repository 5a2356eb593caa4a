//! What processes get as standard input and output: the agent's fifos.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys;

/// The streams of a process without a terminal.
pub struct Streams {
    stdin: Stdio,
    stdout: File,
    stderr: File,
    hold: Option<OwnedFd>,
}

// === impl Streams ===

impl Streams {
    /// A container's: each opened for reading as well. So the container itself keeps them open: neither
    /// does a write fail, nor is anything lost, when nobody else is there for a while.
    pub fn of_container(dir: &Path, stdin: bool, uid: u32) -> io::Result<Self> {
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(dir.join(name))
        };
        Self::new(dir, stdin, uid, open("stdout")?, open("stderr")?)
    }

    /// A command's: who asked for it reads, and learns its end from the end of the streams.
    pub fn of_command(dir: &Path, stdin: bool, uid: u32) -> io::Result<Self> {
        Self::new(
            dir,
            stdin,
            uid,
            open_writer(&dir.join("stdout"))?,
            open_writer(&dir.join("stderr"))?,
        )
    }

    fn new(dir: &Path, stdin: bool, uid: u32, stdout: File, stderr: File) -> io::Result<Self> {
        let (stdin, hold) = match stdin {
            false => (sys::nowhere(), None),
            true => {
                let (file, hold) = input(&dir.join("stdin"))?;
                own(&file, uid)?;
                (Stdio::from(file), Some(hold))
            }
        };
        own(&stdout, uid)?;
        own(&stderr, uid)?;
        Ok(Self {
            stdin,
            stdout,
            stderr,
            hold,
        })
    }

    /// Gives them to a program. What comes back keeps its standard input from ending.
    pub fn give(self, command: &mut Command) -> Option<OwnedFd> {
        command
            .stdin(self.stdin)
            .stdout(self.stdout)
            .stderr(self.stderr);
        self.hold
    }
}

/// The end of a fifo to read from, and one that keeps it from ending while writers come and go.
fn input(path: &Path) -> io::Result<(File, OwnedFd)> {
    let hold = OpenOptions::new().read(true).write(true).open(path)?;
    Ok((File::open(path)?, hold.into()))
}

/// Fails when nobody reads.
fn open_writer(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::O_WRONLY))?;
    Ok(file)
}

/// A process that is not root must be able to open `/dev/stdout`.
fn own(file: &File, uid: u32) -> io::Result<()> {
    match uid {
        0 => Ok(()),
        _ => fchown(file, Some(uid), None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_containers_output_waits_for_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["stdin", "stdout", "stderr"] {
            nix::unistd::mkfifo(&dir.path().join(name), Mode::S_IRWXU).unwrap();
        }
        let mut streams = Streams::of_container(dir.path(), true, 0).unwrap();
        streams.stdout.write_all(b"early").unwrap();
        let mut reader = File::open(dir.path().join("stdout")).unwrap();
        let mut text = [0; 5];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"early");
        // What the container holds open itself would count as a reader.
        drop(streams);
        let error = Streams::of_command(dir.path(), false, 0).err();
        assert!(
            error.is_some(),
            "nobody reads the standard error of a command"
        );
    }
}
