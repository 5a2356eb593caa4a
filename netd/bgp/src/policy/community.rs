//! Communities as policies name them: any of the three kinds, and patterns with `*`.
//!
//! `65000:100` and `no-export` are standard ones, `4200000000:1:2` a large one, `rt:65000:1` an
//! extended one. In a pattern, `*` stands for any number: `65000:*`, `65000:1:*`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{Community, ExtCommunity, LargeCommunity, PathAttributes};

/// A community of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tag {
    /// RFC 1997.
    Standard(Community),
    /// RFC 8092.
    Large(LargeCommunity),
    /// RFC 4360.
    Extended(ExtCommunity),
}

/// Communities of any kind, by value or with `*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TagPattern {
    /// This one.
    Tag(Tag),
    /// All standard ones whose parts fit.
    Standard([Option<u16>; 2]),
    /// All large ones whose parts fit.
    Large([Option<u32>; 3]),
}

/// A text that is no community, or no pattern of such.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no community: write 65000:100, 4200000000:1:2, rt:65000:1 or a name like no-export"
)]
pub struct Error(String);

// === impl Tag ===

impl Tag {
    /// Whether a route has it.
    pub fn is_on(&self, attributes: &PathAttributes) -> bool {
        match self {
            Tag::Standard(tag) => attributes.communities.contains(tag),
            Tag::Large(tag) => attributes.large_communities.contains(tag),
            Tag::Extended(tag) => attributes.ext_communities.contains(tag),
        }
    }

    /// Gives it to a route.
    pub fn add(&self, attributes: &mut PathAttributes) {
        match self {
            Tag::Standard(tag) => insert(&mut attributes.communities, *tag),
            Tag::Large(tag) => insert(&mut attributes.large_communities, *tag),
            Tag::Extended(tag) => insert(&mut attributes.ext_communities, *tag),
        }
    }
}

/// Adds to a sorted list without duplicates.
pub(crate) fn insert<T: Ord + Copy>(list: &mut Vec<T>, tag: T) {
    list.push(tag);
    list.sort_unstable();
    list.dedup();
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let standard = text.parse().map(Tag::Standard).ok();
        standard
            .or_else(|| text.parse().map(Tag::Large).ok())
            .or_else(|| text.parse().map(Tag::Extended).ok())
            .ok_or_else(|| Error(text.to_owned()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Standard(tag) => tag.fmt(f),
            Tag::Large(tag) => tag.fmt(f),
            Tag::Extended(tag) => tag.fmt(f),
        }
    }
}

// === impl TagPattern ===

impl TagPattern {
    /// Whether a route has a community that fits.
    pub fn matches(&self, attributes: &PathAttributes) -> bool {
        match self {
            TagPattern::Tag(tag) => tag.is_on(attributes),
            TagPattern::Standard(parts) => attributes
                .communities
                .iter()
                .any(|tag| fits_standard(parts, *tag)),
            TagPattern::Large(parts) => attributes
                .large_communities
                .iter()
                .any(|tag| fits_large(parts, *tag)),
        }
    }

    /// Takes all that fit from a route.
    pub fn remove(&self, attributes: &mut PathAttributes) {
        match self {
            TagPattern::Tag(Tag::Standard(tag)) => attributes.communities.retain(|one| one != tag),
            TagPattern::Tag(Tag::Large(tag)) => {
                attributes.large_communities.retain(|one| one != tag);
            }
            TagPattern::Tag(Tag::Extended(tag)) => {
                attributes.ext_communities.retain(|one| one != tag);
            }
            TagPattern::Standard(parts) => {
                attributes
                    .communities
                    .retain(|tag| !fits_standard(parts, *tag));
            }
            TagPattern::Large(parts) => {
                attributes
                    .large_communities
                    .retain(|tag| !fits_large(parts, *tag));
            }
        }
    }
}

fn fits_standard(parts: &[Option<u16>; 2], tag: Community) -> bool {
    let halves = [(tag.0 >> 16) as u16, tag.0 as u16];
    parts
        .iter()
        .zip(halves)
        .all(|(part, half)| part.is_none_or(|part| part == half))
}

fn fits_large(parts: &[Option<u32>; 3], tag: LargeCommunity) -> bool {
    let thirds = [tag.global, tag.local1, tag.local2];
    parts
        .iter()
        .zip(thirds)
        .all(|(part, third)| part.is_none_or(|part| part == third))
}

fn parse_parts<T: FromStr + Copy, const N: usize>(text: &str) -> Option<[Option<T>; N]> {
    let mut parts = [None; N];
    let mut words = text.split(':');
    for part in &mut parts {
        *part = match words.next()? {
            "*" => None,
            word => Some(word.parse().ok()?),
        };
    }
    words.next().is_none().then_some(parts)
}

impl FromStr for TagPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if !text.contains('*') {
            return text.parse().map(TagPattern::Tag);
        }
        let standard = parse_parts(text).map(TagPattern::Standard);
        standard
            .or_else(|| parse_parts(text).map(TagPattern::Large))
            .ok_or_else(|| Error(text.to_owned()))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: Vec<Option<u32>>| {
            let words = parts
                .iter()
                .map(|part| part.map_or("*".to_owned(), |n| n.to_string()));
            words.collect::<Vec<_>>().join(":")
        };
        match self {
            TagPattern::Tag(tag) => tag.fmt(f),
            TagPattern::Standard(parts) => f.write_str(&join(
                parts.iter().map(|part| part.map(u32::from)).collect(),
            )),
            TagPattern::Large(parts) => f.write_str(&join(parts.to_vec())),
        }
    }
}

macro_rules! through_text {
    ($($name:ty),+) => {$(
        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )+};
}

through_text!(Tag, TagPattern);

#[cfg(test)]
mod tests {
    use super::*;

    fn tagged(tags: &[&str]) -> PathAttributes {
        let mut attributes = PathAttributes::default();
        tags.iter()
            .for_each(|tag| tag.parse::<Tag>().unwrap().add(&mut attributes));
        attributes
    }

    #[test]
    fn patterns_find_and_remove() {
        let route = tagged(&["65000:100", "no-export", "65000:1:2", "rt:65000:1"]);
        for pattern in [
            "65000:100",
            "65000:*",
            "*:100",
            "no-export",
            "65000:*:2",
            "rt:65000:1",
        ] {
            let parsed: TagPattern = pattern.parse().unwrap();
            assert!(parsed.matches(&route), "{pattern}");
            let mut less = route.clone();
            parsed.remove(&mut less);
            assert!(!parsed.matches(&less), "{pattern}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for pattern in [
            "65000:101",
            "65001:*",
            "65000:1:3",
            "rt:65000:2",
            "blackhole",
        ] {
            assert!(
                !pattern.parse::<TagPattern>().unwrap().matches(&route),
                "{pattern}"
            );
        }
        for bad in ["", "*", "65000", "70000:*", "1:2:3:*", "nonsense"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad}");
        }
    }
}
