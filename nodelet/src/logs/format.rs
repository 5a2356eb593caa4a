//! The CRI log format: `TIME STREAM F|P CONTENT`, one line each; `P` says that the line goes
//! on in the next of the same stream
//! ([KEP](https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md)).

use jiff::Timestamp;

/// Longest content of one log line, in bytes; longer lines are split.
pub const LINE_MAX: usize = 16 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line of a log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When it was written.
    pub time: Timestamp,
    /// Where it came from.
    pub stream: Stream,
    /// Whether it goes on in the next line.
    pub partial: bool,
    /// What was written, without the end of the line.
    pub content: &'a [u8],
}

/// Makes log lines of what arrives in pieces.
#[derive(Debug)]
pub struct Splitter {
    stream: Stream,
    pending: Vec<u8>,
}

// === impl Stream ===

impl Stream {
    /// As it stands in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

// === impl Splitter ===

impl Splitter {
    /// A splitter with nothing pending.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// Whose lines it makes.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// How many of the last bytes that it took are in no line yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes what arrived at `now` and appends the lines that it completes to `out`.
    pub fn push(&mut self, mut bytes: &[u8], now: Timestamp, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = LINE_MAX - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.pending.extend_from_slice(&window[..end]);
                    self.emit(now, false, out);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.pending.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    // A full line may end with the next byte: then it is no partial one.
                    if self.pending.len() == LINE_MAX && bytes.first().is_some_and(|b| *b != b'\n')
                    {
                        self.emit(now, true, out);
                    } else if self.pending.len() == LINE_MAX && !bytes.is_empty() {
                        self.emit(now, false, out);
                        bytes = &bytes[1..];
                    } else if self.pending.len() == LINE_MAX {
                        self.emit(now, true, out);
                    }
                }
            }
        }
    }

    /// The stream has ended: what is pending is written as a partial line.
    pub fn finish(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.emit(now, true, out);
        }
    }

    fn emit(&mut self, now: Timestamp, partial: bool, out: &mut Vec<u8>) {
        let tag = if partial { 'P' } else { 'F' };
        out.extend_from_slice(format!("{now:.9} {} {tag} ", self.stream.name()).as_bytes());
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// Parses a line of a log file, without its line end. A line that a crash cut short is `None`.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    // More tags may follow after a colon.
    let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line {
        time,
        stream,
        partial,
        content: parts.next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const NOW: &str = "2026-11-23T07:08:09.123456789Z";

    fn split(pieces: &[&[u8]]) -> String {
        let now = NOW.parse().unwrap();
        let mut splitter = Splitter::new(Stream::Stdout);
        let mut out = Vec::new();
        pieces
            .iter()
            .for_each(|piece| splitter.push(piece, now, &mut out));
        splitter.finish(now, &mut out);
        String::from_utf8(out).unwrap().replace(NOW, "T")
    }

    #[test]
    fn lines_are_put_together_and_taken_apart() {
        assert_eq!(split(&[b"one\ntwo\n"]), "T stdout F one\nT stdout F two\n");
        assert_eq!(split(&[b"o", b"ne", b"\n"]), "T stdout F one\n");
        assert_eq!(split(&[b"\n\n"]), "T stdout F \nT stdout F \n");
        assert_eq!(split(&[b"no end"]), "T stdout P no end\n");
        assert_eq!(split(&[]), "");
        let long = "x".repeat(LINE_MAX);
        let full = format!("T stdout F {long}\n");
        assert_eq!(split(&[format!("{long}\n").as_bytes()]), full);
        let more = format!("T stdout P {long}\nT stdout F y\n");
        assert_eq!(split(&[format!("{long}y\n").as_bytes()]), more);
    }

    #[test]
    fn what_is_written_can_be_parsed() {
        let line = format!("{NOW} stderr P a b c");
        let parsed = parse(line.as_bytes()).unwrap();
        assert_eq!(parsed.time.to_string(), NOW);
        assert_eq!((parsed.stream, parsed.partial), (Stream::Stderr, true));
        assert_eq!(parsed.content, b"a b c");
        assert_eq!(
            parse(format!("{NOW} stdout F ").as_bytes())
                .unwrap()
                .content,
            b""
        );
        assert_eq!(
            parse(format!("{NOW} stdout F").as_bytes()).unwrap().content,
            b""
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read_back(
            pieces in vec(vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..8),
        ) {
            let now = NOW.parse().unwrap();
            let mut splitter = Splitter::new(Stream::Stdout);
            let mut out = Vec::new();
            pieces.iter().for_each(|piece| splitter.push(piece, now, &mut out));
            splitter.finish(now, &mut out);
            let mut read = Vec::new();
            for line in out.split_inclusive(|byte| *byte == b'\n') {
                let line = parse(&line[..line.len() - 1]).unwrap();
                read.extend_from_slice(line.content);
                read.extend((!line.partial).then_some(b'\n'));
            }
            prop_assert_eq!(read, pieces.concat());
        }

        #[test]
        fn a_damaged_line_is_a_line_or_none_never_a_panic(
            at in 0..40_usize,
            with in vec(any::<u8>(), 0..20),
            end in 0..60_usize,
        ) {
            let mut line = format!("{NOW} stdout F said").into_bytes();
            line.splice(at..line.len().min(at + with.len()).max(at), with);
            line.truncate(end);
            let _ = parse(&line);
        }
    }

    #[test]
    fn broken_lines_are_recognised() {
        for bad in [
            "",
            "x",
            "2026",
            NOW,
            &format!("{NOW} stdin F x"),
            &format!("{NOW} stdout X x"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
