//! WATCH of placements: their changes as they are written, from a resourceVersion on.
//!
//! What became of one placement since then is told once, as it is now. Nothing is told of
//! placements that are forgotten.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Placements;
use super::segment::Line;
use super::serve::{Question, object, with_log};
use crate::api::Api;
use crate::body::Body;
use crate::rest::call::{Call, Reply};
use crate::rest::watch::lines::Lines;
use crate::status::{Result, Status};

/// A watch without a timeout ends after this long.
const LIFETIME: Duration = Duration::from_secs(3600);
/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Answers a WATCH.
pub fn watch(api: &Api, placements: &Placements, call: &Call) -> Result<Reply> {
    let options = call.query.list_options()?;
    let newest = *placements.newest.borrow();
    let asked = match options.resource_version.as_str() {
        "" | "0" => None,
        text => match text.parse::<u32>() {
            Ok(seq) if seq <= newest => Some(seq),
            Ok(_) => {
                return Err(Status::expired(
                    "too old resource version: the log begins anew",
                ));
            }
            Err(_) => {
                return Err(Status::bad_request(format!(
                    "resourceVersion: Invalid value: {text:?}"
                )));
            }
        },
    };
    let initial = options.send_initial_events.unwrap_or(asked.is_none());
    let seconds = options.timeout_seconds.filter(|seconds| *seconds > 0);
    let lifetime = seconds
        .map_or(LIFETIME, Duration::from_secs)
        .min(24 * LIFETIME);
    let stream = Stream {
        question: Question::of(call)?,
        placements: placements.clone(),
        changes: placements.newest.clone(),
        seen: match initial {
            true => 0,
            false => asked.unwrap_or(newest),
        },
        marks_end: initial && options.bookmarks && options.send_initial_events.is_some(),
        bookmarks: options.bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        deadline: Instant::now() + lifetime,
        draining: api.draining.clone(),
        lines: Lines::of(call)?,
    };
    let pieces = futures::stream::unfold(stream, |mut stream| async move {
        let piece = stream.next().await?;
        Some((piece, stream))
    });
    let content_type = call.accept.encoding.stream_type();
    Ok(Reply::of(
        StatusCode::OK,
        content_type,
        Body::stream(pieces),
    ))
}

struct Stream {
    question: Question,
    placements: Placements,
    changes: watch::Receiver<u32>,
    /// The change up to which everything was told.
    seen: u32,
    marks_end: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    draining: CancellationToken,
    lines: Lines,
}

// === impl Stream ===

impl Stream {
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        loop {
            let newest = *self.changes.borrow_and_update();
            if newest > self.seen {
                self.tell(&mut out).await;
                self.seen = newest;
            }
            if std::mem::take(&mut self.marks_end) {
                self.bookmark(&mut out, true);
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    self.bookmark(&mut out, false);
                }
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = self.draining.cancelled() => return None,
            }
        }
    }

    fn bookmark(&self, out: &mut BytesMut, ends_initial: bool) {
        self.lines
            .bookmark(out, &self.seen.to_string(), ends_initial);
    }

    async fn tell(&mut self, out: &mut BytesMut) {
        let (seen, question) = (self.seen, self.question.clone());
        let read = with_log(&self.placements, move |log| {
            let slots = log.index().changed(&question.sieve, seen);
            let lines = slots.iter().map(|slot| log.line(slot));
            let lines: std::result::Result<Vec<Line>, _> = lines.collect();
            Ok(lines?
                .into_iter()
                .filter(|line| question.matches(line))
                .collect::<Vec<_>>())
        });
        match read.await {
            Ok(lines) => {
                for line in lines {
                    let kind = if line.born > seen {
                        "ADDED"
                    } else {
                        "MODIFIED"
                    };
                    self.lines.object(out, kind, object(&line));
                }
            }
            Err(fault) => self.lines.document(out, "ERROR", &fault.to_value()),
        }
    }
}
