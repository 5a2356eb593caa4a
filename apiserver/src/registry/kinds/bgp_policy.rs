//! What a policy of a `BgpPeer` may say.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use peapod_api::net::{
    BGP_STATEMENTS_MAX, BgpPrefixRule, is_as_path_pattern, is_community, is_community_pattern,
};

use crate::registry::{At, FieldErrors};

/// Most members of a list of a statement.
const MEMBERS_MAX: usize = 256;
const COMMUNITY: &str = "must be a community: 65000:100, 4200000000:1:2, rt:65000:1 or a name like \
                         no-export";
const PATTERN: &str = "must be a community, or one with * for any number: 65000:*, 65000:1:*";

/// Whether routes come in or go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the neighbour.
    Import,
    /// To it: the node's own routes, which have neither AS path nor communities yet.
    Export,
}

/// Numbers that an AS can have: the last one is reserved (RFC 7300).
pub const AS_NUMBERS: RangeInclusive<i64> = 1..=4_294_967_294;

/// Demands the number of an AS, if there is one.
pub fn as_number(number: &At<'_>, errors: &mut FieldErrors) {
    number.within(errors, AS_NUMBERS);
}

/// Checks a policy, if there is one.
pub fn policy(policy: &At<'_>, direction: Direction, errors: &mut FieldErrors) {
    if !policy.is_set() {
        return;
    }
    let statements = policy.at("statements");
    if statements.items().count() > BGP_STATEMENTS_MAX {
        statements.invalid(errors, format!("at most {BGP_STATEMENTS_MAX} statements"));
    }
    for statement in statements.items() {
        condition(&statement.at("match"), direction, errors);
        changes(&statement.at("set"), errors);
        let action = statement.at("action");
        if action.is_set() {
            action.one_of(errors, &["accept", "reject", "next"]);
        }
    }
    let default = policy.at("default");
    if default.is_set() {
        default.one_of(errors, &["accept", "reject"]);
    }
}

fn condition(condition: &At<'_>, direction: Direction, errors: &mut FieldErrors) {
    for rule in bounded(&condition.at("prefixes"), errors) {
        prefix_rule(&rule, errors);
    }
    let (tags, path) = (condition.at("communities"), condition.at("asPath"));
    if direction == Direction::Export {
        let none = "the node's own routes have none: match by prefixes";
        for field in [&tags, &path].into_iter().filter(|field| field.is_set()) {
            field.forbidden(errors, none);
        }
        return;
    }
    each(&tags, is_community_pattern, PATTERN, errors);
    if path.is_set() && !is_as_path_pattern(path.text()) {
        path.invalid(
            errors,
            "must be a pattern of AS numbers, ranges like 64512-65534, . and *, separated by blanks",
        );
    }
}

fn changes(set: &At<'_>, errors: &mut FieldErrors) {
    for number in ["localPref", "med"] {
        set.at(number).within(errors, 0..=i64::from(u32::MAX));
    }
    set.at("prepend").within(errors, 0..=64);
    communities(&set.at("addCommunities"), errors);
    each(
        &set.at("removeCommunities"),
        is_community_pattern,
        PATTERN,
        errors,
    );
}

/// Demands that each member of a list is a community.
pub fn communities(list: &At<'_>, errors: &mut FieldErrors) {
    each(list, is_community, COMMUNITY, errors);
}

fn each(list: &At<'_>, sound: fn(&str) -> bool, otherwise: &str, errors: &mut FieldErrors) {
    for one in bounded(list, errors) {
        if !sound(one.text()) {
            one.invalid(errors, otherwise);
        }
    }
}

fn bounded<'a>(list: &'a At<'a>, errors: &mut FieldErrors) -> Vec<At<'a>> {
    let members: Vec<At<'_>> = list.items().collect();
    if members.len() > MEMBERS_MAX {
        list.invalid(errors, format!("at most {MEMBERS_MAX} members"));
    }
    members
}

fn prefix_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    let prefix = rule.at("prefix");
    let parsed = prefix.text().parse::<IpNet>();
    let Ok(net) = parsed else {
        prefix.invalid(errors, "must be a prefix, as 10.0.0.0/8 or 2001:db8::/32");
        return;
    };
    if net.trunc() != net {
        prefix.invalid(errors, format!("has host bits; write {}", net.trunc()));
    }
    let length = |field: &str| rule.at(field).value().as_u64();
    if let Some(why) = BgpPrefixRule::fault(&net, length("ge"), length("le")) {
        rule.invalid(errors, why);
    }
}
