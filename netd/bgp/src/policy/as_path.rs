//! Patterns for AS paths.
//!
//! A pattern describes the whole path, from the neighbour's AS (left) to the origin's (right).
//! Its elements are separated by blanks:
//!
//! | element | stands for |
//! | --- | --- |
//! | `65001` | this AS |
//! | `64512-65534` | any AS of the range, both ends included |
//! | `.` | any AS |
//! | `E*` `E+` `E?` | element `E` any number of times, at least once, at most once |
//! | `*` | short for `.*`: anything, also nothing |
//!
//! So `65001` is a path of that one AS, `65001 *` all that the neighbour 65001 sends, `* 65010`
//! all that originates there, `* 65020 *` all that passes there, `65001+` what only (and perhaps
//! repeatedly) has 65001 in it, and the empty pattern is the empty path (our own AS). The members
//! of an AS_SET are read one by one in the order in which they stand.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest pattern, in elements.
const MAX_ELEMENTS: usize = 64;

/// A pattern for AS paths; see the [module](self) for what it looks like. The default is that of
/// routes that originate here: the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AsPathPattern {
    text: String,
    elements: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Element {
    asns: RangeInclusive<u32>,
    optional: bool,
    repeated: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One of the elements is none of those in the table.
    #[error(
        "`{0}` is no element of an AS path pattern; use an AS number, a range like 64512-65534, \
         `.` or `*`"
    )]
    Element(String),
    /// The pattern is unreasonably long.
    #[error("an AS path pattern has at most {MAX_ELEMENTS} elements")]
    TooLong,
}

// === impl AsPathPattern ===

impl AsPathPattern {
    /// Whether the pattern describes the path, given as its ASes from left to right.
    pub fn matches(&self, path: impl IntoIterator<Item = u32>) -> bool {
        // Bit n: the first n elements describe what was read so far.
        let mut reached = self.skip_optional(1);
        for asn in path {
            let mut next = 0u128;
            for (at, element) in self.elements.iter().enumerate() {
                if !element.asns.contains(&asn) {
                    continue;
                }
                if reached & (1 << at) != 0 {
                    next |= 1 << (at + 1);
                }
                if element.repeated && reached & (1 << (at + 1)) != 0 {
                    next |= 1 << (at + 1);
                }
            }
            reached = self.skip_optional(next);
            if reached == 0 {
                return false;
            }
        }
        reached & (1 << self.elements.len()) != 0
    }

    fn skip_optional(&self, mut reached: u128) -> u128 {
        for (at, element) in self.elements.iter().enumerate() {
            if element.optional && reached & (1 << at) != 0 {
                reached |= 1 << (at + 1);
            }
        }
        reached
    }
}

impl FromStr for AsPathPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let elements = text
            .split_whitespace()
            .map(Element::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if elements.len() > MAX_ELEMENTS {
            return Err(Error::TooLong);
        }
        Ok(AsPathPattern {
            text: text.to_owned(),
            elements,
        })
    }
}

impl TryFrom<String> for AsPathPattern {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<AsPathPattern> for String {
    fn from(pattern: AsPathPattern) -> String {
        pattern.text
    }
}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl Element ===

impl Element {
    fn parse(text: &str) -> Result<Self, Error> {
        let (asns, optional, repeated) = match text.as_bytes().last() {
            _ if text == "*" => (".", true, true),
            Some(b'*') => (&text[..text.len() - 1], true, true),
            Some(b'+') => (&text[..text.len() - 1], false, true),
            Some(b'?') => (&text[..text.len() - 1], true, false),
            _ => (text, false, false),
        };
        let bad = || Error::Element(text.to_owned());
        let asns = match asns.split_once('-') {
            _ if asns == "." => 0..=u32::MAX,
            Some((from, to)) => {
                let from = from.parse().map_err(|_| bad())?;
                let to = to.parse().map_err(|_| bad())?;
                if from > to {
                    return Err(bad());
                }
                from..=to
            }
            None => {
                let asn = asns.parse().map_err(|_| bad())?;
                asn..=asn
            }
        };
        Ok(Element {
            asns,
            optional,
            repeated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_describe_whole_paths() {
        let cases: &[(&str, &[u32], bool)] = &[
            ("", &[], true),
            ("", &[1], false),
            ("65001", &[65001], true),
            ("65001", &[65001, 65001], false),
            ("65001+", &[65001, 65001], true),
            ("65001 *", &[65001], true),
            ("65001 *", &[65001, 7, 8], true),
            ("65001 *", &[7, 65001], false),
            ("* 65010", &[1, 2, 65010], true),
            ("* 65010", &[65010, 1], false),
            ("* 65020 *", &[1, 65020, 2], true),
            ("* 65020 *", &[1, 2], false),
            (". .", &[1, 2], true),
            (". .", &[1], false),
            (".? 5", &[5], true),
            ("64512-65534+", &[64512, 65000, 65534], true),
            ("64512-65534+", &[64512, 70000], false),
            ("* 1 * 2 *", &[9, 1, 1, 9, 2], true),
            ("* 1 * 2 *", &[9, 2, 1], false),
        ];
        for (pattern, path, expected) in cases {
            let parsed: AsPathPattern = pattern.parse().unwrap();
            assert_eq!(
                parsed.matches(path.iter().copied()),
                *expected,
                "{pattern:?} {path:?}"
            );
        }
    }

    #[test]
    fn what_is_no_element_is_named() {
        for bad in ["x", "1-", "5-4", "65001 ^", "4294967296"] {
            let error = bad.parse::<AsPathPattern>().unwrap_err();
            assert!(matches!(error, Error::Element(_)), "{bad}: {error}");
        }
        let long = "1 ".repeat(65);
        assert_eq!(long.parse::<AsPathPattern>(), Err(Error::TooLong));
    }
}
