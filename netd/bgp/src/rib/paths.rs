//! The paths of one prefix: usually one, so that is kept without a list.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::route::{PeerId, Route};

/// One way to a prefix.
#[derive(Clone, Debug)]
pub struct Path {
    /// What the peer says of it.
    pub route: Arc<Route>,
    /// The peer's path identifier (RFC 7911), 0 without.
    pub id: u32,
    /// Whether the peer still says so.
    pub freshness: Freshness,
    /// What selection made of it.
    pub choice: Choice,
}

/// Whether the peer still says so. The order is that of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Freshness {
    /// It does.
    Fresh,
    /// Its session is down or just back, and graceful restart keeps the path (RFC 4724).
    Stale,
    /// Kept for long, and only for want of a better one (RFC 9494).
    LongLivedStale,
}

/// What selection made of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Choice {
    /// Not used.
    Unused,
    /// The best one.
    Best,
    /// As good as the best for forwarding.
    Multipath,
}

/// The paths of one prefix.
#[derive(Debug, Default)]
pub enum Paths {
    /// None.
    #[default]
    None,
    /// One.
    One(Path),
    /// Several.
    Many(Box<Vec<Path>>),
}

// === impl Choice ===

impl Choice {
    /// The best first.
    pub fn rank(self) -> u8 {
        match self {
            Choice::Best => 0,
            Choice::Multipath => 1,
            Choice::Unused => 2,
        }
    }
}

// === impl Path ===

impl Path {
    /// Whether the path is that of a peer under an identifier.
    pub fn is(&self, peer: PeerId, id: u32) -> bool {
        self.route.source.peer == peer && self.id == id
    }

    /// The peer that it came from.
    pub fn peer(&self) -> PeerId {
        self.route.source.peer
    }
}

// === impl Paths ===

impl Paths {
    /// All of them.
    pub fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    /// All of them.
    pub fn as_mut_slice(&mut self) -> &mut [Path] {
        match self {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    /// Adds a path in place of the one of the same peer and identifier, which is returned.
    pub fn put(&mut self, path: Path) -> Option<Path> {
        let same = |have: &&mut Path| have.is(path.peer(), path.id);
        if let Some(have) = self.as_mut_slice().iter_mut().find(same) {
            return Some(std::mem::replace(have, path));
        }
        *self = match std::mem::take(self) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(Box::new(vec![first, path])),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
        None
    }

    /// Removes the paths that `gone` says; how many those were.
    pub fn remove(&mut self, mut gone: impl FnMut(&Path) -> bool) -> usize {
        let before = self.as_slice().len();
        match self {
            Paths::None => {}
            Paths::One(path) => {
                if gone(path) {
                    *self = Paths::None;
                }
            }
            Paths::Many(paths) => {
                paths.retain(|path| !gone(path));
                if paths.len() < 2 {
                    *self = paths.pop().map_or(Paths::None, Paths::One);
                }
            }
        }
        before - self.as_slice().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Paths::None)
    }

    /// The best one.
    pub fn best(&self) -> Option<&Path> {
        self.as_slice()
            .iter()
            .find(|path| path.choice == Choice::Best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_one_path_takes_16_bytes_for_it() {
        assert_eq!(size_of::<Paths>(), 16);
    }
}
