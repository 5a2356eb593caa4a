//! What is read out of each stored object, once: labels, selectable fields, owners. Selectors
//! and indexes work on it, so that lists and watches never decode an object again.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use peapod_store::{Describe, IndexId, Key};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::extract::{Fill, Wanted};
use super::messages::Slot;
use crate::registry::{Kind, Registry};

/// The index from an owner's UID to what it owns.
pub const OWNER_INDEX: IndexId = IndexId(0);

/// The index of an indexed field, by its slot.
pub fn field_index(slot: usize) -> IndexId {
    IndexId(1 + slot as u16)
}

/// What is known of an object without decoding it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `metadata.uid`
    pub uid: Box<str>,
    /// `metadata.labels`, in the order of the keys.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// UIDs of `metadata.ownerReferences`.
    pub owners: Box<[Box<str>]>,
    /// Values of the selectable fields, by slot; where a field is missing its zero value.
    pub fields: Box<[Box<str>]>,
    /// How many leading fields have an index.
    indexed: u8,
    /// The object's protobuf form, once it was asked for.
    pub(super) message: Slot,
}

/// Which slot a kind's selectable fields have: those with an index first.
#[derive(Clone, Debug, Default)]
pub struct FieldSlots(Vec<String>);

/// Reads [`Meta`] by the declarations of the kinds.
pub struct Describer {
    plans: HashMap<String, Plan>,
    /// That of custom kinds, which may come later: their metadata only.
    custom: Plan,
}

struct Plan {
    wanted: Wanted,
    /// What each slot has that an object does not fill.
    zeros: Box<[Box<str>]>,
    indexed: u8,
}

// === impl Meta ===

impl Meta {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self
            .labels
            .binary_search_by(|(name, _)| name.as_ref().cmp(key))
            .ok()?;
        Some(&self.labels[at].1)
    }
}

// === impl FieldSlots ===

impl FieldSlots {
    /// The slots of a kind.
    pub fn of(kind: &Kind) -> Self {
        let indexed = kind.indexed.iter();
        let others = match kind.stored_fields.is_empty() {
            true => kind.selectable.iter(),
            false => kind.stored_fields.iter(),
        };
        let others = others.filter(|path| !kind.indexed.contains(path));
        Self(indexed.chain(others).cloned().collect())
    }

    /// The slot of a path in what is stored.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.0.iter().position(|one| one == path)
    }
}

// === impl Describer ===

impl Describer {
    /// Reads by the kinds of a registry. Views of others' objects are read by the others' kinds.
    pub fn new(registry: &Registry) -> Self {
        let all = registry.all();
        let own = all
            .iter()
            .filter(|resource| resource.kind.stored_as.is_none());
        let plans = own.map(|resource| {
            let kind = &resource.kind;
            (super::range(kind).as_str().to_owned(), Plan::of(kind))
        });
        Self {
            plans: plans.collect(),
            custom: Plan {
                wanted: Wanted::default(),
                zeros: Box::default(),
                indexed: 0,
            },
        }
    }
}

impl Describe<Meta> for Describer {
    fn describe(&self, key: &Key, value: &Bytes) -> Meta {
        let plan = self.plans.get(key.resource()).unwrap_or(&self.custom);
        let mut meta = Meta {
            fields: plan.zeros.clone(),
            indexed: plan.indexed,
            ..Meta::default()
        };
        let mut decoder = serde_json::Deserializer::from_slice(value);
        let root = Root {
            plan,
            meta: &mut meta,
        };
        if let Err(fault) = root.deserialize(&mut decoder) {
            tracing::error!(%key, %fault, "a stored value is no object; it is served without labels and fields");
        }
        meta
    }

    fn indexes<'m>(&self, meta: &'m Meta) -> Vec<(IndexId, &'m str)> {
        let owners = meta.owners.iter().map(|uid| (OWNER_INDEX, uid.as_ref()));
        let fields = meta.fields.iter().take(usize::from(meta.indexed));
        let fields = fields
            .enumerate()
            .map(|(slot, value)| (field_index(slot), value.as_ref()));
        owners.chain(fields).collect()
    }
}

// === impl Plan ===

