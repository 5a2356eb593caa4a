//! An update group: peers that are told the same. What they are told (the adj-RIB-out) is kept
//! once for all of them; what each of them has yet to be sent is its own
//! [`Pending`](super::Pending).

use std::collections::HashMap;
use std::sync::Arc;

use super::chunked::Chunked;
use super::export::{Egress, Local};
use super::index::Slot;
use super::path_ids::PathIds;
use super::paths::{Choice, Freshness, Path};
use super::route::PeerId;
use super::table::Table;
use crate::policy::Decision;
use crate::types::{Family, PathAttributes};

/// Peers that are told the same, and what that is.
#[derive(Debug)]
pub struct Group {
    /// What they agree in.
    pub egress: Egress,
    /// The peers.
    pub members: Vec<PeerId>,
    ipv4: Chunked<Target>,
    ipv6: Chunked<Target>,
    memo: HashMap<MemoKey, Arc<OutRoute>>,
    path_ids: [PathIds; 2],
}

/// A route as a group's peers are told it.
#[derive(Debug, PartialEq, Eq)]
pub struct OutRoute {
    /// Its attributes; without next hop where that is the speaker itself.
    pub attributes: Arc<PathAttributes>,
    /// The peer that it came from, which is not told.
    pub source: PeerId,
}

/// What is told of one prefix.
#[derive(Clone, Debug, Default)]
pub enum Target {
    /// Nothing.
    #[default]
    None,
    /// One route.
    One(Arc<OutRoute>),
    /// Several, each under its path identifier.
    Many(Arc<[(u32, Arc<OutRoute>)]>),
}

/// A route, whether it is long-lived stale, and what policy decided: the rest follows.
type MemoKey = (u64, bool, Decision);

/// So many worked out routes are remembered.
const MEMO_LIMIT: usize = 1 << 16;

// === impl Target ===

impl Target {
    /// The routes for one peer, with their path identifiers (0 without).
    pub fn for_peer(&self, peer: PeerId) -> Vec<(u32, &Arc<OutRoute>)> {
        let all = match self {
            Target::None => Vec::new(),
            Target::One(route) => vec![(0, route)],
            Target::Many(routes) => routes.iter().map(|(id, route)| (*id, route)).collect(),
        };
        all.into_iter()
            .filter(|(_, route)| route.source != peer)
            .collect()
    }

    /// Whether a peer is told anything.
    pub fn tells(&self, peer: PeerId) -> bool {
        match self {
            Target::None => false,
            Target::One(route) => route.source != peer,
            Target::Many(routes) => routes.iter().any(|(_, route)| route.source != peer),
        }
    }

    /// Whether there is nothing to tell.
    pub fn is_none(&self) -> bool {
        matches!(self, Target::None)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Arc<OutRoute>, b: &Arc<OutRoute>| Arc::ptr_eq(a, b) || a == b;
        match (self, other) {
            (Target::None, Target::None) => true,
            (Target::One(a), Target::One(b)) => same(a, b),
            (Target::Many(a), Target::Many(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .zip(b.iter())
                        .all(|(a, b)| a.0 == b.0 && same(&a.1, &b.1))
            }
            _ => false,
        }
    }
}

// === impl Group ===

impl Group {
    /// A group without peers, told nothing.
    pub fn new(egress: Egress) -> Self {
        Group {
            egress,
            members: Vec::new(),
            ipv4: Chunked::new(),
            ipv6: Chunked::new(),
            memo: HashMap::new(),
            path_ids: Default::default(),
        }
    }

    /// Works out anew what is told of a prefix. What was told before, if that was something else.
    pub fn update(&mut self, table: &Table, slot: Slot, local: &Local<'_>) -> Option<Target> {
        let target = self.work_out(table, slot, local);
        let family = table.family();
        if target.is_none() && self.target(family, slot).is_none() {
            return None;
        }
        let known = self.targets(family).grow(slot);
        (*known != target).then(|| std::mem::replace(known, target))
    }

    /// What is told of a prefix.
    pub fn target(&self, family: Family, slot: Slot) -> &Target {
        let targets = if family == Family::IPV6_UNICAST {
            &self.ipv6
        } else {
            &self.ipv4
        };
        targets.get(slot).unwrap_or(&Target::None)
    }

    fn targets(&mut self, family: Family) -> &mut Chunked<Target> {
        if family == Family::IPV6_UNICAST {
            &mut self.ipv6
        } else {
            &mut self.ipv4
        }
    }

    fn work_out(&mut self, table: &Table, slot: Slot, local: &Local<'_>) -> Target {
        let Some(prefix) = table.prefix(slot) else {
            return Target::None;
        };
        let paths = table.paths(slot);
        if !self.egress.add_path {
            let Some(best) = paths.iter().find(|path| path.choice == Choice::Best) else {
                return Target::None;
            };
            if self.members == [best.peer()] {
                return Target::None;
            }
            let decision = self.egress.decide(&prefix, best, local);
            return match decision.accepted {
                true => Target::One(self.out_route(best, decision, local)),
                false => Target::None,
            };
        }
        let mut ranked: Vec<&Path> = paths.iter().collect();
        ranked.sort_by_key(|path| path.choice.rank());
        let mut told = Vec::new();
        for path in ranked {
            let decision = self.egress.decide(&prefix, path, local);
            if decision.accepted && told.len() < usize::from(self.egress.paths) {
                let id = self.path_id(table, path);
                told.push((id, self.out_route(path, decision, local)));
            }
        }
        told.sort_by_key(|(id, _)| *id);
        if told.is_empty() {
            Target::None
        } else {
            Target::Many(told.into())
        }
    }

    fn out_route(&mut self, path: &Path, decision: Decision, local: &Local<'_>) -> Arc<OutRoute> {
        let long_lived = path.freshness == Freshness::LongLivedStale;
        let key = (path.route.id, long_lived, decision);
        if let Some(known) = self.memo.get(&key) {
            return Arc::clone(known);
        }
        if self.memo.len() >= MEMO_LIMIT {
            self.memo.clear();
        }
        let attributes = Arc::new(self.egress.attributes(path, decision, local));
        let route = Arc::new(OutRoute {
            attributes,
            source: path.peer(),
        });
        self.memo.insert(key, Arc::clone(&route));
        route
    }

    /// Forgets what was worked out of routes, because policy or the speaker changed.
    pub fn forget(&mut self) {
        self.memo.clear();
    }

    fn path_id(&mut self, table: &Table, path: &Path) -> u32 {
        let ids = &mut self.path_ids[usize::from(table.family() == Family::IPV6_UNICAST)];
        let all = || {
            let slots = 0..table.bound();
            let paths = slots.flat_map(|slot| table.paths(slot));
            paths.map(|path| (path.peer(), path.id)).collect()
        };
        ids.of((path.peer(), path.id), all)
    }
}
