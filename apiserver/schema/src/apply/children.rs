//! What is below a place of a [`FieldSet`]: a map by element.
//!
//! Most places have a handful of fields, and they are met in order. So it is a sorted vector:
//! one allocation, where a tree would take a node of hundreds of bytes for each place.

use super::set::{Element, FieldSet};

/// Elements and what is below them, in the order of the elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Children(Vec<(Element, FieldSet)>);

impl Children {
    /// Without elements.
    pub(crate) const EMPTY: Self = Self(Vec::new());

    /// Without elements, with room for so many.
    pub(crate) fn with_capacity(elements: usize) -> Self {
        Self(Vec::with_capacity(elements))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Element, &FieldSet)> {
        self.0.iter().map(|(element, below)| (element, below))
    }

    pub(crate) fn get(&self, element: &str) -> Option<&FieldSet> {
        let at = self.find(element).ok()?;
        Some(&self.0[at].1)
    }

    /// What is below an element, made when it is not there.
    pub(crate) fn get_or_insert(&mut self, element: Element) -> &mut FieldSet {
        let at = match self.find(&element) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (element, FieldSet::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    /// Puts what is below an element, in place of what was.
    pub(crate) fn insert(&mut self, element: Element, below: FieldSet) {
        match self.find(&element) {
            Ok(at) => self.0[at].1 = below,
            Err(at) => self.0.insert(at, (element, below)),
        }
    }

    /// Keeps the elements that `wanted` says to, which may change what is below them.
    pub(crate) fn retain(&mut self, mut wanted: impl FnMut(&Element, &mut FieldSet) -> bool) {
        self.0.retain_mut(|(element, below)| wanted(element, below));
    }

    /// The elements of either; `both` joins what is below those that stand in both.
    pub(crate) fn merge(self, other: Self, both: impl Fn(FieldSet, FieldSet) -> FieldSet) -> Self {
        if self.is_empty() {
            return other;
        }
        let mut out = Self::with_capacity(self.0.len() + other.0.len());
        let mut theirs = other.0.into_iter().peekable();
        for (element, mine) in self.0 {
            while let Some(before) = theirs.next_if(|(name, _)| *name < element) {
                out.0.push(before);
            }
            let joined = match theirs.next_if(|(name, _)| *name == element) {
                Some((_, theirs)) => both(mine, theirs),
                None => mine,
            };
            out.0.push((element, joined));
        }
        out.0.extend(theirs);
        out
    }

    fn find(&self, element: &str) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last.as_str() < element => Err(self.0.len()),
            None => Err(0),
            _ => self
                .0
                .binary_search_by(|(name, _)| name.as_str().cmp(element)),
        }
    }
}

impl IntoIterator for Children {
    type Item = (Element, FieldSet);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
