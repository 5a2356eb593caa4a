//! Who may do what: the seam, and the rule that holds until there is RBAC.

use super::user::{AUTHENTICATED, User};
use crate::rest::target::{ResourceTarget, Verb};

/// What someone wants to do.
#[derive(Clone, Debug)]
pub enum Action<'a> {
    /// A verb on a resource.
    Resource(Verb, &'a ResourceTarget),
    /// A method, in lower case, on another path.
    Path(&'a str, &'a str),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done; the reason is for the record.
    Allow(String),
    /// It may not be done; the reason may be empty.
    Deny(String),
}

/// Decides who may do what. Implementations answer from memory: this runs for every request.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides one action.
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision;
}

/// Everyone who proved who they are may do everything; others may read what upstream shows to
/// all: health and version.
pub struct AllAuthenticated;

/// Paths that anyone may read.
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];

impl Authorizer for AllAuthenticated {
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision {
        if user.is_in(AUTHENTICATED) {
            return Decision::Allow(String::new());
        }
        match action {
            Action::Path("get" | "head", path) if is_public(path) => Decision::Allow(String::new()),
            _ => Decision::Deny(String::new()),
        }
    }
}

fn is_public(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    PUBLIC.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_reads_health_and_nothing_else() {
        let decide = |user: &User, path| AllAuthenticated.decide(user, &Action::Path("get", path));
        let nobody = User::anonymous();
        assert!(matches!(decide(&nobody, "/livez"), Decision::Allow(_)));
        for path in ["/metrics", "/api", "/livezz"] {
            assert!(matches!(decide(&nobody, path), Decision::Deny(_)), "{path}");
        }
        let somebody = User::authenticated("a", ["b"]);
        assert!(matches!(decide(&somebody, "/metrics"), Decision::Allow(_)));
    }
}
