//! Sets of completion indexes, as a status writes them: `1,3-5,7`. Pure.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// The most that are kept; jobs with more completions are not accepted.
    const MAX: i32 = 1_000_000;

    /// Reads a set; what cannot be read, or is not below `bound`, is left out.
    pub fn parse(text: &str, bound: i32) -> Self {
        let bound = bound.min(Self::MAX);
        let mut all = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend(first.max(0)..=last.min(bound - 1));
            }
        }
        Self(all)
    }

    /// Adds one.
    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    /// Whether it has one.
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many there are.
    pub fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many of these the other has too.
    pub fn shared(&self, other: &Self) -> i32 {
        let count = self.0.intersection(&other.0).count();
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// As a status has it; `None` when there are none.
    pub fn to_status(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.to_string())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if(|next| *next == last + 1).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_read() {
        for (text, bound, expected) in [
            ("", 9, ""),
            ("1,3-5,7", 9, "1,3-5,7"),
            ("0,1", 9, "0,1"),
            ("3,2,1", 9, "1-3"),
            ("0-100", 3, "0-2"),
            ("x,-1,2", 3, "2"),
        ] {
            assert_eq!(Indexes::parse(text, bound).to_string(), expected, "{text}");
        }
    }
}
