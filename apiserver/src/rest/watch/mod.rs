//! WATCH: events as they happen, from a revision on, with the selection's transitions.
//!
//! A watch is the store's, which replays from its history and then follows ([`stream`]); what is
//! here turns events into lines ([`lines`]), once for all who see the same ([`shared`],
//! [`newest`]).

pub mod lines;
mod newest;
pub mod shared;
mod signals;
mod stream;

use std::time::Duration;

use http::StatusCode;
use peapod_store::{Compacted, Interest, Revision, Scope, WatchError};
use tokio::time::Instant;

use super::call::{Call, Reply};
use super::list::{reached, revision};
use super::options;
use super::query::ListOptions;
use super::selection::Selection;
use crate::api::Api;
use crate::body::Body;
use crate::random;
use crate::status::{Result, Status};
use crate::storage::{self, Entry};
use stream::{Start, Stream};

/// A watch without a timeout ends after this long, and up to twice this long.
const SHORTEST: Duration = Duration::from_secs(1800);
/// The longest timeout that a client may ask for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Answers a WATCH.
pub async fn watch(api: &Api, call: &Call) -> Result<Reply> {
    let options = call.query.list_options()?;
    options::check_watch(&options)?;
    let selection = Selection::of(&call.resource, &options, &call.target.name)?;
    let (from, initial) = start(api, call, &options, &selection).await?;
    let interest = interest(call, &selection);
    let events = api.store.watch(interest, from).map_err(refused)?;
    let start = Start {
        from,
        initial: initial.unwrap_or_default(),
        marks_end: options.send_initial_events == Some(true) && options.bookmarks,
        bookmarks: options.bookmarks,
        deadline: Instant::now() + lifetime(&options),
    };
    let pieces = Stream::new(api, call, selection, events, start)?;
    let content_type = call.accept.encoding.stream_type();
    Ok(Reply::of(
        StatusCode::OK,
        content_type,
        Body::stream(pieces),
    ))
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
        WatchError::Compacted(compacted) => too_old(compacted),
        WatchError::TooMany(_) => Status::too_many_requests(fault.to_string(), 5),
        WatchError::Closed => Status::unavailable("the server is shutting down"),
    }
}

fn too_old(compacted: Compacted) -> Status {
    Status::expired(format!(
        "too old resource version: {} ({})",
        compacted.asked, compacted.oldest
    ))
}

fn lifetime(options: &ListOptions) -> Duration {
    match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(LONGEST),
        _ => SHORTEST + Duration::from_millis(random::below(SHORTEST.as_millis() as u64)),
    }
}
