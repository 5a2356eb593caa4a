//! The store's content at one revision: immutable, ordered, shared.
//!
//! A world is a map of tables, one per resource, of persistent maps: cloning is O(1), and a changed
//! clone shares with the original all that did not change. So a reader holds no lock, and a list of
//! any length is of one moment.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::engine::{Change, Record, Write};
use crate::entry::{Describe, Entry, Event, EventKind, IndexId, Meta};
use crate::key::{Key, Resource};
use crate::revision::Revision;

/// Everything, as of one revision.
#[derive(Debug, Clone)]
pub(crate) struct World<M> {
    pub revision: Revision,
    tables: OrdMap<Resource, Table<M>>,
}

/// All entries of one resource.
#[derive(Debug)]
pub(crate) struct Table<M> {
    entries: OrdMap<Key, Arc<Entry<M>>>,
    index: OrdSet<IndexKey>,
}

/// One line of the index: that the entry at `key` is found under `value`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct IndexKey {
    id: IndexId,
    value: Arc<str>,
    key: Key,
}

/// Which part of a resource is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// All of it.
    All,
    /// What is in this namespace.
    Namespace(&'a str),
}

/// One resource as of one revision. Taking it is O(1); it never changes.
#[derive(Debug, Clone)]
pub struct Snapshot<M> {
    revision: Revision,
    resource: Resource,
    table: Table<M>,
}

// === impl World ===

impl<M> Default for World<M> {
    fn default() -> Self {
        Self {
            revision: Revision::ZERO,
            tables: OrdMap::new(),
        }
    }
}

impl<M: Meta> World<M> {
    /// What an engine has loaded, at no revision yet.
    pub fn of(base: &[Record], describe: &dyn Describe<M>) -> Self {
        let mut world = Self::default();
        base.iter().for_each(|record| world.load(record, describe));
        world
    }

    /// Every entry, by resource and key.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry<M>>> {
        self.tables
            .values()
            .flat_map(|table| table.entries.values())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tables.values().map(|table| table.entries.len()).sum()
    }

    pub fn snapshot(&self, resource: &Resource) -> Snapshot<M> {
        let table = self.tables.get(resource).cloned().unwrap_or_default();
        Snapshot {
            revision: self.revision,
            resource: resource.clone(),
            table,
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<Entry<M>>> {
        self.tables.get(key.resource())?.entries.get(key)
    }

    /// Takes in an entry from before all events.
    pub fn load(&mut self, record: &Record, describe: &dyn Describe<M>) {
        let entry = Arc::new(Entry::describe(record, describe));
        self.put(entry, describe);
    }

    /// Applies a change and tells what it came to. Changes must come in order.
    pub fn apply(&mut self, change: &Change, describe: &dyn Describe<M>) -> Vec<Arc<Event<M>>> {
        self.revision = self.revision.max(change.revision);
        let events = change.writes.iter().filter_map(|write| {
            let (kind, entry, previous) = match write {
                Write::Put(record) => {
                    let entry = Arc::new(Entry::describe(record, describe));
                    let previous = self.put(entry.clone(), describe);
                    (EventKind::Put, entry, previous)
                }
                Write::Delete(key) => {
                    let previous = self.remove(key, describe)?;
                    let entry = Arc::new(previous.deleted_at(change.revision));
                    (EventKind::Delete, entry, Some(previous))
                }
            };
            let (revision, time) = (change.revision, change.time);
            Some(Arc::new(Event {
                kind,
                revision,
                time,
                entry,
                previous,
            }))
        });
        events.collect()
    }

    fn put(&mut self, entry: Arc<Entry<M>>, describe: &dyn Describe<M>) -> Option<Arc<Entry<M>>> {
        let resource = entry.key.resource();
        if let Some(table) = self.tables.get_mut(resource) {
            return table.put(entry, describe);
        }
        let mut table = Table::default();
        let resource = Resource::of(&entry.key);
        table.put(entry, describe);
        self.tables.insert(resource, table);
        None
    }

    fn remove(&mut self, key: &Key, describe: &dyn Describe<M>) -> Option<Arc<Entry<M>>> {
        self.tables.get_mut(key.resource())?.remove(key, describe)
    }
}

// === impl Table ===

impl<M> Clone for Table<M> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            index: self.index.clone(),
        }
    }
}

