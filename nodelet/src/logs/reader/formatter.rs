//! What the reader of a log sees of its lines. Pure.

use jiff::Timestamp;

use super::super::format;

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
