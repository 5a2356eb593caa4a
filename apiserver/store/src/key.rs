//! Keys: where an entry stands in the store.
//!
//! A key is a path, `/{group}/{resource}/{namespace}/{name}`, so that all objects of one resource,
//! and all those of one namespace in it, are contiguous when keys are ordered by their bytes.
//! Objects outside namespaces have an empty namespace (`/core/nodes//n1`). What is no API object
//! (a claimed address, a claimed port) has its own two leading segments and no namespace:
//! `/claims/clusterip/10.96.0.7`.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use thiserror::Error;

/// The longest key, in bytes. A Kubernetes name has at most 253, a namespace 63.
pub const MAX_KEY_BYTES: usize = 1024;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadKey {
    /// It is not of the form `/group/resource/rest`.
    #[error(
        "{0:?} is no key: expected /group/resource/namespace/name, with no empty group, resource or name"
    )]
    Form(String),
    /// It is longer than [`MAX_KEY_BYTES`].
    #[error(
        "a key of {0} bytes is too long: at most {MAX_KEY_BYTES} are allowed; shorten the name"
    )]
    TooLong(usize),
}

/// A range of keys: all objects of one kind, `/{group}/{resource}/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<str>);

/// The place of one entry. Cloning is cheap; keys are ordered by their bytes.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
    /// How many leading bytes of `text` name the resource, both slashes included.
    resource_len: u16,
}

// === impl Resource ===

impl Resource {
    /// The resource `resource` of API group `group`; the core group's name is `core`.
    ///
    /// # Errors
    /// [`BadKey`] when either is empty, contains a slash, or both are too long.
    pub fn new(group: &str, resource: &str) -> Result<Self, BadKey> {
        let text = format!("/{group}/{resource}/");
        if [group, resource]
            .iter()
            .any(|part| part.is_empty() || part.contains('/'))
        {
            return Err(BadKey::Form(text));
        }
        if text.len() >= MAX_KEY_BYTES {
            return Err(BadKey::TooLong(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The resource that `key` belongs to.
    pub fn of(key: &Key) -> Self {
        Self(key.resource().into())
    }

    /// The prefix that all of its keys share, with the trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the object `name` in `namespace`, which is empty for what has none.
    ///
    /// # Errors
    /// [`BadKey`] when the name is empty, either contains a slash, or the key is too long.
    pub fn key(&self, namespace: &str, name: &str) -> Result<Key, BadKey> {
        let text = format!("{}{namespace}/{name}", self.0);
        if namespace.contains('/') || name.contains('/') {
            return Err(BadKey::Form(text));
        }
        Key::new(text)
    }
}

impl Borrow<str> for Resource {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Key ===

impl Key {
    /// The key that `text` spells.
    ///
    /// # Errors
    /// [`BadKey`] when it does not start with two non-empty segments followed by something, or is too long.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, BadKey> {
        let text = text.into();
        if text.len() > MAX_KEY_BYTES {
            return Err(BadKey::TooLong(text.len()));
        }
        let resource_len = resource_len(&text).ok_or_else(|| BadKey::Form(text.to_string()))?;
        Ok(Self { text, resource_len })
    }

    /// What sorts before every key.
    pub(crate) fn lowest() -> Self {
        Self {
            text: "".into(),
            resource_len: 0,
        }
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The prefix that names its resource: `/core/pods/`.
    pub fn resource(&self) -> &str {
        &self.text[..usize::from(self.resource_len)]
    }

    /// Its namespace, empty for what is outside namespaces.
    pub fn namespace(&self) -> &str {
        self.rest()
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// Its name within resource and namespace.
    pub fn name(&self) -> &str {
        let rest = self.rest();
        rest.split_once('/').map_or(rest, |(_, name)| name)
    }

    fn rest(&self) -> &str {
        &self.text[usize::from(self.resource_len)..]
    }
}

/// The length of `/group/resource/`, if something follows it.
fn resource_len(text: &str) -> Option<u16> {
    let (group, rest) = text.strip_prefix('/')?.split_once('/')?;
    let (resource, rest) = rest.split_once('/')?;
    if group.is_empty() || resource.is_empty() || rest.is_empty() || rest.ends_with('/') {
        return None;
    }
    u16::try_from(group.len() + resource.len() + 3).ok()
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_knows_its_parts() {
        for (text, resource, namespace, name) in [
            (
                "/core/pods/default/web-0",
                "/core/pods/",
                "default",
                "web-0",
            ),
            ("/core/nodes//n1", "/core/nodes/", "", "n1"),
            (
                "/claims/clusterip/10.96.0.7",
                "/claims/clusterip/",
                "",
                "10.96.0.7",
            ),
            (
                "/claims/clusterip/fd00:10:96::7",
                "/claims/clusterip/",
                "",
                "fd00:10:96::7",
            ),
        ] {
            let key = Key::new(text).unwrap();
            assert_eq!(
                (key.resource(), key.namespace(), key.name()),
                (resource, namespace, name)
            );
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "/",
            "pods",
            "/core",
            "/core/pods",
            "/core/pods/",
            "/core/pods/default/",
            "//pods//x",
            "/core//x/y",
        ] {
            assert_eq!(Key::new(text), Err(BadKey::Form(text.to_owned())), "{text}");
        }
        let long = format!("/core/pods/default/{}", "x".repeat(MAX_KEY_BYTES));
        assert_eq!(Key::new(long.as_str()), Err(BadKey::TooLong(long.len())));
        let pods = Resource::new("core", "pods").unwrap();
        assert!(pods.key("a/b", "c").is_err());
        assert!(pods.key("a", "b/c").is_err());
        assert!(Resource::new("core", "").is_err());
    }

    #[test]
    fn a_namespace_is_contiguous_although_names_extend_each_other() {
        let pods = Resource::new("core", "pods").unwrap();
        let mut keys: Vec<Key> = [("a", "y"), ("a-b", "x"), ("a", "x"), ("b", "x")]
            .map(|(ns, name)| pods.key(ns, name).unwrap())
            .into();
        keys.sort();
        let order: Vec<&str> = keys.iter().map(Key::namespace).collect();
        assert_eq!(order, ["a-b", "a", "a", "b"]);
    }
}
