//! The policies of a neighbour, as the speaker has them. Pure.
//!
//! The API and the speaker use the same words. What the node announces stays bounded here: whatever a
//! `BgpPeer` says, a neighbour is told of the node's own routes only.

use peapod_api::net::BgpPolicy;
use peapod_bgp::policy::{Action, AsPathPattern, Changes, Condition, Policy, Statement, Tag};

/// What is taken from a neighbour.
///
/// # Errors
/// What of it the speaker does not understand: the API should not have let it pass.
pub fn import(given: &BgpPolicy) -> Result<Policy, String> {
    let json = serde_json::to_value(given).map_err(|error| error.to_string())?;
    let policy: Policy = serde_json::from_value(json).map_err(|error| error.to_string())?;
    match policy.fault() {
        Some((place, why)) => Err(format!("{place}: {why}")),
        None => Ok(policy),
    }
}

/// What a neighbour is told: the node's own routes, all or as a policy says, with these communities.
///
/// What the node has learned from one leaf it does not tell another: it is nobody's way to anywhere
/// else. Routes of its own have no AS path yet.
///
/// # Errors
/// As for [`import`].
pub fn export(given: Option<&BgpPolicy>, communities: &[String]) -> Result<Policy, String> {
    let mut statements = Vec::new();
    if !communities.is_empty() {
        let tags = communities.iter().map(|text| text.parse::<Tag>());
        let tags = tags.collect::<Result<Vec<Tag>, _>>();
        let mut tagged = own(Statement::default());
        tagged.set = Changes {
            add_communities: tags.map_err(|error| error.to_string())?,
            ..Changes::default()
        };
        tagged.action = Action::Next;
        statements.push(tagged);
    }
    let given = given.map(import).transpose()?;
    let rest = given
        .as_ref()
        .map_or(Action::Accept, |policy| policy.default);
    let wanted = given.map(|policy| policy.statements).unwrap_or_default();
    statements.extend(wanted.into_iter().map(own));
    statements.push(own(Statement {
        action: rest,
        ..Statement::default()
    }));
    Ok(Policy {
        statements,
        default: Action::Reject,
    })
}

/// The statement, about the node's own routes only.
fn own(statement: Statement) -> Statement {
    Statement {
        condition: Condition {
            as_path: Some(AsPathPattern::default()),
            ..statement.condition
        },
        ..statement
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::{BGP_STATEMENTS_MAX, POLICY_WORDS};
    use peapod_bgp::policy::{MAX_STATEMENTS, TagPattern};
    use peapod_bgp::types::PathAttributes;
    use serde_json::json;

    fn given(json: serde_json::Value) -> BgpPolicy {
        serde_json::from_value(json).unwrap()
    }

    /// The communities with which a prefix goes out, if it does.
    fn told(policy: &Policy, prefix: &str, path: &str) -> Option<Vec<String>> {
        let mut attributes = PathAttributes {
            as_path: path.parse().unwrap(),
            ..PathAttributes::default()
        };
        let decision = policy.decide(&prefix.parse().unwrap(), &attributes);
        policy.apply(decision, &mut attributes, 65001);
        let standard = attributes.communities.iter().map(ToString::to_string);
        let large = attributes.large_communities.iter();
        let all = standard.chain(large.map(ToString::to_string)).collect();
        decision.accepted.then_some(all)
    }

    #[test]
    fn only_own_routes_go_out() {
        let open = given(json!({"default": "accept", "statements": [{"action": "next"}]}));
        for policy in [export(None, &[]), export(Some(&open), &[])] {
            let policy = policy.unwrap();
            assert_eq!(told(&policy, "10.0.0.0/24", ""), Some(vec![]));
            assert_eq!(told(&policy, "10.0.0.0/24", "65000"), None);
        }
    }

    #[test]
    fn what_goes_out_is_chosen_and_tagged() {
        let tags = ["65000:1".to_owned(), "4200000000:1:2".to_owned()];
        let services = given(json!({"statements": [
            {"match": {"prefixes": [{"prefix": "203.0.113.0/24", "le": 32}]},
             "set": {"addCommunities": ["65000:2"]}},
            {"match": {"prefixes": [{"prefix": "10.244.0.0/16", "le": 24}]}},
        ]}));
        let policy = export(Some(&services), &tags).unwrap();
        assert_eq!(
            told(&policy, "203.0.113.9/32", ""),
            Some(
                ["65000:1", "65000:2", "4200000000:1:2"]
                    .map(str::to_owned)
                    .into()
            )
        );
        assert_eq!(told(&policy, "10.244.1.0/24", ""), Some(tags.to_vec()));
        // As at the end of a route map.
        assert_eq!(told(&policy, "192.0.2.1/32", ""), None);
        assert_eq!(told(&policy, "203.0.113.9/32", "65000"), None);
    }

    #[test]
    fn the_speaker_takes_what_the_api_lets_pass() {
        for line in POLICY_WORDS.lines() {
            let mut words = line.splitn(3, ' ');
            let (kind, right) = (words.next(), words.next() == Some("yes"));
            let text = words.next().unwrap_or_default();
            let taken = match kind {
                Some("community") => text.parse::<Tag>().is_ok(),
                Some("pattern") => text.parse::<TagPattern>().is_ok(),
                _ => text.parse::<AsPathPattern>().is_ok(),
            };
            // It may take a little more, such as a plus sign.
            assert!(taken || !right, "{line}");
            assert!(!taken || right || text.contains('+'), "{line}");
        }
        // Room for the tags, and for the rest.
        const { assert!(BGP_STATEMENTS_MAX + 2 <= MAX_STATEMENTS) };
        let wrong = given(json!({"statements": [{"match": {"asPath": "x"}}]}));
        assert!(import(&wrong).unwrap_err().contains("`x`"));
    }
}
