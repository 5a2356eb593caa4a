//! The definitions as they are, and the kinds that they are served as: each is decoded, and its
//! schema and rules compiled, once for each of its versions in the store.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use peapod_store::{Key, Revision, Scope};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{GROUP, PLURAL, serve};
use crate::api::Api;
use crate::registry::{Resource, value};
use crate::storage;

/// What was decoded and compiled.
#[derive(Default)]
pub struct Present {
    decoded: HashMap<Key, (Revision, Arc<Value>)>,
    /// By edition.
    served: HashMap<String, Vec<Arc<Resource>>>,
    /// What ends the watches, by what must stay for them to go on.
    watched: HashMap<String, CancellationToken>,
}

// === impl Present ===

impl Present {
    /// All definitions, oldest first: who came first keeps its names.
    pub fn read(&mut self, api: &Api) -> Vec<Arc<Value>> {
        let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
            return Vec::new();
        };
        let snapshot = api.store.snapshot(&storage::range(&kind.kind));
        let mut known = HashMap::new();
        for entry in snapshot.range(Scope::All, None) {
            let before = self.decoded.remove(&entry.key);
            let same = before.filter(|(revision, _)| *revision == entry.modified);
            let decoded = || serde_json::from_slice(&entry.value).ok().map(Arc::new);
            if let Some(definition) = same.map(|(_, decoded)| decoded).or_else(decoded) {
                known.insert(entry.key.clone(), (entry.modified, definition));
            }
        }
        self.decoded = known;
        let mut all: Vec<Arc<Value>> = self.decoded.values().map(|(_, one)| one.clone()).collect();
        all.sort_by_cached_key(|one| {
            let text = |path| value::text(one, path).to_owned();
            (text("metadata.creationTimestamp"), text("metadata.name"))
        });
        all
    }

    /// Makes these what is served.
    pub fn serve(&mut self, api: &Arc<Api>, definitions: &[Arc<Value>]) {
        let mut served = HashMap::new();
        let mut shapes = HashSet::new();
        for definition in definitions {
            let (edition, shape) = (edition(definition), shape(definition));
            let withdrawn = self.watched.entry(shape.clone()).or_default();
            let before = self.served.remove(&edition);
            let resources = before.unwrap_or_else(|| {
                serve::resources(definition, &edition, withdrawn, &Arc::downgrade(api))
            });
            served.insert(edition, resources);
            shapes.insert(shape);
        }
        self.served = served;
        let mut resources: Vec<Arc<Resource>> = self.served.values().flatten().cloned().collect();
        // Groups by name; versions within a group as clients prefer them.
        resources.sort_by_cached_key(|resource| {
            let kind = &resource.kind;
            (
                kind.group.clone(),
                Reverse(serve::priority(&kind.version)),
                kind.plural.clone(),
            )
        });
        api.registry.set_custom(resources);
        // Only now: who is told to watch anew finds what is served from here on.
        self.watched.retain(|shape, withdrawn| {
            let stays = shapes.contains(shape);
            if !stays {
                withdrawn.cancel();
            }
            stays
        });
    }
}

/// What ends the watches of a definition's objects when it changes. Its deletion is no such
/// change: watches tell of the objects that go with it, and end when it is gone itself.
fn shape(definition: &Value) -> String {
    format!(
        "{}-{}-{}-{}",
        value::text(definition, "metadata.uid"),
        value::integer(definition, "metadata.generation").unwrap_or(0),
        super::is_true(definition, "Established"),
        definition["status"]["acceptedNames"],
    )
}

/// What changes when what is served of a definition does.
fn edition(definition: &Value) -> String {
    let number = |path| value::integer(definition, path).unwrap_or(0);
    format!(
        "{}-{}-{}-{}-{}-{}",
        value::text(definition, "metadata.uid"),
        number("metadata.generation"),
        super::is_true(definition, "Established"),
        value::at(definition, "metadata.deletionTimestamp").is_some(),
        definition["status"]["storedVersions"],
        definition["status"]["acceptedNames"],
    )
}
