//! A watch under way: which events its selection sees, and the pieces of its body.
//!
//! What an object was before tells whether it enters or leaves the selection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use peapod_store::{EventKind, Revision, Watch, WatchEnd};
use tokio::time::Instant;

use super::lines::Lines;
use super::newest::Line;
use super::shared::{Name, Shared};
use super::signals::{Signal, Signals};
use super::too_old;
use crate::api::Api;
use crate::rest::call::Call;
use crate::rest::encode;
use crate::rest::negotiate::{Encoding, Form};
use crate::rest::selection::Selection;
use crate::seldom::Seldom;
use crate::status::Result;
use crate::storage::{Entry, Event, Messages, Meta};

/// How many bytes of events are sent in one piece where many are ready.
const CHUNK: usize = 64 * 1024;
/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Where a watch begins and ends.
pub struct Start {
    /// The revision that events follow.
    pub from: Revision,
    /// The objects that are told of before.
    pub initial: Vec<Entry>,
    /// Whether a bookmark ends them.
    pub marks_end: bool,
    /// Whether others are sent from time to time.
    pub bookmarks: bool,
    /// When the watch ends.
    pub deadline: Instant,
}

/// A watch under way, as the pieces of its body.
pub struct Stream {
    lines: Lines,
    made: Arc<Shared>,
    messages: Messages,
    selection: Selection,
    events: Watch<Meta>,
    initial: std::vec::IntoIter<Entry>,
    /// Whether the bookmark that ends the initial events is still to be sent.
    marks_end: bool,
    /// The revision of the initial events, and of the last bookmark.
    from: Revision,
    bookmarks: bool,
    deadline: Instant,
    /// The alarm is set to the next bookmark, or to the deadline.
    signals: Seldom<Signals>,
    ended: bool,
}

/// What a selection sees of an event.
enum Seen<'e> {
    /// An object as it is stored.
    Stored(&'e Entry),
    /// The last state of an object that has left the selection.
    Left(Bytes),
}

// === impl Stream ===

impl Stream {
    /// A watch of a call.
    ///
    /// # Errors
    /// 400 for options of tables that are none.
    pub fn new(
        api: &Api,
        call: &Call,
        selection: Selection,
        events: Watch<Meta>,
        start: Start,
    ) -> Result<Self> {
        let alarm = next_alarm(start.deadline, start.bookmarks);
        Ok(Self {
            lines: Lines::of(call)?,
            made: api.watched.clone(),
            messages: api.messages.clone(),
            selection,
            events,
            initial: start.initial.into_iter(),
            marks_end: start.marks_end,
            from: start.from,
            bookmarks: start.bookmarks,
            deadline: start.deadline,
            signals: Seldom::new(Signals::new(alarm, &api.draining, &call.resource.withdrawn)),
            ended: false,
        })
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        self.initial_events(&mut out);
        while out.is_empty() && !self.ended {
            match self.events.poll_event(context) {
                Poll::Ready(Ok(event)) if !self.events.has_ready() => {
                    if let Some(line) = self.alone(&event) {
                        return Poll::Ready(Some(line));
                    }
                }
                Poll::Ready(Ok(event)) => self.follow(event, &mut out),
                Poll::Ready(Err(end)) => self.broken(end, &mut out),
                Poll::Pending => match ready!(Pin::new(&mut self.signals).poll(context)) {
                    Signal::Alarm => self.alarmed(&mut out),
                    Signal::Stop => self.end(&mut out),
                },
            }
        }
        Poll::Ready((!out.is_empty()).then(|| out.freeze()))
    }

    fn initial_events(&mut self, out: &mut BytesMut) {
        while out.len() < CHUNK {
            let Some(entry) = self.initial.next() else {
                if std::mem::take(&mut self.marks_end) {
                    self.lines.bookmark(out, &self.from.to_string(), true);
                }
                return;
            };
            self.stored(out, "ADDED", &entry);
        }
    }

    /// The line of an event behind which none waits: made once for all watches that show it alike.
    fn alone(&mut self, event: &Arc<Event>) -> Option<Bytes> {
        let (kind, seen) = self.seen(event)?;
        // A row tells the age of its object, and the first one the columns.
        let is_shared = matches!(seen, Seen::Stored(_)) && self.lines.form() != Form::Table;
        if is_shared && let Some(made) = self.made.newest.get(self.line(event, kind)) {
            return Some(made);
        }
        let mut out = BytesMut::new();
        self.write(&mut out, kind, seen);
        let made = out.freeze();
        if is_shared {
            self.made.newest.keep(self.line(event, kind), made.clone());
        }
        Some(made)
    }

