//! Transactions: what a client asks the store to change, all or nothing.

use std::collections::HashSet;

use bytes::Bytes;
use thiserror::Error;

use crate::key::Key;
use crate::revision::Revision;

/// The largest value, in bytes. An API server refuses bigger requests already; this is the store's own bound.
pub const MAX_VALUE_BYTES: usize = 3 << 20;

/// The most bytes of keys and values in one transaction.
pub const MAX_TXN_BYTES: usize = 16 << 20;

/// The most operations of one transaction.
pub const MAX_OPS: usize = 1024;

/// An encoded value that does not know its revision yet, because the engine assigns it at commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    bytes: Bytes,
    revision_at: Option<u32>,
}

/// What must be true of a key for its transaction to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// Nothing stands there.
    Absent,
    /// What stands there was last modified at exactly this revision.
    At(Revision),
    /// Something stands there, whatever its revision.
    Present,
    /// Nothing is asked.
    Any,
}

/// What is done with a key once every comparison of the transaction holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The draft, with its revision filled in, becomes the value.
    Put(Draft),
    /// The entry goes. Deleting what is absent (under [`Compare::Any`]) changes nothing.
    Delete,
    /// Nothing: the operation is only its comparison.
    Check,
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// Which entry.
    pub key: Key,
    /// Under which condition.
    pub compare: Compare,
    /// What happens to it.
    pub action: Action,
}

/// Operations that happen together, at one revision, or not at all. A key occurs at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// The operations, in the order in which their events are seen.
    pub ops: Vec<Op>,
}

/// Why a transaction cannot be carried out, whatever the state of the store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTxn {
    /// A value is too large.
    #[error(
        "the value of {key} has {size} bytes: at most {MAX_VALUE_BYTES} are allowed; make the object smaller"
    )]
    ValueTooLarge {
        /// Whose value.
        key: Key,
        /// Its size in bytes.
        size: usize,
    },
    /// There are too many operations, or none.
    #[error("a transaction of {0} operations: 1 to {MAX_OPS} are allowed; split it")]
    Size(usize),
    /// All values together are too large.
    #[error("a transaction of {0} bytes: at most {MAX_TXN_BYTES} are allowed; split it")]
    TooLarge(usize),
    /// Two operations name the same key.
    #[error("the transaction names {0} twice")]
    KeyTwice(Key),
    /// The place for the revision is outside the value.
    #[error("the revision of {key} cannot go to offset {offset} of a value of {size} bytes")]
    RevisionPlace {
        /// Whose value.
        key: Key,
        /// Where the revision was to go.
        offset: u32,
        /// The value's size in bytes.
        size: usize,
    },
}

// === impl Draft ===

impl Draft {
    /// A value whose revision goes, in decimal, before the byte at offset `revision_at`.
    pub fn new(bytes: impl Into<Bytes>, revision_at: u32) -> Self {
        Self {
            bytes: bytes.into(),
            revision_at: Some(revision_at),
        }
    }

    /// A value that does not contain its revision.
    pub fn plain(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
            revision_at: None,
        }
    }

    /// The value without its revision.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where the revision goes, if anywhere.
    pub fn revision_at(&self) -> Option<u32> {
        self.revision_at
    }

    /// The value as it is at `revision`, in a buffer of exactly its size.
    pub fn finish(&self, revision: Revision) -> Bytes {
        match self.revision_at {
            None => self.bytes.clone(),
            Some(at) => {
                let at = (at as usize).min(self.bytes.len());
                splice(&self.bytes[..at], revision, &self.bytes[at..])
            }
        }
    }
}

/// `head`, the decimal revision, `tail`.
pub(crate) fn splice(head: &[u8], revision: Revision, tail: &[u8]) -> Bytes {
    let digits = revision.to_string();
    let mut value = Vec::with_capacity(head.len() + digits.len() + tail.len());
    value.extend_from_slice(head);
    value.extend_from_slice(digits.as_bytes());
    value.extend_from_slice(tail);
    value.into()
}

// === impl Txn ===

impl Txn {
    /// A transaction without operations, to be filled by the methods below.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `draft` at `key` if `compare` holds.
    #[must_use]
    pub fn put(self, key: Key, compare: Compare, draft: Draft) -> Self {
        self.op(key, compare, Action::Put(draft))
    }

