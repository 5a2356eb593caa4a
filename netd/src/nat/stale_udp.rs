//! Which flows of UDP the kernel must forget: UDP has no end of a connection, and the kernel goes on
//! translating a client's packets as it did the first of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use peapod_api::attach::Protocol;

use crate::core::services::{Change, Dispatch, Frontend};

/// Which UDP connections were led to where they would not be led now.
#[derive(Default)]
pub(super) struct StaleUdp<'a> {
    /// Endpoints that an address may lead to.
    addresses: BTreeMap<(IpAddr, u16), BTreeSet<&'a SocketAddr>>,
    /// Endpoints that a node port led to and does not any more.
    node_ports: BTreeMap<u16, BTreeSet<&'a SocketAddr>>,
}

impl<'a> StaleUdp<'a> {
    pub(super) fn of(changes: &'a [Change], v4: bool) -> Self {
        let mut stale = StaleUdp::default();
        for change in changes {
            let frontend = change.frontend;
            if frontend.protocol() != Protocol::Udp || frontend.is_v4() != v4 {
                continue;
            }
            let now: BTreeSet<&SocketAddr> = endpoints(&change.to).collect();
            match frontend {
                Frontend::Address { .. } if change.to == Some(Dispatch::Here) => {}
                Frontend::Address { ip, port, .. } => {
                    stale.addresses.insert((ip, port), now);
                }
                Frontend::NodePort { port, .. } => {
                    let gone = endpoints(&change.from).filter(|e| !now.contains(e));
                    stale.node_ports.insert(port, gone.collect());
                }
            }
        }
        stale.node_ports.retain(|_, gone| !gone.is_empty());
        stale
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    pub(super) fn contains(&self, destination: (IpAddr, u16), answered_by: (IpAddr, u16)) -> bool {
        let endpoint = SocketAddr::from(answered_by);
        if let Some(now) = self.addresses.get(&destination) {
            return !now.contains(&endpoint);
        }
        let gone = self.node_ports.get(&destination.1);
        gone.is_some_and(|gone| gone.contains(&endpoint))
    }
}

fn endpoints(dispatch: &Option<Dispatch>) -> impl Iterator<Item = &SocketAddr> {
    dispatch.iter().flat_map(Dispatch::endpoints)
}
