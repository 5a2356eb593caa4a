//! WATCH: events as they happen, from a revision on, with the selection's transitions.
//!
//! A watch is the store's, which replays from its history and then follows; what is here turns
//! events into lines. What an object was before tells whether it enters or leaves the selection.

use std::pin::Pin;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use http::StatusCode;
use peapod_schema::{cbor, protobuf};
use peapod_store::{EventKind, Interest, Revision, Scope, WatchEnd, WatchError};
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::call::{Call, Reply};
use super::encode;
use super::list::{reached, revision};
use super::negotiate::{Accept, Encoding, Form};
use super::query::ListOptions;
use super::selection::Selection;
use super::shared::{Name, Shared};
use super::table::{self, IncludeObject};
use crate::api::Api;
use crate::body::Body;
use crate::random;
use crate::registry::{FieldError, FieldErrors, Resource};
use crate::status::{Result, Status};
use crate::storage::{self, Entry, Messages, Meta};

/// How many bytes of events are sent in one piece where many are ready.
const CHUNK: usize = 64 * 1024;
/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a timeout ends after this long, and up to twice this long.
const SHORTEST: Duration = Duration::from_secs(1800);
/// The longest timeout that a client may ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Answers a WATCH.
pub async fn watch(api: &Api, call: &Call) -> Result<Reply> {
    let options = call.query.list_options()?;
    check_options(&options)?;
    let selection = Selection::of(&call.resource, &options, &call.target.name)?;
    let (from, initial) = start(api, call, &options, &selection).await?;
    let interest = interest(call, &selection);
    let events = api.store.watch(interest, from).map_err(refused)?;
    let deadline = Instant::now() + lifetime(&options);
    let first = next_alarm(deadline, options.bookmarks);
    let stream = Stream {
        lines: Lines::new(api, call)?,
        selection,
        events,
        initial: initial.unwrap_or_default().into_iter(),
        marks_end: options.send_initial_events == Some(true) && options.bookmarks,
        from,
        bookmarks: options.bookmarks,
        deadline,
        alarm: Box::pin(tokio::time::sleep_until(first)),
        draining: Box::pin(api.draining.clone().cancelled_owned()),
        withdrawn: Box::pin(call.resource.withdrawn.clone().cancelled_owned()),
        ended: false,
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

fn check_options(options: &ListOptions) -> Result<()> {
    let mut errors = FieldErrors::new();
    let given = options.resource_version_match.as_str();
    match options.send_initial_events {
        Some(_) if given != "NotOlderThan" => errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        None if !given.is_empty() => errors.push(FieldError::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        _ => {}
    }
    if !options.continue_token.is_empty() {
        errors.push(FieldError::forbidden(
            "continue",
            "continue is forbidden for watch",
        ));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("meta.k8s.io", "ListOptions", "", &errors)),
    }
}

/// The revision that the events follow, and the objects that are told of before them.
async fn start(
    api: &Api,
    call: &Call,
    options: &ListOptions,
    selection: &Selection,
) -> Result<(Revision, Option<Vec<Entry>>)> {
    let asked = revision(&options.resource_version)?;
    let initial = match options.send_initial_events {
        Some(true) => true,
        Some(false) => false,
        None => asked.is_none(),
    };
    if !initial {
        return Ok((asked.unwrap_or_else(|| api.store.revision()), None));
    }
    if let Some(least) = asked {
        reached(api, least).await?;
    } else if options.resource_version.is_empty() {
        let fenced = api.store.fence().await;
        fenced.map_err(|fault| Status::unavailable(fault.to_string()))?;
    }
    let snapshot = api.store.snapshot(&storage::range(call.kind()));
    let namespace = call.target.namespace.as_str();
    let scope = match namespace {
        "" => Scope::All,
        namespace => Scope::Namespace(namespace),
    };
    let entries: Vec<Entry> = match &selection.index {
        Some((index, value)) => snapshot
            .select(*index, value)
            .filter(|e| namespace.is_empty() || e.key.namespace() == namespace)
            .filter(|entry| selection.matches(entry))
            .cloned()
            .collect(),
        None => snapshot
            .range(scope, None)
            .filter(|entry| selection.matches(entry))
            .cloned()
            .collect(),
    };
    Ok((snapshot.revision(), Some(entries)))
}

fn interest(call: &Call, selection: &Selection) -> Interest {
    let mut interest = Interest::new(storage::range(call.kind()));
    let namespace = match call.target.namespace.as_str() {
        "" => selection.namespace.as_deref(),
        namespace => Some(namespace),
    };
    if let Some(namespace) = namespace {
        interest = interest.namespace(namespace);
    }
    if let Some(name) = &selection.name {
        interest = interest.name(name);
    }
    if let Some((index, value)) = &selection.index {
        interest = interest.index(*index, value);
    }
    interest
}

fn refused(fault: WatchError) -> Status {
    match fault {
        WatchError::Compacted(compacted) => Status::expired(format!(
            "too old resource version: {} ({})",
            compacted.asked, compacted.oldest
        )),
        WatchError::TooMany(_) => Status::too_many_requests(fault.to_string(), 5),
        WatchError::Closed => Status::unavailable("the server is shutting down"),
    }
}

fn lifetime(options: &ListOptions) -> Duration {
    match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(LONGEST),
        _ => SHORTEST + Duration::from_millis(random::below(SHORTEST.as_millis() as u64)),
    }
}

/// When a watch is to do something although nothing happens.
fn next_alarm(deadline: Instant, bookmarks: bool) -> Instant {
    match bookmarks {
        true => deadline.min(Instant::now() + BOOKMARK_EVERY),
        false => deadline,
    }
}

/// A watch under way.
struct Stream {
    lines: Lines,
    selection: Selection,
    events: peapod_store::Watch<Meta>,
    initial: std::vec::IntoIter<Entry>,
    /// Whether the bookmark that ends the initial events is still to be sent.
    marks_end: bool,
    /// The revision of the initial events, and of the last bookmark.
    from: Revision,
    bookmarks: bool,
    deadline: Instant,
    /// Set to the next bookmark, or to the deadline. It and what follows stay registered from one
    /// event to the next.
    alarm: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The kind is not served any more, or as something else.
    withdrawn: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

// === impl Stream ===

impl Stream {
    /// The next piece of the body; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        self.initial_events(&mut out);
        while out.is_empty() && !self.ended {
            tokio::select! {
                biased;
                event = self.events.next() => self.follow(event, &mut out),
                () = &mut self.alarm => self.alarmed(&mut out),
                () = &mut self.draining => self.end(&mut out),
                () = &mut self.withdrawn => self.end(&mut out),
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn alarmed(&mut self, out: &mut BytesMut) {
        if Instant::now() >= self.deadline {
            return self.end(out);
        }
        let next = next_alarm(self.deadline, self.bookmarks);
        self.alarm.as_mut().reset(next);
        self.bookmark(out);
    }

    fn initial_events(&mut self, out: &mut BytesMut) {
        while out.len() < CHUNK {
            let Some(entry) = self.initial.next() else {
                if std::mem::take(&mut self.marks_end) {
                    self.lines.bookmark(out, self.from, true);
                }
                return;
            };
            self.lines.stored(out, "ADDED", &entry);
        }
    }

    /// Writes an event, and those that are ready behind it.
    fn follow(&mut self, first: Received, out: &mut BytesMut) {
        let mut next = Some(first);
        while let Some(received) = next {
            match received {
                Ok(event) => self.event(&event, out),
                Err(end) => {
                    self.ended = true;
                    self.broken(end, out);
                    return;
                }
            }
            next = match out.len() < CHUNK {
                true => self.events.next().now_or_never(),
                false => None,
            };
        }
    }

    fn event(&mut self, event: &peapod_store::Event<Meta>, out: &mut BytesMut) {
        let before = event.previous.as_ref();
        let was = before.is_some_and(|entry| self.selection.matches(entry));
        match event.kind {
            EventKind::Delete if was => self.lines.shared(out, "DELETED", &event.entry),
            EventKind::Delete => {}
            EventKind::Put => match (was, self.selection.matches(&event.entry)) {
                (false, true) => self.lines.shared(out, "ADDED", &event.entry),
                (true, true) => self.lines.shared(out, "MODIFIED", &event.entry),
                (true, false) => {
                    if let Some(entry) = before {
                        let left = entry.value_at(event.revision);
                        self.lines.event(out, "DELETED", &left);
                    }
                }
                (false, false) => {}
            },
        }
    }

    fn bookmark(&mut self, out: &mut BytesMut) {
        let progress = self.events.progress();
        if progress > self.from {
            self.from = progress;
            self.lines.bookmark(out, progress, false);
        }
    }

    fn end(&mut self, out: &mut BytesMut) {
        self.ended = true;
        if self.bookmarks {
            self.bookmark(out);
        }
    }

    fn broken(&mut self, end: WatchEnd, out: &mut BytesMut) {
        if let WatchEnd::Behind(compacted) = end {
            let status = Status::expired(format!(
                "too old resource version: {} ({})",
                compacted.asked, compacted.oldest
            ));
            self.lines.document(out, "ERROR", &status.to_value());
        }
    }
}

type Received = Result<std::sync::Arc<peapod_store::Event<Meta>>, WatchEnd>;

/// Writes events in the form and encoding that the client asked for.
struct Lines {
    resource: std::sync::Arc<Resource>,
    accept: Accept,
    include: IncludeObject,
    /// Whether a table with columns has been sent.
    has_columns: bool,
    made: std::sync::Arc<Shared>,
    messages: Messages,
}

// === impl Lines ===

impl Lines {
    fn new(api: &Api, call: &Call) -> Result<Self> {
        let accept = Accept {
            pretty: false,
            ..call.accept
        };
        Ok(Self {
            resource: call.resource.clone(),
            accept,
            include: IncludeObject::parse(call.query.get("includeObject"))?,
            has_columns: false,
            made: api.watched.clone(),
            messages: api.messages.clone(),
        })
    }

    /// Writes an event whose object others may show, too.
    fn shared(&mut self, out: &mut BytesMut, kind: &str, entry: &Entry) {
        let form = (self.accept.encoding, self.accept.form);
        match form {
            // The stored bytes are shared already; a row tells the age of its object.
            (Encoding::Json, Form::Object) | (_, Form::Table) => self.stored(out, kind, entry),
            _ if encode::is_kept(&self.resource, self.accept) => self.stored(out, kind, entry),
            form => {
                let name = Name::of(&self.resource, form, &entry.key, entry.modified);
                let (resource, accept) = (&self.resource, self.accept);
                let make = || encode::object(resource, accept, &entry.value);
                let body = self.made.get(name, make);
                self.told(out, kind, body);
            }
        }
    }

    /// Writes an event of an object as it is stored.
    fn stored(&mut self, out: &mut BytesMut, kind: &str, entry: &Entry) {
        let body = match self.accept.form {
            Form::Table => self.row(&entry.value),
            _ => encode::entry(&self.messages, &self.resource, self.accept, entry),
        };
        self.told(out, kind, body);
    }

    /// Writes an event of an object as it never was stored.
    fn event(&mut self, out: &mut BytesMut, kind: &str, object: &Bytes) {
        let body = match self.accept.form {
            Form::Table => self.row(object),
            _ => encode::object(&self.resource, self.accept, object),
        };
        self.told(out, kind, body);
    }

    fn told(&self, out: &mut BytesMut, kind: &str, body: Result<Bytes>) {
        match body {
            Ok(body) => self.line(out, kind, &body),
            Err(fault) => self.document(out, "ERROR", &fault.to_value()),
        }
    }

    fn row(&mut self, stored: &Bytes) -> Result<Bytes> {
        let object = table::decode(&self.resource, stored)?;
        let kind = &self.resource.kind;
        let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        let first = !std::mem::replace(&mut self.has_columns, true);
        let mut out = table::table(kind, meta, first);
        let now = jiff::Timestamp::now();
        out["rows"] = vec![table::row(kind, object, self.include, now)].into();
        encode::value(&out, self.accept)
    }

    fn bookmark(&mut self, out: &mut BytesMut, revision: Revision, ends_initial: bool) {
        let mut meta = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial {
            meta["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = json!({
            "kind": self.resource.kind.kind,
            "apiVersion": self.resource.api_version,
            "metadata": meta,
        });
        let shown = match self.accept.form {
            Form::Table => {
                let meta = json!({"resourceVersion": revision.to_string()});
                let mut out = table::table(&self.resource.kind, meta, false);
                out["rows"] = json!([{"cells": [], "object": table::partial(object)}]);
                out
            }
            Form::Metadata => table::partial(object),
            _ => object,
        };
        self.document(out, "BOOKMARK", &shown);
    }

    fn document(&self, out: &mut BytesMut, kind: &str, document: &Value) {
        match encode::value(document, self.accept) {
            Ok(body) => self.line(out, kind, &body),
            Err(fault) => tracing::error!(%fault, kind, "an event cannot be written"),
        }
    }

    /// Writes an event of a finished object.
    fn line(&self, out: &mut BytesMut, kind: &str, object: &[u8]) {
        match self.accept.encoding {
            Encoding::Json => raw(out, kind, object),
            Encoding::Protobuf => out.put_slice(&protobuf::watch_frame(kind, object)),
            Encoding::Cbor => out.put_slice(&cbor::watch_event(kind, object)),
            Encoding::Yaml => {
                out.put_slice(format!("---\ntype: {kind}\nobject:\n").as_bytes());
                for line in object.split_inclusive(|byte| *byte == b'\n') {
                    out.put_slice(b"  ");
                    out.put_slice(line);
                }
            }
        }
    }
}

fn raw(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