impl Plan {
    fn of(kind: &Kind) -> Self {
        let slots = FieldSlots::of(kind);
        let mut wanted = Wanted::default();
        for (slot, path) in slots.0.iter().enumerate() {
            wanted.add(path, slot);
        }
        let zero = |path: &String| {
            let declared = kind.zeros.iter().find(|(of, _)| of == path);
            declared.map_or("", |(_, value)| value).into()
        };
        Self {
            wanted,
            zeros: slots.0.iter().map(zero).collect(),
            indexed: u8::try_from(kind.indexed.len()).unwrap_or(u8::MAX),
        }
    }
}

/// Decodes the top level of an object: its metadata, and the wanted fields.
struct Root<'a> {
    plan: &'a Plan,
    meta: &'a mut Meta,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == "metadata" {
                self.meta.read(map.next_value()?);
                continue;
            }
            match self.plan.wanted.child(&key) {
                Some(wanted) => map.next_value_seed(Fill {
                    wanted,
                    slots: &mut self.meta.fields,
                })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    labels: Option<std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    owner_references: Vec<WireOwner<'a>>,
}

#[derive(Deserialize)]
struct WireOwner<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
}

impl Meta {
    fn read(&mut self, wire: WireMeta<'_>) {
        self.uid = wire.uid.into();
        let labels = wire.labels.into_iter().flatten();
        self.labels = labels.map(|(k, v)| (k.into(), v.into())).collect();
        let mut owners: Vec<Box<str>> = wire
            .owner_references
            .into_iter()
            .map(|owner| owner.uid.into())
            .collect();
        owners.sort_unstable();
        owners.dedup();
        self.owners = owners.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_fields_and_owners() {
        let registry = Registry::builtin().unwrap();
        let describer = Describer::new(&registry);
        let resource = registry.find("", "v1", "pods").unwrap();
        let pods = &resource.kind;
        let key = super::super::key(pods, "default", "a").unwrap();
        let value = br#"{"spec":{"nodeName":"n1","containers":[{"name":"c"}],"hostNetwork":true},
            "metadata":{"uid":"u1","labels":{"b":"2","a":"1"},"ownerReferences":[{"uid":"o1"},{"uid":"o1"}]},
            "status":{"phase":"Running"}}"#;
        let meta = describer.describe(&key, &Bytes::from_static(value));
        assert_eq!(&*meta.uid, "u1");
        assert_eq!((meta.label("a"), meta.label("c")), (Some("1"), None));
        let slots = FieldSlots::of(pods);
        let field = |path| meta.fields[slots.find(path).unwrap()].as_ref();
        assert_eq!(field("spec.nodeName"), "n1");
        assert_eq!(field("spec.hostNetwork"), "true");
        assert_eq!(field("status.phase"), "Running");
        assert_eq!(field("status.podIP"), "");
        assert_eq!(
            describer.indexes(&meta),
            [(OWNER_INDEX, "o1"), (field_index(0), "n1")]
        );
    }

    #[test]
    fn a_number_or_truth_value_that_is_not_written_is_zero() {
        let registry = Registry::builtin().unwrap();
        let describer = Describer::new(&registry);
        for (group, plural, path, zero) in [
            ("", "nodes", "spec.unschedulable", "false"),
            ("", "pods", "spec.hostNetwork", "false"),
            ("", "pods", "status.phase", ""),
            ("", "replicationcontrollers", "status.replicas", "0"),
            ("apps", "replicasets", "status.replicas", "0"),
            ("batch", "jobs", "status.succeeded", "0"),
        ] {
            let resource = registry.find(group, "v1", plural).unwrap();
            let key = super::super::key(&resource.kind, "default", "a").unwrap();
            let meta = describer.describe(&key, &Bytes::from_static(b"{}"));
            let slot = FieldSlots::of(&resource.kind).find(path).unwrap();
            assert_eq!(meta.fields[slot].as_ref(), zero, "{plural} {path}");
        }
    }

    #[test]
    fn what_is_no_object_has_no_meta() {
        let registry = Registry::builtin().unwrap();
        let describer = Describer::new(&registry);
        let resource = registry.find("", "v1", "pods").unwrap();
        let pods = &resource.kind;
        let key = super::super::key(pods, "default", "a").unwrap();
        let meta = describer.describe(&key, &Bytes::from_static(b"[1"));
        assert!(meta.uid.is_empty() && meta.labels.is_empty());
    }
}
