//! What a watch wants to see, and which events that is.

use crate::entry::{Describe, Entry, Event, IndexId, Meta};
use crate::key::Resource;

/// The part of a resource that is watched. Everything named must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interest {
    pub(crate) resource: Resource,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) index: Option<(IndexId, Box<str>)>,
}

impl Interest {
    /// All of `resource`.
    pub fn new(resource: Resource) -> Self {
        Self {
            resource,
            namespace: None,
            name: None,
            index: None,
        }
    }

    /// Only what is in `namespace` (empty: what is outside namespaces).
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.into()),
            ..self
        }
    }

    /// Only what is called `name`.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// Only what index `id` holds under `value`, before or after the event: an entry that moves out
    /// of the index is seen doing so.
    #[must_use]
    pub fn index(self, id: IndexId, value: &str) -> Self {
        Self {
            index: Some((id, value.into())),
            ..self
        }
    }

    /// Whether `event` is to be seen. The resource is known to be right.
    pub(crate) fn matches<M: Meta>(&self, event: &Event<M>, describe: &dyn Describe<M>) -> bool {
        let key = &event.entry.key;
        self.namespace
            .as_deref()
            .is_none_or(|namespace| key.namespace() == namespace)
            && self.name.as_deref().is_none_or(|name| key.name() == name)
            && self.index.as_ref().is_none_or(|(id, value)| {
                let indexed = |entry: &Entry<M>| {
                    describe
                        .indexes(&entry.meta)
                        .contains(&(*id, value.as_ref()))
                };
                indexed(&event.entry) || event.previous.as_deref().is_some_and(indexed)
            })
    }
}
