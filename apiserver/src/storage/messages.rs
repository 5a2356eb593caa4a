//! The protobuf form of stored objects, made when somebody first asks for it and kept beside the
//! JSON for as long as that version of the object is there: lists, gets and watches share it.
//!
//! What is kept is bounded by [`Messages`]; beyond it the form is made for each who asks.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use peapod_schema::protobuf::{self, ProtobufError};
use peapod_schema::{Schema, protobuf::Shown};

use super::Entry;

/// How many bytes of messages are kept: those of some 20,000 pods.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Makes messages, and counts what is kept of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    kept: Arc<AtomicUsize>,
}

/// The place for the message of one version of an object. It is no part of what the object is: a
/// copy, which may get another revision, begins without.
#[derive(Default)]
pub struct Slot(OnceLock<Box<Held>>);

/// A message that counts as long as it is there.
struct Held {
    message: Bytes,
    kept: Arc<AtomicUsize>,
}

// === impl Messages ===

impl Messages {
    /// The message of a stored object, without its envelope.
    pub fn of(&self, entry: &Entry, schema: &Schema) -> Result<Bytes, ProtobufError> {
        let slot = &entry.meta.message.0;
        if let Some(held) = slot.get() {
            return Ok(held.message.clone());
        }
        let message = Bytes::from(protobuf::message(&entry.value, schema, Shown::Object)?);
        if let Some(held) = self.hold(&message) {
            // Another thread was quicker with the same: then this one is let go.
            let _ = slot.set(held);
        }
        Ok(message)
    }

    /// Whether the message of an object is kept.
    pub fn keeps(entry: &Entry) -> bool {
        entry.meta.message.0.get().is_some()
    }

    fn hold(&self, message: &Bytes) -> Option<Box<Held>> {
        let size = message.len();
        let fits = |kept: usize| Some(kept + size).filter(|sum| *sum <= BYTES_MAX);
        let order = (Ordering::Relaxed, Ordering::Relaxed);
        let room = self.kept.fetch_update(order.0, order.1, fits);
        room.ok().map(|_| {
            Box::new(Held {
                message: message.clone(),
                kept: self.kept.clone(),
            })
        })
    }
}

// === impl Slot ===

impl Clone for Slot {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Slot {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Slot {}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "made" } else { "-" })
    }
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.message.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::storage::{Describer, Store};
    use peapod_store::{Compare, Draft, Limits, MemoryEngine, Resource as Range, Txn};

    async fn entry(text: &str) -> (Store, Entry, Schema) {
        let registry = Registry::builtin().unwrap();
        let describer = Arc::new(Describer::new(&registry));
        let store = Store::open(Arc::new(MemoryEngine::new()), describer, Limits::default());
        let store = store.await.unwrap();
        let maps = Range::new("core", "configmaps").unwrap();
        let key = maps.key("default", "a").unwrap();
        let json = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"k":"{text}"}}}}"#);
        let txn = Txn::new().put(key.clone(), Compare::Absent, Draft::plain(json));
        store.commit(txn).await.unwrap();
        let entry = store.get(&key).unwrap();
        let resource = registry.find("", "v1", "configmaps").unwrap();
        (store, entry, resource.schema.clone())
    }

    #[tokio::test]
    async fn a_message_is_made_once_and_counts_while_it_is_there() {
        let (_store, entry, schema) = entry("v").await;
        let messages = Messages::default();
        let first = messages.of(&entry, &schema).unwrap();
        let again = messages.of(&entry, &schema).unwrap();
        assert_eq!(first.as_ptr(), again.as_ptr());
        assert_eq!(messages.kept.load(Ordering::Relaxed), first.len());
        let copy = Arc::new((*entry).clone());
        assert!(!Messages::keeps(&copy));
        messages.of(&copy, &schema).unwrap();
        assert_eq!(messages.kept.load(Ordering::Relaxed), 2 * first.len());
        drop(copy);
        assert_eq!(messages.kept.load(Ordering::Relaxed), first.len());
    }

    #[tokio::test]
    async fn beyond_the_bound_nothing_is_kept() {
        let (_store, entry, schema) = entry("v").await;
        let messages = Messages::default();
        messages.kept.store(BYTES_MAX - 3, Ordering::Relaxed);
        let first = messages.of(&entry, &schema).unwrap();
        assert_eq!(first, messages.of(&entry, &schema).unwrap());
        assert!(entry.meta.message.0.get().is_none());
        assert_eq!(messages.kept.load(Ordering::Relaxed), BYTES_MAX - 3);
    }
}
