//! Entries as the store serves them, and the events that tell of their changes.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::engine::Record;
use crate::key::Key;
use crate::revision::Revision;
use crate::txn::splice;

/// Names one of the indexes that a [`Describe`] keeps, among those of all resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexId(pub u16);

/// What a store can keep beside each value. Whatever can be cloned and shared is fit for it.
pub trait Meta: Clone + Send + Sync + 'static {}

impl<M: Clone + Send + Sync + 'static> Meta for M {}

/// What a user of the store reads out of a value once, so that nobody has to decode it again.
///
/// `M` is that metadata: labels, fields, owners. It must depend on key and value only.
pub trait Describe<M: Meta>: Send + Sync + 'static {
    /// Reads the metadata of a value. Called once for each event, when it is applied. A value that
    /// cannot be read gets empty metadata: the store serves what was written.
    fn describe(&self, key: &Key, value: &Bytes) -> M;

    /// Under which values of which indexes an entry is found. Each pair at most once.
    fn indexes<'m>(&self, meta: &'m M) -> Vec<(IndexId, &'m str)>;
}

/// A value in the store, shared by every list, snapshot and watch event that shows it.
#[derive(Debug, Clone)]
pub struct Entry<M> {
    /// Where it stands.
    pub key: Key,
    /// The finished value, with its revision in it.
    pub value: Bytes,
    /// The revision at which the key came to be.
    pub created: Revision,
    /// The revision that wrote the value; in the event of a deletion, that of the deletion.
    pub modified: Revision,
    /// What [`Describe`] read out of it.
    pub meta: M,
    revision_at: Option<u32>,
}

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or replaced; it is new if there is no [`Event::previous`].
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one entry. Events of one transaction share its revision.
#[derive(Debug)]
pub struct Event<M> {
    /// What happened.
    pub kind: EventKind,
    /// When, in the store's logical time.
    pub revision: Revision,
    /// When, by the engine's clock.
    pub time: SystemTime,
    /// The entry after a put. For a deletion, its last state carrying the revision of the deletion,
    /// as Kubernetes shows deleted objects.
    pub entry: Arc<Entry<M>>,
    /// The entry before, if there was one: whether a selector begins or ceases to match needs both.
    pub previous: Option<Arc<Entry<M>>>,
}

// === impl Entry ===

impl<M: Meta> Entry<M> {
    pub(crate) fn describe(record: &Record, describe: &dyn Describe<M>) -> Self {
        Self {
            meta: describe.describe(&record.key, &record.value),
            key: record.key.clone(),
            value: record.value.clone(),
            created: record.created,
            modified: record.modified,
            revision_at: record.revision_at,
        }
    }

    /// The value as it would read had it been written at `revision`: what is answered for an object
    /// that is deleted at `revision`.
    pub fn value_at(&self, revision: Revision) -> Bytes {
        let Some(at) = self.revision_at else {
            return self.value.clone();
        };
        let at = at as usize;
        let end = at + self.modified.to_string().len();
        match (self.value.get(..at), self.value.get(end..)) {
            (Some(head), Some(tail)) => splice(head, revision, tail),
            _ => self.value.clone(),
        }
    }

    /// The entry as an engine records it.
    pub fn record(&self) -> Record {
        Record {
            key: self.key.clone(),
            value: self.value.clone(),
            revision_at: self.revision_at,
            created: self.created,
            modified: self.modified,
        }
    }
}

impl<M: Meta> Entry<M> {
    /// Its last state, as the event of its deletion at `revision` shows it.
    pub(crate) fn deleted_at(&self, revision: Revision) -> Self {
        Self {
            value: self.value_at(revision),
            modified: revision,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &'static str, revision_at: Option<u32>) -> Entry<()> {
        Entry {
            key: Key::new("/core/pods/default/a").unwrap(),
            value: value.into(),
            created: Revision(3),
            modified: Revision(99),
            meta: (),
            revision_at,
        }
    }

    #[test]
    fn a_deleted_entry_carries_the_revision_of_its_deletion() {
        let deleted = entry(r#"{"rv":"99","x":1}"#, Some(7)).deleted_at(Revision(100));
        assert_eq!(deleted.value, r#"{"rv":"100","x":1}"#);
        assert_eq!(
            (deleted.created, deleted.modified),
            (Revision(3), Revision(100))
        );
        assert_eq!(deleted.value_at(Revision(7)), r#"{"rv":"7","x":1}"#);
    }

    #[test]
    fn a_value_without_revision_stays_as_it_is() {
        assert_eq!(entry("held", None).value_at(Revision(100)), "held");
        assert_eq!(entry("held", Some(4)).value_at(Revision(100)), "held");
    }
}