    fn line<'a>(&'a self, event: &'a Arc<Event>, kind: &'static str) -> Line<'a> {
        Line {
            event,
            kind,
            resource: self.lines.resource(),
            look: self.lines.accept().look(),
        }
    }

    /// Writes an event, and those that are ready behind it.
    fn follow(&mut self, first: Arc<Event>, out: &mut BytesMut) {
        let mut next = Some(first);
        while let Some(event) = next {
            if let Some((kind, seen)) = self.seen(&event) {
                self.write(out, kind, seen);
            }
            next = match out.len() < CHUNK {
                true => self.events.next_ready(),
                false => None,
            };
        }
    }

    fn seen<'e>(&self, event: &'e Event) -> Option<(&'static str, Seen<'e>)> {
        let before = event.previous.as_ref();
        let was = before.is_some_and(|entry| self.selection.matches(entry));
        let stored = Seen::Stored(&event.entry);
        match event.kind {
            EventKind::Delete => was.then_some(("DELETED", stored)),
            EventKind::Put => match (was, self.selection.matches(&event.entry)) {
                (false, true) => Some(("ADDED", stored)),
                (true, true) => Some(("MODIFIED", stored)),
                (true, false) => {
                    let left = before?.value_at(event.revision);
                    Some(("DELETED", Seen::Left(left)))
                }
                (false, false) => None,
            },
        }
    }

    fn write(&mut self, out: &mut BytesMut, kind: &str, seen: Seen<'_>) {
        match seen {
            Seen::Stored(entry) => self.shared(out, kind, entry),
            Seen::Left(object) => {
                let body = self.lines.body(&object);
                self.lines.told(out, kind, body);
            }
        }
    }

    /// Writes an event whose object others may show, too.
    fn shared(&mut self, out: &mut BytesMut, kind: &str, entry: &Entry) {
        let (resource, accept) = (self.lines.resource(), self.lines.accept());
        let is_kept = match (accept.encoding, accept.form) {
            // The stored bytes are shared already; a row tells the age of its object.
            (Encoding::Json, Form::Object) | (_, Form::Table) => true,
            _ => encode::is_kept(resource, accept),
        };
        if is_kept {
            return self.stored(out, kind, entry);
        }
        let name = Name::of(resource, accept.look(), &entry.key, entry.modified);
        let make = || encode::object(resource, accept, &entry.value);
        let body = self.made.get(name, make);
        self.lines.told(out, kind, body);
    }

    /// Writes an event of an object as it is stored.
    fn stored(&mut self, out: &mut BytesMut, kind: &str, entry: &Entry) {
        let body = match self.lines.form() {
            Form::Table => self.lines.body(&entry.value),
            _ => {
                let (resource, accept) = (self.lines.resource(), self.lines.accept());
                encode::entry(&self.messages, resource, accept, entry)
            }
        };
        self.lines.told(out, kind, body);
    }

    fn alarmed(&mut self, out: &mut BytesMut) {
        if Instant::now() >= self.deadline {
            return self.end(out);
        }
        let next = next_alarm(self.deadline, self.bookmarks);
        self.signals.get_mut().set_alarm(next);
        self.bookmark(out);
    }

    fn bookmark(&mut self, out: &mut BytesMut) {
        let progress = self.events.progress();
        if progress > self.from {
            self.from = progress;
            self.lines.bookmark(out, &progress.to_string(), false);
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.ended = true;
        if self.bookmarks {
            self.bookmark(out);
        }
    }

    fn broken(&mut self, end: WatchEnd, out: &mut BytesMut) {
        self.ended = true;
        if let WatchEnd::Behind(compacted) = end {
            let status = too_old(compacted);
            self.lines.document(out, "ERROR", &status.to_value());
        }
    }
}

impl futures::Stream for Stream {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // Who reads as fast as events are replayed must not keep a thread for itself.
        let turn = ready!(tokio::task::coop::poll_proceed(context));
        let piece = ready!(self.get_mut().poll_piece(context));
        turn.made_progress();
        Poll::Ready(piece)
    }
}

/// When a watch is to do something although nothing happens.
fn next_alarm(deadline: Instant, bookmarks: bool) -> Instant {
    match bookmarks {
        true => deadline.min(Instant::now() + BOOKMARK_EVERY),
        false => deadline,
    }
}
