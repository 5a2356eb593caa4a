//! AS paths: the autonomous systems that a route came through (RFC 4271 §5.1.2, RFC 6793).

use std::fmt;
use std::str::FromStr;

use super::codes::serde_as_text;

/// Stands for an AS number that does not fit two octets, towards a peer that has only those.
pub const AS_TRANS: u32 = 23456;

/// One segment of an AS path. Confederation segments (RFC 5065) have no place here: towards a
/// speaker that is in no confederation they are malformed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// AS numbers in the order of travel, nearest first.
    Sequence(Vec<u32>),
    /// AS numbers of an aggregate, in no order; counts as one hop.
    Set(Vec<u32>),
}

impl Segment {
    /// The AS numbers in it.
    pub fn asns(&self) -> &[u32] {
        match self {
            Segment::Sequence(asns) | Segment::Set(asns) => asns,
        }
    }

    fn hops(&self) -> usize {
        match self {
            Segment::Sequence(asns) => asns.len(),
            Segment::Set(asns) => usize::from(!asns.is_empty()),
        }
    }
}

/// The autonomous systems that a route came through, nearest first. Empty for a route of one's
/// own AS. Its text is that of router command lines: `65001 65002 {65010,65011}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AsPath {
    segments: Vec<Segment>,
}

impl AsPath {
    /// A path of one sequence; empty if `asns` is.
    pub fn sequence(asns: impl Into<Vec<u32>>) -> AsPath {
        AsPath::from_segments(vec![Segment::Sequence(asns.into())])
    }

    /// A path of segments. Empty segments are dropped and neighbouring sequences joined, so that
    /// equal paths compare equal however their sender cut them.
    pub fn from_segments(segments: Vec<Segment>) -> AsPath {
        if let [Segment::Sequence(asns)] = &*segments
            && !asns.is_empty()
        {
            return AsPath { segments };
        }
        let mut path: Vec<Segment> = Vec::with_capacity(segments.len());
        for segment in segments {
            match (path.last_mut(), segment) {
                (_, segment) if segment.asns().is_empty() => {}
                (Some(Segment::Sequence(before)), Segment::Sequence(asns)) => before.extend(asns),
                (_, segment) => path.push(segment),
            }
        }
        AsPath { segments: path }
    }

    /// Its segments, nearest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether there is no AS in it.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Its length in hops as path selection counts: a set is one (RFC 4271 §9.1.2.2 a).
    pub fn hops(&self) -> usize {
        self.segments.iter().map(Segment::hops).sum()
    }

    /// Every AS number in it, in order, those of sets too.
    pub fn asns(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments
            .iter()
            .flat_map(|segment| segment.asns().iter().copied())
    }

    /// How often an AS number is in it.
    pub fn count(&self, asn: u32) -> usize {
        self.asns().filter(|&one| one == asn).count()
    }

    /// Whether an AS number is in it.
    pub fn contains(&self, asn: u32) -> bool {
        self.asns().any(|one| one == asn)
    }

    /// The AS that the route was received from: the nearest one, unless that is in a set.
    pub fn first(&self) -> Option<u32> {
        match self.segments.first()? {
            Segment::Sequence(asns) => asns.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// The AS that originated the route: the farthest one, unless that is in a set.
    pub fn origin(&self) -> Option<u32> {
        match self.segments.last()? {
            Segment::Sequence(asns) => asns.last().copied(),
            Segment::Set(_) => None,
        }
    }

    /// The path with `asn` put before it `times` times.
    #[must_use]
    pub fn prepended(&self, asn: u32, times: usize) -> AsPath {
        let mut segments = vec![Segment::Sequence(vec![asn; times])];
        segments.extend(self.segments.iter().cloned());
        AsPath::from_segments(segments)
    }

    /// The path with every `from` replaced by `to` (as-override).
    #[must_use]
    pub fn replaced(&self, from: u32, to: u32) -> AsPath {
        let mut path = self.clone();
        for segment in &mut path.segments {
            let (Segment::Sequence(asns) | Segment::Set(asns)) = segment;
            asns.iter_mut()
                .filter(|asn| **asn == from)
                .for_each(|asn| *asn = to);
        }
        path
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            let (open, between, close) = match segment {
                Segment::Sequence(_) => ("", " ", ""),
                Segment::Set(_) => ("{", ",", "}"),
            };
            f.write_str(if index > 0 { " " } else { "" })?;
            f.write_str(open)?;
            for (index, asn) in segment.asns().iter().enumerate() {
                f.write_str(if index > 0 { between } else { "" })?;
                asn.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

/// A text that is no AS path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an AS path: write AS numbers with spaces between, sets as {{1,2}}")]
pub struct ParseAsPathError(String);

impl FromStr for AsPath {
    type Err = ParseAsPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseAsPathError(text.to_string());
        let segments = text.split_whitespace().map(|word| {
            match word.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
                None => word
                    .parse()
                    .map(|asn| Segment::Sequence(vec![asn]))
                    .map_err(|_| wrong()),
                Some(None) => Err(wrong()),
                Some(Some(set)) => set
                    .split(',')
                    .map(|asn| asn.parse().map_err(|_| wrong()))
                    .collect::<Result<_, _>>()
                    .map(Segment::Set),
            }
        });
        Ok(AsPath::from_segments(segments.collect::<Result<_, _>>()?))
    }
}

serde_as_text!(AsPath);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> AsPath {
        text.parse().unwrap()
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["", "65001", "65001 65002 4200000000", "1 {2,3} 4", "{7}"] {
            assert_eq!(path(text).to_string(), text);
        }
        for text in ["65001,", "a", "{1", "{1, 2}", "4294967296", "-1"] {
            assert!(text.parse::<AsPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_set_counts_as_one_hop() {
        assert_eq!(path("").hops(), 0);
        assert_eq!(path("1 2 3").hops(), 3);
        assert_eq!(path("1 2 {3,4,5}").hops(), 3);
    }

    #[test]
    fn equal_paths_are_equal_however_they_were_cut() {
        let cut = AsPath::from_segments(vec![
            Segment::Sequence(vec![1]),
            Segment::Sequence(vec![]),
            Segment::Sequence(vec![2]),
        ]);
        assert_eq!(cut, path("1 2"));
    }

    #[test]
    fn prepending_replacing_and_the_ends() {
        assert_eq!(path("1 2").prepended(9, 2), path("9 9 1 2"));
        assert_eq!(path("{1,2}").prepended(9, 1), path("9 {1,2}"));
        assert_eq!(path("1 2").prepended(9, 0), path("1 2"));
        assert_eq!(path("1 2 {2,3}").replaced(2, 9), path("1 9 {9,3}"));
        assert_eq!(
            (path("1 2").first(), path("1 2").origin()),
            (Some(1), Some(2))
        );
        assert_eq!(
            (path("{1,2}").first(), path("1 {2}").origin()),
            (None, None)
        );
        assert_eq!(path("1 2 1").count(1), 2);
    }
}
