//! What a loop has written and its cache has not yet shown.
//!
//! A loop that counts (so many pods, so many ReplicaSets) must not count from a cache older
//! than its own writes, or it creates twice. resourceVersions are ordered, so after a creation
//! it is enough to wait until the watch has reached the revision of the answer. A deletion is
//! remembered by uid until the cache shows it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::common::Key;

/// After this an unseen write is taken as lost (the object went while the watch was broken).
const EXPIRES: Duration = Duration::from_secs(60);

struct Pending {
    revision: u64,
    deleted: HashSet<String>,
    until: Instant,
}

/// The writes of one loop on one kind, by the key of the owner.
#[derive(Default)]
pub struct Expectations(Mutex<HashMap<Key, Pending>>);

impl Expectations {
    fn note(&self, owner: &Key, now: Instant, change: impl FnOnce(&mut Pending)) {
        let mut all = self.0.lock();
        let pending = all.entry(owner.clone()).or_insert_with(|| Pending {
            revision: 0,
            deleted: HashSet::new(),
            until: now,
        });
        pending.until = now + EXPIRES;
        change(pending);
    }

    /// Notes that an object was written at a revision.
    pub fn written(&self, owner: &Key, revision: u64, now: Instant) {
        self.note(owner, now, |pending| {
            pending.revision = pending.revision.max(revision)
        });
    }

    /// Notes that the object with this uid was deleted.
    pub fn deleted(&self, owner: &Key, uid: &str, now: Instant) {
        self.note(owner, now, |pending| {
            pending.deleted.insert(uid.to_owned());
        });
    }

    /// How much longer the owner should wait; `None` when the cache shows all of its writes.
    /// `shown` is the cache's revision, `alive` says whether it still shows a uid undeleted.
    pub fn unmet(
        &self,
        owner: &Key,
        shown: u64,
        alive: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Option<Duration> {
        let mut all = self.0.lock();
        let pending = all.get_mut(owner)?;
        pending.deleted.retain(|uid| alive(uid));
        let left = pending.until.saturating_duration_since(now);
        let met = pending.revision <= shown && pending.deleted.is_empty();
        if met || left.is_zero() {
            all.remove(owner);
            return None;
        }
        Some(left)
    }

    /// Forgets an owner that is gone.
    pub fn forget(&self, owner: &Key) {
        self.0.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn met_expired_or_waiting() {
        let (expect, key, now) = (
            Expectations::default(),
            Key::new("ns", "rs"),
            Instant::now(),
        );
        assert_eq!(expect.unmet(&key, 0, |_| false, now), None);

        expect.written(&key, 7, now);
        assert_eq!(expect.unmet(&key, 6, |_| false, now), Some(EXPIRES));
        assert_eq!(expect.unmet(&key, 7, |_| false, now), None);

        expect.deleted(&key, "u1", now);
        assert_eq!(expect.unmet(&key, 7, |uid| uid == "u1", now), Some(EXPIRES));
        assert_eq!(expect.unmet(&key, 7, |_| false, now), None);

        expect.written(&key, 9, now);
        assert_eq!(expect.unmet(&key, 8, |_| false, now + EXPIRES), None);
    }
}
