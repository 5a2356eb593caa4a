//! Policy: which routes go in or out, and how they are changed on the way.
//!
//! A policy is a list of statements. Each names what it matches (everything that is given must
//! hold) and what to do with it. The first match that accepts or refuses decides; `next` changes
//! the route and goes on. All statements look at the route as it came. What none decides is
//! refused, as in the route maps of other routers, unless the policy's `default` says otherwise.
//!
//! [Deciding](Policy::decide) is apart from [changing](Policy::apply), because thousands of
//! prefixes share the attributes that are changed.

pub mod as_path;
pub mod community;
pub mod prefix_list;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use as_path::AsPathPattern;
pub use community::{Tag, TagPattern};
pub use prefix_list::PrefixRule;

use crate::types::PathAttributes;

/// Most statements of a policy.
pub const MAX_STATEMENTS: usize = 64;

/// An import or export policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// The statements, in order.
    #[serde(default)]
    pub statements: Vec<Statement>,
    /// What becomes of routes that no statement decides about.
    #[serde(default)]
    pub default: Action,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// Which routes; all when empty.
    #[serde(default, rename = "match")]
    pub condition: Condition,
    /// What to change.
    #[serde(default)]
    pub set: Changes,
    /// What to do with the route.
    #[serde(default = "Statement::default_action")]
    pub action: Action,
}

/// What to do with a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Take it.
    Accept,
    /// Refuse it.
    #[default]
    Reject,
    /// Go on with the next statement.
    Next,
}

/// Which routes a statement is about. Of each list one member must match; what is empty or absent
/// matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Condition {
    /// Prefixes.
    pub prefixes: Vec<PrefixRule>,
    /// Communities.
    pub communities: Vec<TagPattern>,
    /// The whole AS path.
    pub as_path: Option<AsPathPattern>,
}

/// What a statement changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Changes {
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities to take away, before any is added.
    pub remove_communities: Vec<TagPattern>,
    /// Communities to add.
    pub add_communities: Vec<Tag>,
    /// How often to put our AS before the path (in addition to the usual once).
    pub prepend: u8,
}

/// What a policy decided about a prefix with certain attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The statements that change the route, as bits.
    applied: u64,
    /// Whether the route goes through.
    pub accepted: bool,
}

impl Decision {
    /// Through, as it is.
    pub const ACCEPT: Decision = Decision {
        applied: 0,
        accepted: true,
    };
    /// Not through.
    pub const REJECT: Decision = Decision {
        applied: 0,
        accepted: false,
    };
}

// === impl Policy ===

impl Policy {
    /// What to do with a prefix that has these attributes.
    pub fn decide(&self, prefix: &IpNet, attributes: &PathAttributes) -> Decision {
        let mut applied = 0u64;
        for (at, statement) in self.statements.iter().enumerate().take(MAX_STATEMENTS) {
            if !statement.condition.matches(prefix, attributes) {
                continue;
            }
            match statement.action {
                Action::Reject => return Decision::REJECT,
                Action::Accept => {
                    return Decision {
                        applied: applied | 1 << at,
                        accepted: true,
                    };
                }
                Action::Next => applied |= 1 << at,
            }
        }
        match self.default {
            Action::Accept => Decision {
                applied,
                accepted: true,
            },
            Action::Reject | Action::Next => Decision::REJECT,
        }
    }

    /// Changes attributes as was decided; `asn` is what prepending prepends.
    pub fn apply(&self, decision: Decision, attributes: &mut PathAttributes, asn: u32) {
        for (at, statement) in self.statements.iter().enumerate().take(MAX_STATEMENTS) {
            if decision.applied & (1 << at) != 0 {
                statement.set.apply(attributes, asn);
            }
        }
    }

    /// Whether decisions depend on the prefix, and not on the attributes alone.
    pub fn looks_at_prefixes(&self) -> bool {
        self.statements
            .iter()
            .any(|statement| !statement.condition.prefixes.is_empty())
    }

    /// What is wrong with it, if anything: the place and the reason.
    pub fn fault(&self) -> Option<(String, String)> {
        if self.statements.len() > MAX_STATEMENTS {
            return Some(("statements".to_owned(), format!("at most {MAX_STATEMENTS}")));
        }
        let faults =
            self.statements
                .iter()
                .enumerate()
                .flat_map(|(at, statement)| {
                    statement.condition.prefixes.iter().enumerate().filter_map(
                        move |(nth, rule)| {
                            let place = format!("statements[{at}].match.prefixes[{nth}]");
                            rule.fault().map(|reason| (place, reason))
                        },
                    )
                });
        faults.into_iter().next()
    }
}

impl Statement {
    fn default_action() -> Action {
        Action::Accept
    }
}

// === impl Condition ===

impl Condition {
    fn matches(&self, prefix: &IpNet, attributes: &PathAttributes) -> bool {
        let any_prefix = || self.prefixes.iter().any(|rule| rule.matches(prefix));
        let any_tag = || self.communities.iter().any(|tag| tag.matches(attributes));
        (self.prefixes.is_empty() || any_prefix())
            && (self.communities.is_empty() || any_tag())
            && self
                .as_path
                .as_ref()
                .is_none_or(|path| path.matches(attributes.as_path.asns()))
    }
}

// === impl Changes ===

impl Changes {
    fn apply(&self, attributes: &mut PathAttributes, asn: u32) {
        attributes.local_pref = self.local_pref.or(attributes.local_pref);
        attributes.med = self.med.or(attributes.med);
        self.remove_communities
            .iter()
            .for_each(|tag| tag.remove(attributes));
        self.add_communities
            .iter()
            .for_each(|tag| tag.add(attributes));
        if self.prepend > 0 {
            attributes.as_path = attributes.as_path.prepended(asn, self.prepend.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        serde_json::from_str(json).unwrap()
    }

    fn route(path: &str, tags: &[&str]) -> PathAttributes {
        let mut attributes = PathAttributes {
            as_path: path.parse().unwrap(),
            ..PathAttributes::default()
        };
        tags.iter()
            .for_each(|tag| tag.parse::<Tag>().unwrap().add(&mut attributes));
        attributes
    }

    fn outcome(policy: &Policy, prefix: &str, before: &PathAttributes) -> Option<PathAttributes> {
        let decision = policy.decide(&prefix.parse().unwrap(), before);
        let mut after = before.clone();
        policy.apply(decision, &mut after, 65000);
        decision.accepted.then_some(after)
    }

    #[test]
    fn the_first_match_that_decides_decides() {
        let policy = policy(
            r#"{"statements": [
                {"match": {"prefixes": [{"prefix": "10.0.0.0/8", "ge": 25}]}, "action": "reject"},
                {"match": {"communities": ["65000:*"]}, "set": {"localPref": 200}, "action": "next"},
                {"match": {"asPath": "65001 *"}, "set": {"med": 5, "prepend": 2}}
            ]}"#,
        );
        assert!(outcome(&policy, "10.1.1.1/32", &route("65001", &[])).is_none());
        assert!(outcome(&policy, "10.1.0.0/16", &route("65002", &["65000:1"])).is_none());
        let got = outcome(&policy, "10.1.0.0/16", &route("65001 7", &["65000:1"])).unwrap();
        assert_eq!((got.local_pref, got.med), (Some(200), Some(5)));
        assert_eq!(got.as_path.to_string(), "65000 65000 65001 7");
    }

    #[test]
    fn an_unknown_field_is_named() {
        let error = serde_json::from_str::<Policy>(r#"{"statements": [{"when": {}}]}"#);
        assert!(error.unwrap_err().to_string().contains("when"));
    }
}
