//! Objects of watch events in forms that must be made, shared by all watches that show the same:
//! an event is rewritten once for each form, not once for each watcher.
//!
//! What is shared is the newest events only, within [`COUNT_MAX`] and [`BYTES_MAX`]: watchers get
//! an event at about the same time.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use peapod_store::{Key, Revision};

use super::newest::Newest;
use crate::registry::Resource;
use crate::rest::negotiate::Look;
use crate::status::Result;

/// How many objects are kept.
const COUNT_MAX: usize = 1024;
/// How many bytes they may take.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which bytes: those of an object at a revision, as a kind and a form show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The object.
    pub key: Key,
    /// When it was written.
    pub revision: Revision,
    /// What is shown of it, and how it is written.
    pub look: Look,
    /// The kind that shows it: several may show one object.
    shower: Shower,
}

/// A kind, which is the same as itself only.
#[derive(Clone)]
struct Shower(Arc<Resource>);

/// The bytes that are shared.
#[derive(Default)]
pub struct Shared {
    kept: Mutex<Kept>,
    /// Whole lines of the events that came last.
    pub newest: Newest,
}

#[derive(Debug, Default)]
struct Kept {
    found: HashMap<Name, Bytes>,
    /// The oldest first.
    order: VecDeque<Name>,
    bytes: usize,
}

// === impl Name ===

impl Name {
    /// Of an object in a form of a kind.
    pub fn of(resource: &Arc<Resource>, look: Look, key: &Key, revision: Revision) -> Self {
        Self {
            key: key.clone(),
            revision,
            look,
            shower: Shower(resource.clone()),
        }
    }
}

// === impl Shower ===

impl PartialEq for Shower {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Shower {}

impl Hash for Shower {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Shower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.kind.kind)
    }
}

// === impl Shared ===

impl Shared {
    /// The bytes of this name, made if nobody has made them. Two that ask at once may both make
    /// them.
    pub fn get(&self, name: Name, make: impl FnOnce() -> Result<Bytes>) -> Result<Bytes> {
        if let Some(bytes) = self.kept.lock().found.get(&name) {
            return Ok(bytes.clone());
        }
        let bytes = make()?;
        self.kept.lock().keep(name, bytes.clone());
        Ok(bytes)
    }
}

// === impl Kept ===

impl Kept {
    fn keep(&mut self, name: Name, bytes: Bytes) {
        let size = bytes.len();
        if size > BYTES_MAX || self.found.insert(name.clone(), bytes).is_some() {
            return;
        }
        self.bytes += size;
        self.order.push_back(name);
        while self.order.len() > COUNT_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            let gone = self.found.remove(&oldest).map_or(0, |bytes| bytes.len());
            self.bytes = self.bytes.saturating_sub(gone);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::rest::negotiate::Encoding;

    fn names() -> impl Fn(u64) -> Name {
        let registry = Registry::builtin().unwrap();
        let pods = registry.find("", "v1", "pods").unwrap();
        let key = Key::new("/core/pods/default/a").unwrap();
        let look = Look {
            encoding: Encoding::Protobuf,
            ..Look::default()
        };
        move |revision| Name::of(&pods, look, &key, Revision(revision))
    }

    #[test]
    fn what_was_made_is_not_made_again() {
        let (shared, name) = (Shared::default(), names());
        let made = shared.get(name(1), || Ok("a".into())).unwrap();
        let again = shared.get(name(1), || panic!("made twice")).unwrap();
        assert_eq!(made, again);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (shared, name) = (Shared::default(), names());
        for revision in 0..20 {
            let bytes = Bytes::from(vec![0; BYTES_MAX / 10]);
            shared.get(name(revision), || Ok(bytes)).unwrap();
        }
        let kept = shared.kept.lock();
        assert_eq!(kept.found.len(), kept.order.len());
        assert!(kept.bytes <= BYTES_MAX);
        assert!(kept.found.contains_key(&name(19)));
        assert!(!kept.found.contains_key(&name(0)));
    }
}
