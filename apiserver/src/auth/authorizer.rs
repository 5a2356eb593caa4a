//! Who may do what: the seam, and how several authorizers make one.

use super::action::Action;
use super::user::{MASTERS, User};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done; the reason is for the record.
    Allow(String),
    /// It may not be done, whatever others say; the reason may be empty.
    Deny(String),
    /// Nothing is known that allows it; the reason may be empty.
    NoOpinion(String),
}

/// Decides who may do what. Implementations answer from memory: this runs for every request.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides one action.
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision;
}

/// Asks each in turn; the first that has an opinion decides.
pub struct Union(Vec<Box<dyn Authorizer>>);

/// Members of [`MASTERS`] may do everything, also when no role could be read.
pub struct Masters;

// === impl Decision ===

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

// === impl Union ===

impl Union {
    /// One authorizer of several.
    pub fn new(all: Vec<Box<dyn Authorizer>>) -> Self {
        Self(all)
    }
}

impl Authorizer for Union {
    fn decide(&self, user: &User, action: &Action<'_>) -> Decision {
        let mut reasons: Vec<String> = Vec::new();
        for one in &self.0 {
            match one.decide(user, action) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

// === impl Masters ===

impl Authorizer for Masters {
    fn decide(&self, user: &User, _: &Action<'_>) -> Decision {
        match user.is_in(MASTERS) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Decision);

    impl Authorizer for Says {
        fn decide(&self, _: &User, _: &Action<'_>) -> Decision {
            self.0.clone()
        }
    }

    #[test]
    fn the_first_opinion_counts() {
        let decide = |all: &[Decision]| {
            let all = all
                .iter()
                .map(|one| Box::new(Says(one.clone())) as Box<dyn Authorizer>);
            let path = Action::Path {
                verb: "get",
                path: "/x",
            };
            Union::new(all.collect()).decide(&User::anonymous(), &path)
        };
        let [yes, no] = [Decision::Allow("a".into()), Decision::Deny("d".into())];
        let unsure = |why: &str| Decision::NoOpinion(why.into());
        assert_eq!(decide(&[unsure("x"), yes.clone(), no.clone()]), yes);
        assert_eq!(decide(&[no.clone(), yes]), no);
        assert_eq!(
            decide(&[unsure("x"), unsure(""), unsure("y")]),
            unsure("x\ny")
        );
    }
}
