//! Views of some resources that follow the store: what authorisation and the like read for every
//! request, instead of listing.
//!
//! A view costs nothing while nothing changes: a read compares two counters. When something has
//! changed, the first reader takes in the events before it reads. A write is acknowledged only
//! after its event was handed out, so that whoever was answered finds the write in every view:
//! who was granted something may do it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use peapod_store::{Entry, EventKind, Interest, Key, Resource as Range, Scope, Watch, WatchEnd};

use super::{Meta, Store};

/// What is made of the objects.
pub trait View: Send + Sync + 'static {
    /// Forgets everything.
    fn clear(&mut self);
    /// Takes in an object, new or changed.
    fn put(&mut self, entry: &Entry<Meta>);
    /// Forgets an object.
    fn remove(&mut self, key: &Key);
}

/// A view and what keeps it current.
pub struct Followed<V> {
    store: Store,
    ranges: Vec<Range>,
    view: RwLock<V>,
    watches: Mutex<Vec<Watch<Meta>>>,
    wakes: Arc<Wakes>,
    /// The count of wakes up to which the view is current.
    seen: AtomicU64,
}

/// Counts how often one of the watches had something new.
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

// === impl Followed ===

impl<V: View> Followed<V> {
    /// A view of the objects in some ranges; read from the store when it is first asked for.
    pub fn new(store: Store, ranges: Vec<Range>, view: V) -> Self {
        Self {
            store,
            ranges,
            view: RwLock::new(view),
            watches: Mutex::default(),
            wakes: Arc::new(Wakes(AtomicU64::new(1))),
            seen: AtomicU64::new(0),
        }
    }

    /// The view, with everything in it that was acknowledged before the call.
    pub fn read(&self) -> RwLockReadGuard<'_, V> {
        if !self.is_current() {
            self.catch_up();
        }
        self.view.read()
    }

    fn is_current(&self) -> bool {
        self.seen.load(Ordering::Acquire) == self.wakes.0.load(Ordering::Acquire)
    }

    fn catch_up(&self) {
        let mut watches = self.watches.lock();
        let woken = self.wakes.0.load(Ordering::Acquire);
        if self.seen.load(Ordering::Acquire) == woken {
            return;
        }
        let mut view = self.view.write();
        if watches.is_empty() || self.drain(&mut watches, &mut view).is_err() {
            *watches = self.restart(&mut view);
            // What happened since the snapshots. A watch that is so soon behind is read anew at
            // the next call.
            if self.drain(&mut watches, &mut view).is_err() {
                watches.clear();
            }
        }
        // Without watches nothing will wake this view: it is read anew each time.
        if !watches.is_empty() {
            self.seen.store(woken, Ordering::Release);
        }
    }

    /// Takes in what the watches have, and asks to be woken for more.
    fn drain(&self, watches: &mut [Watch<Meta>], view: &mut V) -> Result<(), WatchEnd> {
        let waker = Waker::from(self.wakes.clone());
        let mut context = Context::from_waker(&waker);
        for watch in watches {
            while let Poll::Ready(event) = watch.poll_event(&mut context) {
                let event = event?;
                match event.kind {
                    EventKind::Put => view.put(&event.entry),
                    EventKind::Delete => view.remove(&event.entry.key),
                }
            }
        }
        Ok(())
    }

    /// Reads everything, and returns the watches of what follows; none when the store has no
    /// more watches to give.
    fn restart(&self, view: &mut V) -> Vec<Watch<Meta>> {
        view.clear();
        let mut watches = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            let snapshot = self.store.snapshot(range);
            for entry in snapshot.range(Scope::All, None) {
                view.put(entry);
            }
            let interest = Interest::new(range.clone());
            watches.extend(self.store.watch(interest, snapshot.revision()).ok());
        }
        match watches.len() == self.ranges.len() {
            true => watches,
            false => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::storage::Describer;
    use peapod_store::{Compare, Draft, Limits, MemoryEngine, Txn};
    use std::collections::BTreeSet;

    #[derive(Default)]
    struct Names {
        names: BTreeSet<String>,
        cleared: usize,
    }

    impl View for Names {
        fn clear(&mut self) {
            self.names.clear();
            self.cleared += 1;
        }

        fn put(&mut self, entry: &Entry<Meta>) {
            self.names.insert(entry.key.name().to_owned());
        }

        fn remove(&mut self, key: &Key) {
            self.names.remove(key.name());
        }
    }

    async fn store() -> Store {
        let registry = Registry::builtin().unwrap();
        let describer = Arc::new(Describer::new(&registry));
        Store::open(Arc::new(MemoryEngine::new()), describer, Limits::default())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_read_sees_every_acknowledged_write() {
        let store = store().await;
        let range = Range::new("core", "configmaps").unwrap();
        let key = |name: &str| range.key("default", name).unwrap();
        let put = |name: &str| Txn::new().put(key(name), Compare::Any, Draft::plain("{}"));
        store.commit(put("before")).await.unwrap();
        let names = Followed::new(store.clone(), vec![range.clone()], Names::default());
        let read = || names.read().names.iter().cloned().collect::<Vec<_>>();
        assert_eq!(read(), ["before"]);
        for turn in 0..1000 {
            let name = format!("n{turn}");
            store.commit(put(&name)).await.unwrap();
            assert!(names.read().names.contains(&name));
            let gone = Txn::new().delete(key(&name), Compare::Any);
            store.commit(gone).await.unwrap();
            assert!(!names.read().names.contains(&name));
        }
        assert_eq!(names.read().cleared, 1, "events are enough");
        assert!(names.is_current());
    }

    #[tokio::test]
    async fn a_view_that_nobody_read_for_long_begins_anew() {
        let store = store().await;
        let range = Range::new("core", "configmaps").unwrap();
        let key = range.key("default", "x").unwrap();
        let names = Followed::new(store.clone(), vec![range.clone()], Names::default());
        assert!(names.read().names.is_empty());
        for _ in 0..1000 {
            let put = Txn::new().put(key.clone(), Compare::Any, Draft::plain("{}"));
            store.commit(put).await.unwrap();
        }
        store.compact(store.revision());
        assert!(names.read().names.contains("x"));
        assert_eq!(names.read().cleared, 2);
    }

    #[tokio::test]
    async fn a_closed_store_is_still_read() {
        let store = store().await;
        let range = Range::new("core", "configmaps").unwrap();
        let names = Followed::new(store.clone(), vec![range], Names::default());
        store.close().await;
        assert!(names.read().names.is_empty());
    }
}
