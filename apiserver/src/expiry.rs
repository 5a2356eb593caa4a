//! Events end some time after they were last written, as upstream's do by etcd's leases: otherwise they
//! would be kept for ever. Each server ends them; of several over one store the first one does.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use peapod_store::{CommitError, Compare, EventKind, Interest, Key, Revision, Scope, Txn};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::registry::value;
use crate::storage;

/// How many are deleted at once; they share the store's flushes.
const AT_ONCE: usize = 32;
/// When a deletion that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long to rest when the store has no more watches to give.
const REST: Duration = Duration::from_secs(1);

/// When each event is due.
#[derive(Debug, Default)]
struct Queue {
    of: HashMap<Key, (Instant, Revision)>,
    order: BTreeSet<(Instant, Key)>,
}

/// Ends events until it is dropped.
pub fn spawn(api: Arc<Api>, ttl: Duration) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api, ttl)))
}

async fn run(api: Arc<Api>, ttl: Duration) {
    let Some(kind) = api.registry.find("", "v1", "events") else {
        return;
    };
    let range = storage::range(&kind.kind);
    loop {
        let snapshot = api.store.snapshot(&range);
        let mut queue = Queue::default();
        let (now, at) = (Timestamp::now(), Instant::now());
        for entry in snapshot.range(Scope::All, None) {
            let event = serde_json::from_slice(&entry.value).unwrap_or_default();
            let left = ttl.saturating_sub(age(&event, now));
            queue.put(entry.key.clone(), entry.modified, at + left);
        }
        let Ok(mut events) = api
            .store
            .watch(Interest::new(range.clone()), snapshot.revision())
        else {
            tokio::time::sleep(REST).await;
            continue;
        };
        drop(snapshot);
        loop {
            let next = queue.next();
            tokio::select! {
                event = events.next() => {
                    let Ok(event) = event else {
                        break;
                    };
                    queue.take(&event, ttl);
                    while let Some(Ok(event)) = events.next().now_or_never() {
                        queue.take(&event, ttl);
                    }
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    end(&api, &mut queue).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

/// How long ago an event was written last, as far as it says so.
fn age(event: &Value, now: Timestamp) -> Duration {
    let fields = [
        "series.lastObservedTime",
        "lastTimestamp",
        "eventTime",
        "metadata.creationTimestamp",
    ];
    let times = fields.iter().map(|field| value::text(event, field));
    let last = times
        .filter_map(|text| text.parse::<Timestamp>().ok())
        .max();
    let age = last.map(|last| now.duration_since(last));
    age.and_then(|age| age.try_into().ok()).unwrap_or_default()
}

/// Deletes what is due, unless it was written meanwhile.
async fn end(api: &Api, queue: &mut Queue) {
    let due = queue.due(Instant::now());
    let deletions = due.into_iter().map(|(key, revision)| async move {
        let txn = Txn::new().delete(key.clone(), Compare::At(revision));
        (key, revision, api.store.commit(txn).await)
    });
    let ended: Vec<_> = futures::stream::iter(deletions)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    for (key, revision, outcome) in ended {
        match outcome {
            // In the second case it was written or deleted, and the watch tells.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(fault) => {
                tracing::warn!(%key, %fault, "cannot delete an old event; trying again in a minute");
                queue.put(key, revision, Instant::now() + AGAIN);
            }
        }
    }
}

// === impl Queue ===

impl Queue {
    fn put(&mut self, key: Key, revision: Revision, due: Instant) {
        self.remove(&key);
        self.order.insert((due, key.clone()));
        self.of.insert(key, (due, revision));
    }

    fn remove(&mut self, key: &Key) {
        if let Some((due, _)) = self.of.remove(key) {
            self.order.remove(&(due, key.clone()));
        }
    }

    fn take(&mut self, event: &peapod_store::Event<storage::Meta>, ttl: Duration) {
        let entry = &event.entry;
        match event.kind {
            EventKind::Put => self.put(entry.key.clone(), entry.modified, Instant::now() + ttl),
            EventKind::Delete => self.remove(&entry.key),
        }
    }

    fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Takes out what is due.
    fn due(&mut self, now: Instant) -> Vec<(Key, Revision)> {
        let mut all = Vec::new();
        while let Some((due, key)) = self.order.first().cloned()
            && due <= now
        {
            let revision = self.of.get(&key).map(|(_, revision)| *revision);
            self.remove(&key);
            all.extend(revision.map(|revision| (key, revision)));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_again_is_due_later() {
        let mut queue = Queue::default();
        let began = Instant::now();
        let at = |secs| began + Duration::from_secs(secs);
        let key = |name: &str| Key::new(format!("/core/events/a/{name}")).unwrap();
        queue.put(key("x"), Revision(1), at(10));
        queue.put(key("y"), Revision(2), at(20));
        queue.put(key("x"), Revision(3), at(30));
        assert_eq!(queue.next(), Some(at(20)));
        assert_eq!(queue.due(at(25)), [(key("y"), Revision(2))]);
        queue.put(key("z"), Revision(4), at(26));
        queue.remove(&key("z"));
        assert_eq!(queue.due(at(40)), [(key("x"), Revision(3))]);
        assert_eq!((queue.next(), queue.of.len()), (None, 0));
    }

    #[test]
    fn an_event_is_as_old_as_its_last_time() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        for (event, secs) in [
            (
                json!({"metadata": {"creationTimestamp": "2026-01-01T11:00:00Z"}}),
                3600,
            ),
            (
                json!({
                    "metadata": {"creationTimestamp": "2026-01-01T11:00:00Z"},
                    "lastTimestamp": "2026-01-01T11:59:00Z",
                }),
                60,
            ),
            (json!({"eventTime": "2026-01-01T11:59:30.000000Z"}), 30),
            (json!({"eventTime": "2027-01-01T00:00:00Z"}), 0),
            (json!({}), 0),
        ] {
            assert_eq!(age(&event, now), Duration::from_secs(secs), "{event}");
        }
    }
}
