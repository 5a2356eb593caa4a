//! How objects lie in the store: their keys, their encoded bytes, what is read out of those bytes
//! for selectors and indexes, and views that follow them.

mod describe;
mod encode;
mod extract;
mod follow;
mod messages;

use std::sync::Arc;

use peapod_store::{Key, Resource as Range};

pub use describe::{Describer, FieldSlots, Meta, field_index};
pub use encode::draft;
pub use extract::field;
pub use follow::{Followed, View};
pub use messages::Messages;

use crate::registry::Kind;
use crate::status::{Result, Status};

/// The store, with what is read out of each object.
pub type Store = peapod_store::Store<Meta>;
/// An object in the store.
pub type Entry = Arc<peapod_store::Entry<Meta>>;
/// What happened to an object.
pub type Event = peapod_store::Event<Meta>;
/// A kind's objects at one revision.
pub type Snapshot = peapod_store::Snapshot<Meta>;

/// Where the objects of a kind lie.
pub fn range(kind: &Kind) -> Range {
    kind.range().clone()
}

/// Where an object lies.
pub fn key(kind: &Kind, namespace: &str, name: &str) -> Result<Key> {
    kind.range()
        .key(namespace, name)
        .map_err(|fault| Status::bad_request(fault.to_string()))
}
