//! Impersonation: who acts as someone else, by headers, when permitted.
//!
//! Pure: from headers to a [`Wish`], from it to the permissions that it takes and the identity
//! that it gives.

use http::HeaderMap;
use percent_encoding::percent_decode_str;

use super::action::Access;
use super::tokens::GROUP as ACCOUNTS;
use super::user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
/// The group of what is no core resource.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Before the namespace and name of a service account.
const ACCOUNT: &str = "system:serviceaccount:";

/// Whom someone wants to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    user: String,
    uid: String,
    groups: Vec<String>,
    /// Each value with its key.
    extra: Vec<(String, String)>,
}

/// Why a wish cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// There is a group, a UID or more, and no user.
    #[error("requested impersonation without impersonating a user")]
    NoUser,
    /// A header is no text.
    #[error("the header {0} is not UTF-8")]
    NotText(String),
}

// === impl Wish ===

impl Wish {
    /// Reads the headers; `None` when they wish nothing.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, WishError> {
        let mut wish = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            if !name.starts_with("impersonate-") {
                continue;
            }
            let value = std::str::from_utf8(value.as_bytes())
                .map_err(|_| WishError::NotText(name.to_owned()))?
                .to_owned();
            match name {
                USER => wish.user = value,
                UID => wish.uid = value,
                GROUP => wish.groups.push(value),
                _ => {
                    if let Some(key) = name.strip_prefix(EXTRA) {
                        let key = percent_decode_str(key).decode_utf8_lossy();
                        wish.extra.push((key.into_owned(), value));
                    }
                }
            }
        }
        match (wish.user.is_empty(), wish == Self::default()) {
            (_, true) => Ok(None),
            (true, false) => Err(WishError::NoUser),
            (false, false) => Ok(Some(wish)),
        }
    }

    /// What one must be permitted to do for it.
    pub fn takes(&self) -> Vec<Access<'_>> {
        let on = |group, resource, name| Access {
            verb: "impersonate",
            group,
            version: "v1",
            resource,
            name,
            ..Access::default()
        };
        let mut all = vec![match self.account() {
            Some((namespace, name)) => Access {
                namespace,
                ..on("", "serviceaccounts", name)
            },
            None => on("", "users", &self.user),
        }];
        all.extend(self.groups.iter().map(|group| on("", "groups", group)));
        if !self.uid.is_empty() {
            all.push(on(AUTHENTICATION, "uids", &self.uid));
        }
        all.extend(self.extra.iter().map(|(key, value)| Access {
            subresource: key,
            ..on(AUTHENTICATION, "userextras", value)
        }));
        all
    }

    /// Who one then is.
    pub fn user(&self) -> User {
        let mut groups = self.groups.clone();
        if groups.is_empty()
            && let Some((namespace, _)) = self.account()
        {
            groups = vec![ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")];
        }
        let own = match self.user.as_str() {
            ANONYMOUS => UNAUTHENTICATED,
            _ => AUTHENTICATED,
        };
        let told = groups
            .iter()
            .any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if !told {
            groups.push(own.to_owned());
        }
        let mut extra: Vec<(String, Vec<String>)> = Vec::new();
        for (key, value) in &self.extra {
            match extra.iter_mut().find(|(known, _)| known == key) {
                Some((_, values)) => values.push(value.clone()),
                None => extra.push((key.clone(), vec![value.clone()])),
            }
        }
        User::exactly(&self.user, &self.uid, groups, extra)
    }

    /// Namespace and name, when the user is a service account.
    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self.user.strip_prefix(ACCOUNT)?.split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':'))
            .then_some((namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn wish(headers: &[(&str, &str)]) -> Result<Option<Wish>, WishError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        Wish::of(&map)
    }

    fn takes(wish: &Wish) -> Vec<String> {
        let all = wish.takes().into_iter();
        all.map(|a| {
            format!(
                "{}:{} {} {}",
                a.group,
                a.full_resource(),
                a.namespace,
                a.name
            )
        })
        .collect()
    }

    #[test]
    fn people() {
        let jane = wish(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "a"),
            ("Impersonate-Group", "b"),
            ("Impersonate-Uid", "u-1"),
            ("Impersonate-Extra-Acme.com%2Fproject", "x"),
            ("Impersonate-Extra-Acme.com%2Fproject", "y"),
        ]);
        let jane = jane.unwrap().unwrap();
        assert_eq!(
            takes(&jane),
            [
                ":users  jane",
                ":groups  a",
                ":groups  b",
                "authentication.k8s.io:uids  u-1",
                "authentication.k8s.io:userextras/acme.com/project  x",
                "authentication.k8s.io:userextras/acme.com/project  y",
            ]
        );
        let user = jane.user();
        assert_eq!((user.name(), user.uid()), ("jane", "u-1"));
        assert_eq!(user.groups(), ["a", "b", AUTHENTICATED]);
        let both = vec!["x".to_owned(), "y".to_owned()];
        assert_eq!(user.extra(), [("acme.com/project".to_owned(), both)]);
    }

    #[test]
    fn service_accounts_and_nobody() {
        let robot = wish(&[("Impersonate-User", "system:serviceaccount:ns:robot")]);
        let robot = robot.unwrap().unwrap();
        assert_eq!(takes(&robot), [":serviceaccounts ns robot"]);
        assert_eq!(
            robot.user().groups(),
            [
                "system:serviceaccounts",
                "system:serviceaccounts:ns",
                AUTHENTICATED
            ]
        );
        let nobody = wish(&[("Impersonate-User", ANONYMOUS)]).unwrap().unwrap();
        assert_eq!(nobody.user().groups(), [UNAUTHENTICATED]);
    }

    #[test]
    fn a_wish_needs_a_user() {
        assert_eq!(wish(&[("Accept", "x")]), Ok(None));
        assert_eq!(wish(&[("Impersonate-Group", "a")]), Err(WishError::NoUser));
    }
}