    /// Deletes `key` if `compare` holds.
    #[must_use]
    pub fn delete(self, key: Key, compare: Compare) -> Self {
        self.op(key, compare, Action::Delete)
    }

    /// Lets the transaction happen only if `compare` holds for `key`, which is not changed.
    #[must_use]
    pub fn check(self, key: Key, compare: Compare) -> Self {
        self.op(key, compare, Action::Check)
    }

    fn op(mut self, key: Key, compare: Compare, action: Action) -> Self {
        self.ops.push(Op {
            key,
            compare,
            action,
        });
        self
    }

    /// How many bytes of keys and values it carries: what it costs a queue.
    pub fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    /// Whether it can be carried out at all. The store asks before it bothers an engine.
    ///
    /// # Errors
    /// [`BadTxn`] names the first limit that it exceeds.
    pub fn validate(&self) -> Result<(), BadTxn> {
        if self.ops.is_empty() || self.ops.len() > MAX_OPS {
            return Err(BadTxn::Size(self.ops.len()));
        }
        let bytes = self.bytes();
        if bytes > MAX_TXN_BYTES {
            return Err(BadTxn::TooLarge(bytes));
        }
        if let Some(key) = self.repeated_key() {
            return Err(BadTxn::KeyTwice(key.clone()));
        }
        self.ops.iter().try_for_each(Op::validate)
    }

    fn repeated_key(&self) -> Option<&Key> {
        if self.ops.len() == 1 {
            return None; // by far the most common, and worth no set
        }
        let mut seen = HashSet::with_capacity(self.ops.len());
        self.ops
            .iter()
            .map(|op| &op.key)
            .find(|key| !seen.insert(*key))
    }
}

impl Op {
    fn bytes(&self) -> usize {
        let value = if let Action::Put(draft) = &self.action {
            draft.bytes.len()
        } else {
            0
        };
        self.key.as_str().len() + value
    }

    fn validate(&self) -> Result<(), BadTxn> {
        let Action::Put(draft) = &self.action else {
            return Ok(());
        };
        let size = draft.bytes.len();
        if size > MAX_VALUE_BYTES {
            return Err(BadTxn::ValueTooLarge {
                key: self.key.clone(),
                size,
            });
        }
        match draft.revision_at {
            Some(offset) if offset as usize > size => Err(BadTxn::RevisionPlace {
                key: self.key.clone(),
                offset,
                size,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(format!("/core/pods/default/{name}")).unwrap()
    }

    #[test]
    fn a_draft_is_finished_by_its_revision() {
        let draft = Draft::new(r#"{"resourceVersion":""}"#, 20);
        assert_eq!(draft.finish(Revision(42)), r#"{"resourceVersion":"42"}"#);
        assert_eq!(
            Draft::plain("held by web").finish(Revision(42)),
            "held by web"
        );
    }

    #[test]
    fn what_exceeds_a_limit_is_refused_by_name() {
        let put = |draft| Txn::new().put(key("a"), Compare::Any, draft).validate();
        assert_eq!(Txn::new().validate(), Err(BadTxn::Size(0)));
        assert_eq!(put(Draft::plain(vec![0; MAX_VALUE_BYTES])), Ok(()));
        assert_eq!(
            put(Draft::plain(vec![0; MAX_VALUE_BYTES + 1])),
            Err(BadTxn::ValueTooLarge {
                key: key("a"),
                size: MAX_VALUE_BYTES + 1
            })
        );
        assert_eq!(
            put(Draft::new("{}", 3)),
            Err(BadTxn::RevisionPlace {
                key: key("a"),
                offset: 3,
                size: 2
            })
        );
        let twice = Txn::new()
            .check(key("a"), Compare::Any)
            .check(key("b"), Compare::Any)
            .delete(key("a"), Compare::Any);
        assert_eq!(twice.validate(), Err(BadTxn::KeyTwice(key("a"))));
        let many = (0..=MAX_OPS).fold(Txn::new(), |txn, i| {
            txn.check(key(&i.to_string()), Compare::Any)
        });
        assert_eq!(many.validate(), Err(BadTxn::Size(MAX_OPS + 1)));
    }
}
