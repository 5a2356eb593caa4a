//! Sets of next hops, each kept once however many prefixes forward to it.

use std::collections::HashSet;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::paths::{Choice, Path};
use super::route::Gateway;

/// The next hops of a route, in ascending order, each once. Equal cost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NextHops(Box<[Gateway]>);

/// How packets to a prefix are to be forwarded from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// To these, or no longer by us.
    pub next_hops: Option<Arc<NextHops>>,
}

impl std::ops::Deref for NextHops {
    type Target = [Gateway];

    fn deref(&self) -> &[Gateway] {
        &self.0
    }
}

/// The sets in use.
#[derive(Debug, Default)]
pub(super) struct NextHopSets {
    known: HashSet<Arc<NextHops>>,
    sweep_at: usize,
}

/// Below this many sets it is not worth looking for unused ones.
const SWEEP_FLOOR: usize = 256;

// === impl NextHopSets ===

impl NextHopSets {
    /// The next hops of the chosen paths; none when the best originates here.
    pub fn of(&mut self, paths: &[Path]) -> Option<Arc<NextHops>> {
        if let [only] = paths {
            return match only.choice {
                Choice::Unused => None,
                _ => self.alone(only),
            };
        }
        let chosen = || paths.iter().filter(|path| path.choice != Choice::Unused);
        let best = paths.iter().find(|path| path.choice == Choice::Best)?;
        best.route.gateway.as_ref()?;
        if chosen().count() == 1 {
            return self.alone(best);
        }
        let gateways = chosen()
            .filter_map(|path| path.route.gateway.clone())
            .collect();
        Some(self.intern(gateways))
    }

    fn alone(&mut self, path: &Path) -> Option<Arc<NextHops>> {
        let gateway = path.route.gateway.as_ref()?;
        let set = path
            .route
            .alone
            .get_or_init(|| self.intern(vec![gateway.clone()]));
        Some(Arc::clone(set))
    }

    fn intern(&mut self, mut gateways: Vec<Gateway>) -> Arc<NextHops> {
        gateways.sort_unstable();
        gateways.dedup();
        let set = NextHops(gateways.into_boxed_slice());
        if let Some(known) = self.known.get(&set) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(SWEEP_FLOOR) {
            self.known.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = self.known.len() * 2;
        }
        let set = Arc::new(set);
        self.known.insert(Arc::clone(&set));
        set
    }
}
