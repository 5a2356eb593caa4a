//! The passwords of sessions, as the Secrets have them that `BgpPeer`s name. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use peapod_api::k8s_openapi;
use peapod_api::net::{BGP_SECRET_NAMESPACE, BgpPeerSecret};

/// Longest password that the kernel signs with, bytes.
const PASSWORD_MAX: usize = 80;

/// What is known of the Secrets that are followed, by name.
#[derive(Clone, Default)]
pub struct Secrets(BTreeMap<String, State>);

/// What is known of a Secret.
#[derive(Clone)]
enum State {
    /// Nothing yet.
    Unknown,
    /// A list is coming in that does not have it so far.
    Listing,
    /// There is none.
    Missing,
    /// It could not be read, and why.
    Unreadable(String),
    /// Its data.
    Read(BTreeMap<String, ByteString>),
}

// === impl Secrets ===

impl Secrets {
    /// Follows these and no others.
    pub fn follow(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
        for name in names {
            self.0.entry(name.clone()).or_insert(State::Unknown);
        }
    }

    /// Whether each of them was looked for.
    pub fn complete(&self) -> bool {
        let open = |state: &State| matches!(state, State::Unknown | State::Listing);
        !self.0.values().any(open)
    }

    /// What a watch of one of them says.
    pub fn take(&mut self, name: &str, said: Result<Event<Secret>, String>) {
        let Some(state) = self.0.get_mut(name) else {
            return;
        };
        match said {
            Ok(Event::Apply(secret) | Event::InitApply(secret)) if secret.name_any() == name => {
                *state = State::Read(secret.data.unwrap_or_default());
            }
            Ok(Event::Apply(_) | Event::InitApply(_)) => {}
            Ok(Event::Delete(secret)) if secret.name_any() != name => {}
            Ok(Event::Delete(_)) => *state = State::Missing,
            // What is known stays until the list says otherwise.
            Ok(Event::Init) if matches!(state, State::Read(_)) => {}
            Ok(Event::Init) => *state = State::Listing,
            Ok(Event::InitDone) if matches!(state, State::Read(_)) => {}
            Ok(Event::InitDone) => *state = State::Missing,
            // A watch that breaks makes nothing unknown.
            Err(_) if matches!(state, State::Read(_)) => {}
            Err(why) => *state = State::Unreadable(why),
        }
    }

    /// The password that a peer names.
    ///
    /// # Errors
    /// Why there is none: a sentence for people.
    pub fn password(&self, at: &BgpPeerSecret) -> Result<String, String> {
        let place = format!("Secret {BGP_SECRET_NAMESPACE}/{}", at.name);
        let data = match self.0.get(&at.name) {
            None | Some(State::Unknown | State::Listing) => {
                return Err(format!("{place} was not read yet"));
            }
            Some(State::Missing) => return Err(format!("{place} does not exist")),
            Some(State::Unreadable(why)) => return Err(format!("cannot read {place}: {why}")),
            Some(State::Read(data)) => data,
        };
        let Some(ByteString(bytes)) = data.get(&at.key) else {
            return Err(format!("{place} has no key {:?}", at.key));
        };
        let wrong = |why: &str| Err(format!("{place}, key {:?}, {why}", at.key));
        let Ok(text) = std::str::from_utf8(bytes) else {
            return wrong("is no text");
        };
        match text.len() {
            _ if text.contains(['\n', '\r', '\0']) => {
                wrong("has a line break, which no router takes: write it without")
            }
            1..=PASSWORD_MAX => Ok(text.to_owned()),
            length => wrong(&format!(
                "has {length} bytes; it must have 1 to {PASSWORD_MAX}"
            )),
        }
    }
}

/// Names only: what is in them is nobody's business.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(name: &str, data: serde_json::Value) -> Secret {
        let object = json!({"metadata": {"name": name}, "data": data});
        serde_json::from_value(object).unwrap()
    }

    fn following(name: &str) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.follow(&BTreeSet::from([name.to_owned()]));
        secrets
    }

    fn at(key: &str) -> BgpPeerSecret {
        serde_json::from_value(json!({"name": "bgp", "key": key})).unwrap()
    }

    #[test]
    fn what_is_known_follows_the_watch() {
        let mut secrets = following("bgp");
        assert!(!secrets.complete());
        secrets.take("bgp", Ok(Event::Init));
        assert!(!secrets.complete());
        secrets.take("bgp", Ok(Event::InitDone));
        assert!(secrets.complete());
        let missing = secrets.password(&at("password")).unwrap_err();
        assert_eq!(missing, "Secret kube-system/bgp does not exist");
        // c2VjcmV0: `secret`.
        let first = secret("bgp", json!({"password": "c2VjcmV0"}));
        secrets.take("bgp", Ok(Event::Apply(first)));
        assert_eq!(secrets.password(&at("password")).unwrap(), "secret");
        // The watch breaks, and goes on with a list.
        secrets.take("bgp", Err("gone".to_owned()));
        secrets.take("bgp", Ok(Event::Init));
        assert!(secrets.complete());
        assert!(secrets.password(&at("password")).is_ok());
        let other = secret("other", json!({"password": "b3RoZXI="}));
        secrets.take("bgp", Ok(Event::Apply(other)));
        assert_eq!(secrets.password(&at("password")).unwrap(), "secret");
        let gone = secret("bgp", json!({}));
        secrets.take("bgp", Ok(Event::Delete(gone)));
        assert!(secrets.password(&at("password")).is_err());
    }

    #[test]
    fn what_is_no_password_is_named() {
        let mut secrets = following("bgp");
        let data = json!({"empty": "", "line": "YQo=", "raw": "/w==",
            "long": "YWFh".repeat(27)});
        secrets.take("bgp", Ok(Event::InitApply(secret("bgp", data))));
        for (key, expected) in [
            ("none", "has no key \"none\""),
            ("empty", "has 0 bytes"),
            ("line", "line break"),
            ("raw", "is no text"),
            ("long", "has 81 bytes"),
        ] {
            let error = secrets.password(&at(key)).unwrap_err();
            assert!(error.contains(expected), "{key}: {error}");
        }
        let mut forbidden = following("bgp");
        forbidden.take("bgp", Err("forbidden".to_owned()));
        assert!(forbidden.complete());
        let error = forbidden.password(&at("password")).unwrap_err();
        assert_eq!(error, "cannot read Secret kube-system/bgp: forbidden");
        // Nothing of them is printed.
        assert_eq!(format!("{secrets:?}"), "{\"bgp\"}");
    }
}
