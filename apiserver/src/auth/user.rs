//! Who asks.

use std::sync::Arc;

/// The group of everyone who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of someone who proved nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// An identity. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User(Arc<Inner>);

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: Vec<(String, Vec<String>)>,
}

// === impl User ===

impl User {
    /// Someone who proved to be `name`; [`AUTHENTICATED`] is added to the groups.
    pub fn authenticated(name: &str, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::with(name, "", groups, Vec::new())
    }

    /// As [`Self::authenticated`], with a UID and further attributes.
    pub fn with(
        name: &str,
        uid: &str,
        groups: impl IntoIterator<Item = impl Into<String>>,
        extra: Vec<(String, Vec<String>)>,
    ) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self::exactly(name, uid, groups, extra)
    }

    /// Someone with these groups and no more: of whom an access review asks.
    pub fn exactly(
        name: &str,
        uid: &str,
        groups: Vec<String>,
        extra: Vec<(String, Vec<String>)>,
    ) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            uid: uid.to_owned(),
            groups,
            extra,
        }))
    }

    /// Someone who proved nothing.
    pub fn anonymous() -> Self {
        Self(Arc::new(Inner {
            name: ANONYMOUS.to_owned(),
            uid: String::new(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            extra: Vec::new(),
        }))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The UID; empty when there is none.
    pub fn uid(&self) -> &str {
        &self.0.uid
    }

    /// The groups.
    pub fn groups(&self) -> &[String] {
        &self.0.groups
    }

    /// Further attributes.
    pub fn extra(&self) -> &[(String, Vec<String>)] {
        &self.0.extra
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.0.groups.iter().any(|one| one == group)
    }

    /// `UserInfo` of the authentication API.
    pub fn to_value(&self) -> serde_json::Value {
        let mut info = serde_json::json!({
            "username": self.0.name,
            "groups": self.0.groups,
        });
        if !self.0.uid.is_empty() {
            info["uid"] = self.0.uid.as_str().into();
        }
        for (key, values) in &self.0.extra {
            info["extra"][key] = values.clone().into();
        }
        info
    }
}
