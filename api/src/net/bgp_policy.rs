//! Import and export policies of a `BgpPeer`, in the words of `peapod router`'s file.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most statements of a policy.
pub const STATEMENTS_MAX: usize = 60;
/// Longest AS path pattern, in elements.
const AS_PATH_ELEMENTS_MAX: usize = 64;
/// Communities that have names.
const NAMED: [&str; 8] = [
    "graceful-shutdown",
    "llgr-stale",
    "no-llgr",
    "blackhole",
    "no-export",
    "no-advertise",
    "local-as",
    "no-peer",
];

/// Which routes go in, or out, and how they are changed on the way: as a route map of other routers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpPolicy {
    /// The statements, in order. All look at the route as it came; the first match that accepts or
    /// rejects decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statements: Vec<BgpStatement>,
    /// What becomes of routes that no statement decides about: `accept` or `reject`, which it is
    /// without it.
    #[serde(default)]
    pub default: BgpAction,
}

/// One statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatement {
    /// Which routes; all without it. Everything that is given must hold.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub condition: Option<BgpMatch>,
    /// What to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BgpSet>,
    /// `accept` (which it is without it), `reject`, or `next`: change it and go on.
    #[serde(default = "BgpStatement::default_action")]
    pub action: BgpAction,
}

/// What to do with a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BgpAction {
    /// Take it.
    Accept,
    /// Refuse it.
    #[default]
    Reject,
    /// Go on with the next statement.
    Next,
}

/// Which routes a statement is about. Of each list one member must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpMatch {
    /// Prefixes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<BgpPrefixRule>,
    /// Communities, as `65000:100`, `65000:*`, `4200000000:1:*`, `rt:65000:1`, `no-export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// The whole AS path, from the neighbour's AS to the origin's: `65001` this AS, `64512-65534` one
    /// of these, `.` any, `E*`, `E+`, `E?` as often, `*` anything. So `* 65010` is what originates
    /// in 65010, and `65001 *` all that comes through the neighbour 65001.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path: Option<String>,
}

/// One line of a prefix list. Without `ge` and `le` it is the prefix itself and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BgpPrefixRule {
    /// The prefix that contains what is meant.
    pub prefix: String,
    /// Shortest length that matches; without `le`, everything from it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ge: Option<u8>,
    /// Longest length that matches; without `ge`, everything from the prefix's own length to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub le: Option<u8>,
}

/// What a statement changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BgpSet {
    /// LOCAL_PREF: of several paths those with the highest are used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities to take away, before any is added; with `*` for any number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_communities: Vec<String>,
    /// Communities to add: `65000:100`, large ones as `4200000000:1:2`, `rt:65000:1`, `no-export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_communities: Vec<String>,
    /// How often to put the node's AS before the path, in addition to the usual once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepend: Option<u8>,
}

// === impl BgpStatement ===

impl BgpStatement {
    fn default_action() -> BgpAction {
        BgpAction::Accept
    }
}

// === impl BgpPrefixRule ===

impl BgpPrefixRule {
    /// What is wrong with the lengths, if anything.
    pub fn fault(prefix: &IpNet, ge: Option<u64>, le: Option<u64>) -> Option<String> {
        let (own, max) = (prefix.prefix_len().into(), prefix.max_prefix_len().into());
        let (from, to) = (ge.unwrap_or(own), le.unwrap_or(max));
        let sound = own <= from && from <= to && to <= max;
        (!sound).then(|| format!("lengths must be {own} <= ge <= le <= {max}"))
    }
}

/// Whether a text is a community: standard, large, extended or a name.
pub fn is_community(text: &str) -> bool {
    NAMED.contains(&text)
        || fits::<u16>(text, 2, false)
        || fits::<u32>(text, 3, false)
        || is_extended(text)
}

/// Whether a text is a community, or a standard or large one with `*` for any number.
pub fn is_community_pattern(text: &str) -> bool {
    match text.contains('*') {
        true => fits::<u16>(text, 2, true) || fits::<u32>(text, 3, true),
        false => is_community(text),
    }
}

/// Whether a text is so many numbers with colons between them.
fn fits<T: std::str::FromStr>(text: &str, count: usize, stars: bool) -> bool {
    let mut words = text.split(':');
    let all = words
        .by_ref()
        .take(count)
        .filter(|word| (stars && *word == "*") || is_number::<T>(word))
        .count();
    all == count && words.next().is_none()
}

/// `u16` and such read a plus sign too.
fn is_number<T: std::str::FromStr>(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit()) && word.parse::<T>().is_ok()
}

/// `rt:` or `soo:`, an AS or an IPv4 address, a number; or eight octets in hexadecimal.
fn is_extended(text: &str) -> bool {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.len() == 16 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let rest = text
        .strip_prefix("rt:")
        .or_else(|| text.strip_prefix("soo:"));
    let Some((administrator, value)) = rest.and_then(|rest| rest.split_once(':')) else {
        return false;
    };
    match is_number::<u16>(administrator) {
        true => is_number::<u32>(value),
        false => {
            let known = is_number::<u32>(administrator)
                || administrator.parse::<std::net::Ipv4Addr>().is_ok();
            known && is_number::<u16>(value)
        }
    }
}

/// Whether a text is a pattern for AS paths.
pub fn is_as_path_pattern(text: &str) -> bool {
    text.split_whitespace().count() <= AS_PATH_ELEMENTS_MAX
        && text.split_whitespace().all(is_path_element)
}

fn is_path_element(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let asns = text.strip_suffix(['*', '+', '?']).unwrap_or(text);
    match asns.split_once('-') {
        _ if asns == "." => true,
        Some((from, to)) => {
            let ends = from.parse::<u32>().ok().zip(to.parse::<u32>().ok());
            is_number::<u32>(from)
                && is_number::<u32>(to)
                && ends.is_some_and(|(from, to)| from <= to)
        }
        None => is_number::<u32>(asns),
    }
}

/// Texts that are, or are not, what policies speak of: a line is `KIND yes|no TEXT`, KIND one of
/// `community`, `pattern`, `as-path`. The speaker of the nodes is tested with them too, so that the
/// API lets nothing pass that it does not take.
pub const POLICY_WORDS: &str = include_str!("policy_words.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_policies() {
        for line in POLICY_WORDS.lines() {
            let mut words = line.splitn(3, ' ');
            let (kind, right) = (words.next(), words.next() == Some("yes"));
            let text = words.next().unwrap_or_default();
            let taken = match kind {
                Some("community") => is_community(text),
                Some("pattern") => is_community_pattern(text),
                _ => is_as_path_pattern(text),
            };
            assert_eq!(taken, right, "{line}");
        }
    }

    #[test]
    fn statements_are_the_router_s() {
        let text = r#"{"statements":[{"match":{"prefixes":[{"prefix":"10.0.0.0/8","ge":24}]},"set":{"localPref":200},"action":"accept"}],"default":"reject"}"#;
        let policy: BgpPolicy = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&policy).unwrap(), text);
        assert_eq!(BgpStatement::default_action(), BgpAction::Accept);
    }
}
