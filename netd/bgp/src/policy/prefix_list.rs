//! Prefix lists: which prefixes, and how much longer than the one written (`ge`, `le`).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// One line of a prefix list. Without `ge` and `le` it is the prefix itself and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixRule {
    /// The prefix that contains what is meant.
    pub prefix: IpNet,
    /// Shortest length that matches; without `le`, everything from it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ge: Option<u8>,
    /// Longest length that matches; without `ge`, everything from the prefix's own length to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub le: Option<u8>,
}

impl PrefixRule {
    /// A rule for exactly one prefix.
    pub fn exact(prefix: IpNet) -> Self {
        PrefixRule {
            prefix,
            ge: None,
            le: None,
        }
    }

    /// Whether a prefix is meant by this rule.
    pub fn matches(&self, prefix: &IpNet) -> bool {
        let own = self.prefix.prefix_len();
        let (shortest, longest) = match (self.ge, self.le) {
            (None, None) => (own, own),
            (Some(ge), None) => (ge, self.prefix.max_prefix_len()),
            (None, Some(le)) => (own, le),
            (Some(ge), Some(le)) => (ge, le),
        };
        (shortest..=longest).contains(&prefix.prefix_len()) && self.prefix.contains(prefix)
    }

    /// What is wrong with the rule's lengths, if anything.
    pub fn fault(&self) -> Option<String> {
        let own = self.prefix.prefix_len();
        let max = self.prefix.max_prefix_len();
        let ge = self.ge.unwrap_or(own);
        let le = self.le.unwrap_or(max);
        (ge < own || le > max || ge > le).then(|| {
            format!(
                "{}: lengths must be {own} <= ge <= le <= {max}",
                self.prefix
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_bound_what_matches() {
        let rule = |ge, le| PrefixRule {
            prefix: "10.0.0.0/8".parse().unwrap(),
            ge,
            le,
        };
        let cases = [
            (rule(None, None), "10.0.0.0/8", true),
            (rule(None, None), "10.1.0.0/16", false),
            (rule(Some(16), None), "10.1.0.0/16", true),
            (rule(Some(16), None), "10.1.1.1/32", true),
            (rule(Some(16), None), "10.0.0.0/8", false),
            (rule(None, Some(24)), "10.1.1.0/24", true),
            (rule(None, Some(24)), "10.1.1.1/32", false),
            (rule(Some(16), Some(16)), "10.1.0.0/16", true),
            (rule(None, Some(24)), "11.1.1.0/24", false),
            (rule(None, Some(32)), "fd00::/64", false),
        ];
        for (rule, prefix, expected) in cases {
            assert_eq!(
                rule.matches(&prefix.parse().unwrap()),
                expected,
                "{rule:?} {prefix}"
            );
        }
    }

    #[test]
    fn impossible_lengths_are_faults() {
        let rule = |ge, le| PrefixRule {
            prefix: "10.0.0.0/8".parse().unwrap(),
            ge,
            le,
        };
        assert!(rule(Some(4), None).fault().is_some());
        assert!(rule(None, Some(33)).fault().is_some());
        assert!(rule(Some(24), Some(16)).fault().is_some());
        assert_eq!(rule(Some(16), Some(24)).fault(), None);
    }
}
