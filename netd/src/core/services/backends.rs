//! Which endpoints of a service take connections, as kube-proxy has it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::core::facts::{PortFacts, SliceFacts};

/// The endpoints of one port of a service, in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// Those of every node.
    pub cluster: BTreeSet<SocketAddr>,
    /// Those of this node.
    pub local: BTreeSet<SocketAddr>,
    /// Whether those of this node are all about to end: they serve who comes, but nobody should.
    pub local_leaving: bool,
}

/// Both kinds of endpoints that may be chosen; the second only for want of the first.
#[derive(Default)]
struct Candidates {
    ready: BTreeSet<SocketAddr>,
    /// Still serving, though terminating: better than refusing, while their successors start.
    terminating: BTreeSet<SocketAddr>,
}

impl Candidates {
    fn choose(self) -> BTreeSet<SocketAddr> {
        if self.ready.is_empty() {
            self.terminating
        } else {
            self.ready
        }
    }
}

impl Backends {
    /// Chooses them. A service's port and a slice's port belong together by name.
    pub fn choose<'a>(
        slices: impl Iterator<Item = &'a SliceFacts>,
        port: &PortFacts,
        v4: bool,
        node: &str,
    ) -> Self {
        let mut cluster = Candidates::default();
        let mut local = Candidates::default();
        for slice in slices {
            let target = slice
                .ports
                .iter()
                .find(|p| p.name == port.name && p.protocol == port.protocol);
            let Some(target) = target else { continue };
            for endpoint in slice.endpoints.iter().filter(|e| e.ip.is_ipv4() == v4) {
                let address = SocketAddr::new(endpoint.ip, target.port);
                let here = endpoint.node.as_deref() == Some(node);
                if endpoint.ready {
                    cluster.ready.insert(address);
                    local.ready.extend(here.then_some(address));
                } else if endpoint.serving && endpoint.terminating {
                    cluster.terminating.insert(address);
                    local.terminating.extend(here.then_some(address));
                }
            }
        }
        Backends {
            local_leaving: local.ready.is_empty(),
            cluster: cluster.choose(),
            local: local.choose(),
        }
    }
}

/// Lists `new` so that as many endpoints as possible keep the place that they have in `old`:
/// what is gone is replaced by new ones, then by the last ones. A change of one endpoint is
/// then a change of one or two places, however many there are.
pub fn keep_order(old: &[SocketAddr], mut new: BTreeSet<SocketAddr>) -> Vec<SocketAddr> {
    let mut places: Vec<Option<SocketAddr>> = old.iter().map(|e| new.take(e)).collect();
    let mut fresh = new.into_iter();
    for place in places.iter_mut().filter(|place| place.is_none()) {
        *place = fresh.next();
    }
    places.extend(fresh.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_none() {
            places.swap_remove(at);
        } else {
            at += 1;
        }
    }
    places.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    #[test]
    fn places_are_kept() {
        let old = [1, 2, 3, 4].map(endpoint);
        let list = |new: &[u8]| {
            let kept = keep_order(&old, new.iter().map(|&n| endpoint(n)).collect());
            kept.iter()
                .map(|e| {
                    e.to_string()
                        .split(['.', ':'])
                        .nth(3)
                        .unwrap()
                        .parse::<u8>()
                        .unwrap()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(list(&[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(list(&[1, 3, 4]), [1, 4, 3]);
        assert_eq!(list(&[1, 3, 4, 9]), [1, 9, 3, 4]);
        assert_eq!(list(&[2]), [2]);
        assert_eq!(list(&[]), Vec::<u8>::new());
        assert_eq!(list(&[5, 1, 2, 3, 4]), [1, 2, 3, 4, 5]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(old in "[a-p]{0,12}", new in "[a-p]{0,12}") {
            let set = |text: &str| text.bytes().map(endpoint).collect::<BTreeSet<_>>();
            let old: Vec<SocketAddr> = set(&old).into_iter().collect();
            let listed = keep_order(&old, set(&new));
            prop_assert_eq!(listed.len(), set(&new).len());
            prop_assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), set(&new));
        }
    }
}
