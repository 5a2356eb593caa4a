//! Sets of fields, as a tree that is one to one with `fieldsV1`.
//!
//! An [`Element`] is a step of a path in its `fieldsV1` spelling: `f:name` for a field, `k:{...}`
//! for an item known by its keys, `v:...` for an item that is its own key, `i:0` for one that has
//! none. A [`FieldSet`] says of the place it stands for whether that place is a member, and holds
//! what is below it. A leaf of the tree is always a member, or it would not be there.

use std::fmt::Write;

use serde_json::{Map as JsonMap, Value};

use super::children::Children;

/// A step of a path, as `fieldsV1` spells it.
pub(crate) type Element = String;

/// How deep a set read from a client may nest.
const DEPTH_MAX: usize = 64;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the place itself is a member.
    pub(crate) own: bool,
    /// What is below.
    pub(crate) children: Children,
}

impl FieldSet {
    /// The set without members.
    pub const EMPTY: Self = Self {
        own: false,
        children: Children::EMPTY,
    };

    /// The set of these dotted paths of fields: `["status", "metadata.labels"]`.
    pub fn of(paths: &[&str]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut at = &mut set;
            for name in path.split('.') {
                at = at.children.get_or_insert(format!("f:{name}"));
            }
            at.own = true;
        }
        set
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    /// Puts what is below one step, unless it is empty.
    pub(crate) fn attach(&mut self, element: Element, below: Self) {
        if !below.is_empty() {
            self.children.insert(element, below);
        }
    }

    /// The members of either.
    pub fn union(mut self, other: Self) -> Self {
        self.own |= other.own;
        self.children = self.children.merge(other.children, Self::union);
        self
    }

    /// The members of both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self {
            own: self.own && other.own,
            children: Children::EMPTY,
        };
        for (element, mine) in self.children.iter() {
            if let Some(theirs) = other.children.get(element) {
                out.attach(element.clone(), mine.intersection(theirs));
            }
        }
        out
    }

    /// The members that the other has not. What is below a member of the other stays.
    pub fn difference(mut self, other: &Self) -> Self {
        self.subtract(other);
        self
    }

    fn subtract(&mut self, other: &Self) {
        self.own &= !other.own;
        self.children.retain(|element, mine| {
            if let Some(theirs) = other.children.get(element) {
                mine.subtract(theirs);
            }
            !mine.is_empty()
        });
    }

    /// The members that neither are in the other nor stand below a member of it.
    pub fn without(mut self, other: &Self) -> Self {
        self.cut(other);
        self
    }

    fn cut(&mut self, other: &Self) {
        if other.own {
            *self = Self::EMPTY;
            return;
        }
        self.children.retain(|element, mine| {
            if let Some(theirs) = other.children.get(element) {
                mine.cut(theirs);
            }
            !mine.is_empty()
        });
    }

    /// The members as messages spell them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect_paths(&mut String::new(), &mut out);
        out
    }

    fn collect_paths(&self, path: &mut String, out: &mut Vec<String>) {
        if self.own {
            out.push(path.clone());
        }
        for (element, below) in self.children.iter() {
            let length = path.len();
            path.push_str(&spelled(element));
            below.collect_paths(path, out);
            path.truncate(length);
        }
    }

    /// Reads `fieldsV1`. What it cannot read is left out.
    pub fn from_fields_v1(fields: &Value) -> Self {
        Self::read(fields, 0)
    }

    fn read(fields: &Value, depth: usize) -> Self {
        let Some(entries) = fields.as_object().filter(|_| depth < DEPTH_MAX) else {
            return Self::default();
        };
        let mut set = Self {
            own: depth > 0 && (entries.is_empty() || entries.contains_key(".")),
            children: Children::with_capacity(entries.len()),
        };
        for (element, below) in entries {
            if element.as_bytes().get(1) == Some(&b':') {
                set.attach(element.clone(), Self::read(below, depth + 1));
            }
        }
        set
    }

    /// Writes `fieldsV1`.
    pub fn into_fields_v1(self) -> Value {
        let nothing = || Value::Object(JsonMap::new());
        let children = self.children.into_iter();
        let mut out: JsonMap<String, Value> = children
            .map(|(element, below)| (element, below.into_fields_v1()))
            .collect();
        if self.own && !out.is_empty() {
            out.insert(".".to_owned(), nothing());
        }
        Value::Object(out)
    }
}

/// An element as messages spell it.
pub(crate) fn spelled(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("i:", index)) => format!("[{index}]"),
        Some(("k:", keys)) => {
            let keys: JsonMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let mut out = "[".to_owned();
            for (position, (key, value)) in keys.iter().enumerate() {
                let comma = if position == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(out, "{comma}{key}={value}");
            }
            out + "]"
        }
        _ => element.to_owned(),
    }
}
