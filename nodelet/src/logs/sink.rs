//! Where the output of one container goes: its log, by way of a [`Journal`].

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use jiff::Timestamp;

use super::file::{Limits, LogFile};
use super::format::{Splitter, Stream};
use super::journal::Journal;

/// Both streams.
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// A log, and what was taken for it.
#[derive(Debug)]
pub struct Sink {
    log: LogFile,
    journal: Option<Journal>,
}

// === impl Sink ===

impl Sink {
    /// Opens the log of the container whose directory is `dir`, and completes it by what a writer before has left.
    /// The splitters go on with the lines that were begun: of standard output and of standard error.
    pub fn open(path: &Path, dir: &Path, limits: Limits) -> io::Result<(Self, [Splitter; 2])> {
        let log = LogFile::open(path, limits)?;
        let journal = Journal::open(dir, log.size());
        let mut sink = Self { log, journal: None };
        let mut splitters = STREAMS.map(Splitter::new);
        let completed = journal.and_then(|journal| {
            sink.journal = Some(journal);
            sink.complete(&mut splitters)
        });
        // The container can do without.
        if let Err(error) = completed {
            let log = path.display();
            eprintln!("{log}: lines are lost when this process is killed: {error}");
            (sink.journal, splitters) = (None, STREAMS.map(Splitter::new));
        }
        Ok((sink, splitters))
    }

    /// Takes what is in a fifo, as much as the buffer holds; it must be written before more is taken.
    pub fn take(
        &mut self,
        stream: Stream,
        fifo: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        match &mut self.journal {
            Some(journal) => journal.take(stream, fifo, buffer),
            None => Ok(nix::unistd::read(fifo, buffer)?),
        }
    }

    /// Writes the lines that a splitter has made of what was taken. On an error they are lost.
    pub fn write(&mut self, splitter: &Splitter, lines: &[u8], now: Timestamp) -> io::Result<()> {
        let written = match lines.is_empty() {
            true => Ok(()),
            false => self.log.append(lines),
        };
        let noted = match &mut self.journal {
            Some(journal) => journal.commit([splitter], self.log.size()),
            None => Ok(()),
        };
        written.and(noted)?;
        self.rotate(now)
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        match (self.log.rotate_if_full(now)?, &mut self.journal) {
            (true, Some(journal)) => journal.rotated(),
            _ => Ok(()),
        }
    }

    /// Brings the log to what has been taken. Only one stream can have lines that are not in it: they are
    /// written before more is taken.
    fn complete(&mut self, splitters: &mut [Splitter; 2]) -> io::Result<()> {
        let Some(journal) = &mut self.journal else {
            return Ok(());
        };
        let now = Timestamp::now();
        let mut lines = Vec::new();
        for splitter in splitters.iter_mut() {
            splitter.push(&journal.left(splitter.stream())?, now, &mut lines);
        }
        let (before, found) = (journal.log_size(), self.log.size());
        let whole = found == before + lines.len() as u64;
        // A log that is shorter than it was has been set aside, or emptied by somebody.
        if !lines.is_empty() && !whole {
            if found > before {
                self.log.cut(before)?;
            }
            self.log.append(&lines)?;
        }
        journal.commit(splitters.iter(), self.log.size())?;
        self.rotate(now)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::path::PathBuf;

    use super::super::file::rotated;
    use super::super::format::{LINE_MAX, parse};
    use super::super::writer::open_fifo;
    use super::*;

    /// Where a writer is killed.
    #[derive(Clone, Copy, Debug)]
    enum Killed {
        Never,
        BeforeAppend,
        InTheMiddle,
        BeforeMark,
        AfterMark,
    }

    const KILLS: [Killed; 5] = [
        Killed::Never,
        Killed::BeforeAppend,
        Killed::InTheMiddle,
        Killed::BeforeMark,
        Killed::AfterMark,
    ];

    /// A container's directory with fifos, its log, and the writer of the moment.
    struct World {
        dir: tempfile::TempDir,
        limits: Limits,
        fifos: [File; 2],
        writer: (Sink, [Splitter; 2]),
        buffer: Vec<u8>,
    }

    impl World {
        fn new(file_bytes: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let limits = Limits {
                file_bytes,
                files: 1000,
            };
            let fifos = STREAMS.map(|stream| {
                let path = dir.path().join(stream.name());
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
                open_fifo(&path).unwrap()
            });
            let writer = Sink::open(&dir.path().join("0.log"), dir.path(), limits).unwrap();
            Self {
                dir,
                limits,
                fifos,
                writer,
                buffer: vec![0; 32 * 1024],
            }
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("0.log")
        }

        /// Moves what one fifo has, and is killed on the way; another writer comes. False if there was nothing.
        fn step(&mut self, stream: usize, killed: Killed) -> bool {
            let (sink, splitters) = &mut self.writer;
            let fifo = self.fifos[stream].as_fd();
            let Ok(count) = sink.take(STREAMS[stream], fifo, &mut self.buffer) else {
                return false;
            };
            let now = Timestamp::now();
            let mut lines = Vec::new();
            splitters[stream].push(&self.buffer[..count], now, &mut lines);
            match killed {
                Killed::BeforeAppend => {}
                Killed::InTheMiddle => sink.log.append(&lines[..lines.len() / 2]).unwrap(),
                Killed::BeforeMark => sink.log.append(&lines).unwrap(),
                Killed::Never | Killed::AfterMark => {
                    sink.write(&splitters[stream], &lines, now).unwrap();
                }
            }
            if !matches!(killed, Killed::Never) {
                self.writer = Sink::open(&self.log(), self.dir.path(), self.limits).unwrap();
            }
            true
        }

        /// All that was said on a stream, by its log.
        fn said(&self, stream: Stream) -> Vec<u8> {
            let mut files = rotated(&self.log()).unwrap();
            files.push(self.log());
            let text: Vec<u8> = files
                .iter()
                .flat_map(|path| std::fs::read(path).unwrap())
                .collect();
            let mut said = Vec::new();
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                let line = parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                if line.stream == stream {
                    said.extend_from_slice(line.content);
                    said.extend((!line.partial).then_some(b'\n'));
                }
            }
            said
        }
    }

    #[test]
    fn a_killed_writer_loses_no_line_and_writes_none_twice() {
        for killed in KILLS {
            let mut world = World::new(1 << 20);
            for text in ["one\n", "tick\n", "tick\n", "be", "gun\n", "tick\n"] {
                world.fifos[0].write_all(text.as_bytes()).unwrap();
                world.step(0, killed);
            }
            let said = String::from_utf8(world.said(Stream::Stdout)).unwrap();
            assert_eq!(said, "one\ntick\ntick\nbegun\ntick\n", "{killed:?}");
        }
    }

    #[test]
    fn whatever_is_said_and_whenever_a_writer_is_killed() {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut world = World::new(200_000);
        let mut expected = [Vec::new(), Vec::new()];
        for _ in 0..2000 {
            let stream = next(2);
            let length = match next(20) {
                0 => next(3 * LINE_MAX),
                _ => next(40),
            };
            let letter = b'a' + next(26) as u8;
            let mut text = vec![letter; length];
            text.extend((next(4) > 0).then_some(b'\n'));
            world.fifos[stream].write_all(&text).unwrap();
            expected[stream].extend_from_slice(&text);
            while world.step(stream, KILLS[next(KILLS.len())]) {}
        }
        for (stream, splitter) in [0, 1].map(|n| (n, world.writer.1[n].pending())) {
            let whole = expected[stream].len() - splitter;
            assert_eq!(world.said(STREAMS[stream]), expected[stream][..whole]);
        }
    }
}
