//! What the log writer has taken from a container's fifos and not written to its log yet.
//!
//! A process that reads a fifo and is killed before it has written takes what it read along. So bytes are
//! moved from the fifo into a file, the *spill*, by one system call (`splice`), which a kill does not cut in two,
//! and only then read. A *mark* says how far the log had come and from where on each spill is not in it; it is
//! written after each append. So after a kill the log can be brought to exactly what was taken:
//!
//! | killed | the log | done by the next writer |
//! | --- | --- | --- |
//! | before the append | has the size of the mark | the lines are appended |
//! | in the middle | is longer | it is cut back, the lines are appended |
//! | before the mark | is longer by exactly these lines | nothing but the mark |
//!
//! Not synced: after a start of the machine nothing of it counts, which the mark's boot ID tells.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::format::{Splitter, Stream};
use crate::runtime::sys;

/// A spill of this size, in bytes, is exchanged for one that has only what is not in the log.
const SPILL_MAX: u64 = 1 << 20;
/// Name of the mark.
const MARK: &str = "log.mark";
/// Bytes of a mark: far less than a page, so that it is written whole or not at all.
const MARK_BYTES: usize = 5 * 8;

/// Where a stream stands: its spill, by number, and the first byte in it that is not in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    file: u64,
    start: u64,
}

/// How far everything has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    boot: u64,
    log_size: u64,
    places: [Place; 2],
}

/// A file that bytes are moved into.
#[derive(Debug)]
struct Spill {
    file: File,
    size: u64,
}

/// Of one container.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    mark: Mark,
    /// Of each stream, once it has said something.
    spills: [Option<Spill>; 2],
}

// === impl Mark ===

impl Mark {
    /// One that says nothing has been taken.
    fn new(boot: u64, log_size: u64) -> Self {
        Self {
            boot,
            log_size,
            places: [Place::default(); 2],
        }
    }

    /// A spill's number is 0 or 1, and shares its word with the place in it.
    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let place = |place: Place| place.start << 1 | place.file & 1;
        let [out, err] = self.places.map(place);
        let mut bytes = [0; MARK_BYTES];
        let sum = self.boot ^ self.log_size ^ out ^ err;
        for (slot, word) in bytes
            .chunks_mut(8)
            .zip([self.boot, self.log_size, out, err, sum])
        {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes
            .chunks_exact(8)
            .map(|word| word.try_into().map(u64::from_le_bytes));
        let mut next = || words.next()?.ok();
        let (boot, log_size, out, err, sum) = (next()?, next()?, next()?, next()?, next()?);
        let place = |word: u64| Place {
            file: word & 1,
            start: word >> 1,
        };
        (sum == boot ^ log_size ^ out ^ err).then(|| Self {
            boot,
            log_size,
            places: [place(out), place(err)],
        })
    }
}

// === impl Journal ===

impl Journal {
    /// The journal in a container's directory, whose log has this size. One of an earlier start of the machine
    /// is begun anew.
    pub fn open(dir: &Path, log_size: u64) -> io::Result<Self> {
        let boot = sys::boot()?;
        let path = dir.join(MARK);
        let kept = fs::read(&path).ok();
        let kept = kept.and_then(|bytes| Mark::parse(&bytes));
        let kept = kept.filter(|mark| mark.boot == boot);
        let file = OpenOptions::new();
        let file = { file }
            .create(true)
            .write(true)
            .truncate(kept.is_none())
            .open(&path)?;
        let mark = kept.unwrap_or_else(|| Mark::new(boot, log_size));
        let journal = Self {
            dir: dir.to_owned(),
            file,
            mark,
            spills: [None, None],
        };
        journal.file.write_all_at(&journal.mark.to_bytes(), 0)?;
        Ok(journal)
    }

    /// The size of the log to which nothing of what is left belongs.
    pub fn log_size(&self) -> u64 {
        self.mark.log_size
    }