impl<M> Default for Table<M> {
    fn default() -> Self {
        Self {
            entries: OrdMap::new(),
            index: OrdSet::new(),
        }
    }
}

impl<M: Meta> Table<M> {
    fn put(&mut self, entry: Arc<Entry<M>>, describe: &dyn Describe<M>) -> Option<Arc<Entry<M>>> {
        let previous = self.entries.insert(entry.key.clone(), entry.clone());
        let before = previous
            .as_ref()
            .map(|p| describe.indexes(&p.meta))
            .unwrap_or_default();
        let after = describe.indexes(&entry.meta);
        for &(id, value) in before.iter().filter(|line| !after.contains(line)) {
            self.index.remove(&IndexKey::new(id, value, &entry.key));
        }
        for &(id, value) in after.iter().filter(|line| !before.contains(line)) {
            self.index.insert(IndexKey::new(id, value, &entry.key));
        }
        previous
    }

    fn remove(&mut self, key: &Key, describe: &dyn Describe<M>) -> Option<Arc<Entry<M>>> {
        let previous = self.entries.remove(key)?;
        for (id, value) in describe.indexes(&previous.meta) {
            self.index.remove(&IndexKey::new(id, value, key));
        }
        Some(previous)
    }
}

impl IndexKey {
    fn new(id: IndexId, value: &str, key: &Key) -> Self {
        Self {
            id,
            value: value.into(),
            key: key.clone(),
        }
    }
}

// === impl Snapshot ===

impl<M> Snapshot<M> {
    /// The revision that it stands for: every change up to it, and none after, is in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Which resource it is of.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// How many entries `scope` has. O(1) for all, else O(n) over the namespace.
    pub fn count(&self, scope: Scope<'_>) -> usize {
        match scope {
            Scope::All => self.len(),
            Scope::Namespace(_) => self.range(scope, None).count(),
        }
    }

    /// The entry at `key`.
    pub fn get(&self, key: &Key) -> Option<&Arc<Entry<M>>> {
        self.table.entries.get(key)
    }

    /// The entries of `scope` in the order of their keys, those after `after` only if given:
    /// `after` is the last key of the page before, and need no longer exist.
    pub fn range(
        &self,
        scope: Scope<'_>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = &Arc<Entry<M>>> + use<'_, M> {
        let prefix = match scope {
            Scope::All => self.resource.as_str().to_owned(),
            Scope::Namespace(namespace) => format!("{}{namespace}/", self.resource),
        };
        let end = after_prefix(&prefix);
        let start = match after {
            Some(key) if key.as_str() > prefix.as_str() => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix.as_str()),
        };
        let beyond = after.is_some_and(|key| key.as_str() >= end.as_str());
        let range = (!beyond).then(|| {
            self.table
                .entries
                .range::<_, str>((start, Bound::Excluded(end.as_str())))
        });
        range.into_iter().flatten().map(|(_, entry)| entry)
    }

    /// The entries that index `id` holds under `value`, in the order of their keys.
    pub fn select(
        &self,
        id: IndexId,
        value: &str,
    ) -> impl Iterator<Item = &Arc<Entry<M>>> + use<'_, M> {
        let first = IndexKey {
            id,
            value: value.into(),
            key: Key::lowest(),
        };
        let wanted = first.value.clone();
        let lines = self.table.index.range::<_, IndexKey>(first..);
        lines
            .take_while(move |line| line.id == id && line.value == wanted)
            .filter_map(|line| self.table.entries.get(&line.key))
    }
}

impl<M: Meta> Snapshot<M> {
    /// Goes back to `revision` by undoing `events`, all that happened to the resource since, oldest
    /// first.
    pub(crate) fn undo(
        &mut self,
        revision: Revision,
        events: &[Arc<Event<M>>],
        describe: &dyn Describe<M>,
    ) {
        for event in events.iter().rev() {
            match &event.previous {
                Some(previous) => self.table.put(previous.clone(), describe),
                None => self.table.remove(&event.entry.key, describe),
            };
        }
        self.revision = revision;
    }
}

/// The first text after everything that begins with `prefix`, which ends with a slash.
fn after_prefix(prefix: &str) -> String {
    let stem = prefix.strip_suffix('/').unwrap_or(prefix);
    format!("{stem}0") // '0' follows '/'
}
