//! Whether someone's rules cover those that they want to grant: nobody gives what they do not
//! have.
//!
//! What is wanted is broken down into rules of one verb, one group, one resource and one name (or
//! one path); each of them must be covered by one of the owner's rules. So what several rules
//! allow only together covers nothing beyond each of them, exactly as upstream decides it.

use std::collections::BTreeMap;

use super::rule::{Rule, path_matches, resource_matches};

/// Most single permissions that a grant is broken down into. Beyond it the grant counts as not
/// covered: no role that people write comes near.
const BREAKDOWN_MAX: usize = 100_000;

/// The rules among `wanted`, broken down, that no rule of `owned` covers.
pub fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let pieces: usize = wanted.iter().map(size).sum();
    if pieces > BREAKDOWN_MAX {
        return wanted.to_vec();
    }
    let singles = wanted.iter().flat_map(break_down);
    singles
        .filter(|single| !owned.iter().any(|rule| covers(rule, single)))
        .collect()
}

/// Merges rules that differ only in their verbs.
pub fn compact(rules: &[Rule]) -> Vec<Rule> {
    let mut merged: BTreeMap<[&[String]; 4], Vec<String>> = BTreeMap::new();
    for rule in rules {
        let verbs = merged
            .entry([
                &rule.api_groups,
                &rule.resources,
                &rule.non_resource_urls,
                &rule.resource_names,
            ])
            .or_default();
        for verb in &rule.verbs {
            if !verbs.contains(verb) {
                verbs.push(verb.clone());
            }
        }
    }
    let whole = |([groups, resources, urls, names], verbs): ([&[String]; 4], _)| Rule {
        verbs,
        api_groups: groups.to_vec(),
        resources: resources.to_vec(),
        resource_names: names.to_vec(),
        non_resource_urls: urls.to_vec(),
    };
    merged.into_iter().map(whole).collect()
}

/// A rule as kube-apiserver shows it: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
pub fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, list)| !list.is_empty());
    let parts = parts.map(|(name, list)| format!("{name}:{}", quoted(list)));
    format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
}

/// A list of texts as Go's `%q` shows it: `["a" "b"]`.
pub fn quoted(list: &[String]) -> String {
    let all: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", all.join(" "))
}

fn size(rule: &Rule) -> usize {
    let of_resources = rule.api_groups.len() * rule.resources.len();
    let names = rule.resource_names.len().max(1);
    let each = of_resources.saturating_mul(names) + rule.non_resource_urls.len();
    each.saturating_mul(rule.verbs.len())
}

fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut singles = Vec::new();
    for verb in &rule.verbs {
        let single = Rule {
            verbs: vec![verb.clone()],
            ..Rule::default()
        };
        for url in &rule.non_resource_urls {
            singles.push(Rule {
                non_resource_urls: vec![url.clone()],
                ..single.clone()
            });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let on = Rule {
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..single.clone()
                };
                match rule.resource_names.as_slice() {
                    [] => singles.push(on),
                    names => singles.extend(names.iter().map(|name| Rule {
                        resource_names: vec![name.clone()],
                        ..on.clone()
                    })),
                }
            }
        }
    }
    singles
}

/// Whether a rule covers a rule of one permission.
fn covers(owned: &Rule, single: &Rule) -> bool {
    let verbs = has_all(&owned.verbs, &single.verbs);
    if !single.non_resource_urls.is_empty() {
        let path = |url: &String| owned.non_resource_urls.iter().any(|o| path_matches(o, url));
        return verbs && single.non_resource_urls.iter().all(path);
    }
    let names = match (
        owned.resource_names.as_slice(),
        single.resource_names.as_slice(),
    ) {
        ([], _) => true,
        (_, []) => false,
        (owned, wanted) => wanted.iter().all(|name| owned.contains(name)),
    };
    let resource = |wanted: &String| {
        let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
        owned
            .resources
            .iter()
            .any(|one| one == wanted || resource_matches(one, resource, subresource))
    };
    verbs
        && has_all(&owned.api_groups, &single.api_groups)
        && single.resources.iter().all(resource)
        && names
}

fn has_all(owned: &[String], wanted: &[String]) -> bool {
    owned.iter().any(|one| one == "*") || wanted.iter().all(|one| owned.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rules(value: Value) -> Vec<Rule> {
        serde_json::from_value(value).unwrap()
    }

    fn told(owned: Value, wanted: Value) -> Vec<String> {
        let missing = missing(&rules(owned), &rules(wanted));
        compact(&missing).iter().map(describe).collect()
    }

    #[test]
    fn what_is_missing_is_told() {
        let wanted = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]);
        let nothing: [&str; 0] = [];
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert_eq!(told(all.clone(), wanted.clone()), nothing);
        assert_eq!(
            told(
                json!([
                    {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
                    {"verbs": ["*"], "apiGroups": [""], "resources": ["*/log"]},
                ]),
                wanted.clone()
            ),
            [r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#]
        );
        assert_eq!(
            told(json!([]), wanted),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}"#,
                r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["get" "list"]}"#
            ]
        );
        assert_eq!(
            told(all, json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}])),
            [r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#]
        );
    }

    #[test]
    fn names_and_stars() {
        let named = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]}]);
        let all_names = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}]);
        let star = json!([{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]);
        assert!(told(all_names.clone(), named.clone()).is_empty());
        assert!(!told(named, all_names.clone()).is_empty());
        assert!(!told(all_names, star).is_empty());
        let urls = |url: &str| json!([{"verbs": ["get"], "nonResourceURLs": [url]}]);
        assert!(told(urls("/a/*"), urls("/a/b")).is_empty());
        assert!(told(urls("/a/*"), urls("/a/b*")).is_empty());
        assert!(!told(urls("/a/b"), urls("/a/*")).is_empty());
    }

    #[test]
    fn a_grant_without_end_is_refused_without_being_broken_down() {
        let many: Vec<String> = (0..400).map(|n| n.to_string()).collect();
        let wanted = json!([{"verbs": many, "apiGroups": many, "resources": ["x"]}]);
        let all = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
        assert_eq!(missing(&rules(all), &rules(wanted)).len(), 1);
    }
}