    /// What was taken of a stream and is not in the log, by the mark.
    pub fn left(&mut self, stream: Stream) -> io::Result<Vec<u8>> {
        let place = self.mark.places[index(stream)];
        if !self.path(stream, place.file).exists() {
            return Ok(Vec::new());
        }
        let spill = self.spill(stream)?;
        let mut left = vec![0; spill.size.saturating_sub(place.start) as usize];
        let read = spill.file.read_exact_at(&mut left, place.start);
        match left.is_empty() {
            true => Ok(left),
            false => read.map(|()| left),
        }
    }

    /// Moves what is in a fifo into the spill, as much as the buffer holds, and reads it. Where there is no room
    /// for a spill it is only read.
    pub fn take(
        &mut self,
        stream: Stream,
        fifo: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let spill = self.spill(stream)?;
        match sys::splice(fifo, &spill.file, spill.size, buffer.len()) {
            Ok(count) => {
                spill.file.read_exact_at(&mut buffer[..count], spill.size)?;
                spill.size += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => Ok(nix::unistd::read(fifo, buffer)?),
        }
    }

    /// Notes that the log has this size, and of each of these splitters' streams all in it but what is pending.
    pub fn commit<'a>(
        &mut self,
        splitters: impl IntoIterator<Item = &'a Splitter> + Clone,
        log_size: u64,
    ) -> io::Result<()> {
        for splitter in splitters.clone() {
            let index = index(splitter.stream());
            let size = self.spills[index].as_ref().map_or(0, |spill| spill.size);
            let place = &mut self.mark.places[index];
            // What was not spilled may be pending, too.
            let start = size.saturating_sub(splitter.pending() as u64);
            place.start = start.max(place.start).min(size);
        }
        self.mark.log_size = log_size;
        self.write_mark()?;
        splitters
            .into_iter()
            .try_for_each(|splitter| self.exchange_if_large(splitter.stream()))
    }

    /// The log was set aside, and another begun.
    pub fn rotated(&mut self) -> io::Result<()> {
        self.mark.log_size = 0;
        self.write_mark()
    }

    /// Goes on in the stream's other file, with what is not in the log yet, when its spill is large.
    fn exchange_if_large(&mut self, stream: Stream) -> io::Result<()> {
        let spill = self.spills[index(stream)].as_ref();
        if spill.is_none_or(|spill| spill.size <= SPILL_MAX) {
            return Ok(());
        }
        let left = self.left(stream)?;
        let place = Place {
            file: 1 - self.mark.places[index(stream)].file,
            start: 0,
        };
        let next = open_spill(&self.path(stream, place.file))?;
        next.set_len(0)?;
        next.write_all_at(&left, 0)?;
        self.mark.places[index(stream)] = place;
        self.write_mark()?;
        let next = Spill {
            file: next,
            size: left.len() as u64,
        };
        match self.spills[index(stream)].replace(next) {
            Some(old) => old.file.set_len(0),
            None => Ok(()),
        }
    }

    fn write_mark(&self) -> io::Result<()> {
        self.file.write_all_at(&self.mark.to_bytes(), 0)
    }

    fn path(&self, stream: Stream, file: u64) -> PathBuf {
        self.dir.join(format!("{}.spill{file}", stream.name()))
    }

    fn spill(&mut self, stream: Stream) -> io::Result<&mut Spill> {
        let path = self.path(stream, self.mark.places[index(stream)].file);
        let slot = &mut self.spills[index(stream)];
        if slot.is_none() {
            let file = open_spill(&path)?;
            let size = file.metadata()?.len();
            *slot = Some(Spill { file, size });
        }
        slot.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn open_spill(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(path)
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_or_not_at_all() {
        let mark = Mark {
            boot: 7,
            log_size: 1 << 40,
            places: [Place { file: 1, start: 3 }, Place { file: 0, start: 9 }],
        };
        let bytes = mark.to_bytes();
        assert_eq!(Mark::parse(&bytes), Some(mark));
        assert_eq!(Mark::parse(&bytes[1..]), None);
        assert_eq!(Mark::parse(&[]), None);
        let mut damaged = bytes;
        damaged[9] ^= 1;
        assert_eq!(Mark::parse(&damaged), None);
    }
}
