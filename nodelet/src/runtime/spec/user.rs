//! Who runs a container's process: the pod's wish, the image's wish, and the image's
//! `/etc/passwd` and `/etc/group`.

use crate::runtime::{Error, Result, User};

/// User and groups as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User ID.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All other groups, in ascending order.
    pub additional_gids: Vec<u32>,
    /// Home directory, when the user is known.
    pub home: Option<String>,
}

/// The image's account files; empty when it has none.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// `/etc/passwd`
    pub passwd: String,
    /// `/etc/group`
    pub group: String,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

// === impl Accounts ===

impl Accounts {
    fn users(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or("");
            Some(Account {
                name,
                uid,
                gid,
                home,
            })
        })
    }

    /// Name, ID and members of each group.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let gid = fields.nth(1)?.parse().ok()?;
            Some((name, gid, fields.next().unwrap_or("")))
        })
    }
}

/// Resolves the user. `image_user` is the image's `User`: a name or number, with an optional
/// group after a colon.
pub fn resolve(wish: &User, image_user: &str, accounts: &Accounts) -> Result<ResolvedUser> {
    let (user_part, group_part) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (image_user, None),
    };
    let account = match wish.uid {
        Some(uid) => accounts.users().find(|account| account.uid == uid),
        None => find_user(user_part, accounts),
    };
    let uid = match (wish.uid, &account) {
        (Some(uid), _) => uid,
        (None, Some(account)) => account.uid,
        (None, None) => number_or_root(user_part).ok_or_else(|| unknown("user", user_part))?,
    };
    let gid = match (wish.gid, group_part) {
        (Some(gid), _) => gid,
        // The image's group belongs to the image's user.
        (None, Some(group)) if wish.uid.is_none() => find_group(group, accounts)?,
        (None, _) => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut additional_gids = wish.additional_gids.clone();
    if let (Some(account), false) = (&account, wish.strict_groups) {
        let member = |members: &str| members.split(',').any(|member| member == account.name);
        additional_gids.extend(
            accounts
                .groups()
                .filter(|(_, _, members)| member(members))
                .map(|(_, gid, _)| gid),
        );
    }
    additional_gids.sort_unstable();
    additional_gids.dedup();
    let home = account
        .map(|account| account.home.to_owned())
        .filter(|home| !home.is_empty());
    Ok(ResolvedUser {
        uid,
        gid,
        additional_gids,
        home,
    })
}

/// A name that looks like a number is a name if there is such a user.
fn find_user<'a>(text: &str, accounts: &'a Accounts) -> Option<Account<'a>> {
    let uid = number_or_root(text);
    accounts
        .users()
        .find(|account| account.name == text)
        .or_else(|| accounts.users().find(|account| Some(account.uid) == uid))
}

fn find_group(text: &str, accounts: &Accounts) -> Result<u32> {
    accounts
        .groups()
        .find(|(name, _, _)| *name == text)
        .map(|(_, gid, _)| gid)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| unknown("group", text))
}

fn number_or_root(text: &str) -> Option<u32> {
    if text.is_empty() {
        Some(0)
    } else {
        text.parse().ok()
    }
}

fn unknown(kind: &str, name: &str) -> Error {
    Error::Invalid(format!(
        "the image's {kind} {name:?} is not in its /etc/{}",
        match kind {
            "user" => "passwd",
            _ => "group",
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n\
                     app:x:1000:1001:App:/home/app:/bin/sh\n\
                     broken line\n\
                     www:x:33:33::/var/www:/bin/false\n"
                .into(),
            group: "root:x:0:\napp:x:1001:\nvideo:x:44:app,www\nlogs:x:50:app\nmail:x:8:mail\n"
                .into(),
        }
    }

    fn user(uid: u32, gid: u32, additional: &[u32], home: Option<&str>) -> ResolvedUser {
        let home = home.map(str::to_owned);
        ResolvedUser {
            uid,
            gid,
            additional_gids: additional.to_vec(),
            home,
        }
    }

    #[test]
    fn the_image_decides_when_the_pod_is_silent() {
        let pod = User::default();
        for (image, expected) in [
            ("", user(0, 0, &[], Some("/root"))),
            ("0", user(0, 0, &[], Some("/root"))),
            ("app", user(1000, 1001, &[44, 50], Some("/home/app"))),
            ("1000", user(1000, 1001, &[44, 50], Some("/home/app"))),
            ("app:video", user(1000, 44, &[44, 50], Some("/home/app"))),
            ("app:7", user(1000, 7, &[44, 50], Some("/home/app"))),
            ("app:", user(1000, 1001, &[44, 50], Some("/home/app"))),
            ("4711", user(4711, 0, &[], None)),
            ("4711:4712", user(4711, 4712, &[], None)),
        ] {
            assert_eq!(
                resolve(&pod, image, &accounts()).unwrap(),
                expected,
                "{image}"
            );
        }
        assert_eq!(
            resolve(&pod, "12:13", &Accounts::default()).unwrap(),
            user(12, 13, &[], None)
        );
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let uid = |uid| User {
            uid: Some(uid),
            ..User::default()
        };
        let at = |wish: &User| resolve(wish, "app:video", &accounts()).unwrap();
        assert_eq!(at(&uid(33)), user(33, 33, &[44], Some("/var/www")));
        assert_eq!(at(&uid(4711)), user(4711, 0, &[], None));
        let wish = User {
            gid: Some(9),
            additional_gids: vec![50, 5],
            ..uid(1000)
        };
        assert_eq!(at(&wish), user(1000, 9, &[5, 44, 50], Some("/home/app")));
        let strict = User {
            strict_groups: true,
            ..wish
        };
        assert_eq!(at(&strict).additional_gids, [5, 50]);
    }

    #[test]
    fn names_that_the_image_does_not_know_are_refused() {
        for image in ["ghost", "app:ghosts", "-1", "99999999999"] {
            let error = resolve(&User::default(), image, &accounts()).unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{image}");
        }
    }
}
