//! The ways to next hops that are on no link of ours (RFC 4271, section 9.1.2.1): which router their
//! packets go to, and at what cost, by the kernel's own tables.
//!
//! A way is by a route that somebody else made: the kernel, an operator, another routing daemon. It
//! is neither a default route, by which everything would be reachable, nor one of BGP, which could
//! lead to itself.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_sys::{
    AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
};

use super::PROTOCOL_BGP;
use super::message::{self, Hop, RTM_DELROUTE, RTM_NEWROUTE, RouteTo};
use crate::sys::{self, Filter};

/// Multicast groups: IPv4 routes, IPv6 routes.
const GROUPS: [u32; 2] = [7, 11];
/// After news everything is looked at, but not for every route of a daemon that starts.
const LOOK_AFTER: Duration = Duration::from_millis(50);

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    hop: Hop,
    metric: u32,
}

/// The next hops that are followed.
pub struct Reach {
    kernel: Socket,
    known: BTreeMap<IpAddr, Option<Way>>,
    due: Option<Instant>,
}

/// A way that is another one now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The next hop.
    pub address: IpAddr,
    /// What the way costs; none if there is no way.
    pub metric: Option<u32>,
}

// === impl Reach ===

impl Reach {
    /// Nothing is followed yet.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn new() -> io::Result<Self> {
        let mut kernel = Socket::new(NETLINK_ROUTE)?;
        kernel.bind_auto()?;
        kernel.connect(&SocketAddr::new(0, 0))?;
        Ok(Reach {
            kernel,
            known: BTreeMap::new(),
            due: None,
        })
    }

    /// Follows a next hop from now on; what the way to it costs.
    pub fn follow(&mut self, address: IpAddr) -> Option<u32> {
        let way = self.ask(address);
        self.known.insert(address, way);
        way.map(|way| way.metric)
    }

    /// Where packets for a next hop go.
    pub fn hop(&self, address: IpAddr) -> Option<Hop> {
        self.known
            .get(&address)
            .copied()
            .flatten()
            .map(|way| way.hop)
    }

    /// Ways may be others now.
    pub fn doubt(&mut self) {
        if !self.known.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + LOOK_AFTER);
        }
    }

    /// When [`look_again`](Self::look_again) is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// The ways that are others than before, if it is time to look; those that are not `wanted` any
    /// more are forgotten.
    pub fn look_again(&mut self, wanted: impl Fn() -> HashSet<IpAddr>) -> Vec<Moved> {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return Vec::new();
        }
        self.due = None;
        let wanted = wanted();
        self.known.retain(|address, _| wanted.contains(address));
        let mut moved = Vec::new();
        for address in self.known.keys().copied().collect::<Vec<_>>() {
            let way = self.ask(address);
            if self.known.insert(address, way) != Some(way) {
                let metric = way.map(|way| way.metric);
                moved.push(Moved { address, metric });
            }
        }
        moved
    }

    /// What cannot be asked for counts as out of reach.
    fn ask(&self, address: IpAddr) -> Option<Way> {
        let answer = self.answer(address);
        if let Err(error) = &answer
            && error.raw_os_error() != Some(libc::ENETUNREACH)
        {
            tracing::debug!(%address, %error, "cannot ask for the way to a next hop");
        }
        answer.ok().flatten().and_then(|route| way(address, &route))
    }

    fn answer(&self, address: IpAddr) -> io::Result<Option<RouteTo>> {
        self.kernel.send(&message::get_route(address), 0)?;
        let (bytes, _) = self.kernel.recv_from_full()?;
        let mut messages = message::messages(&bytes);
        let Some(answer) = messages.next() else {
            return Ok(None);
        };
        match message::error_number(&answer) {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(message::route_to(answer.body)),
        }
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// The way to an address that a route makes.
fn way(address: IpAddr, route: &RouteTo) -> Option<Way> {
    if route.length == 0 || route.protocol == PROTOCOL_BGP {
        return None;
    }
    Some(Way {
        hop: Hop {
            gateway: route.gateway.unwrap_or(address),
            link: Some(route.link),
        },
        // What is on the link costs nothing, whatever the kernel's own metric for that is.
        metric: route.gateway.map_or(0, |_| route.metric),
    })
}

/// Hears that somebody else's routes changed.
pub struct WayWatch {
    socket: TokioSocket,
}

// === impl WayWatch ===

impl WayWatch {
    /// Listens.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        sys::set_filter(socket.socket_ref(), &filter())?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(WayWatch { socket })
    }

    /// Waits for news. What they are does not matter, nor that some were too many to be heard.
    ///
    /// # Errors
    /// If the kernel cannot be heard.
    pub async fn next(&mut self) -> io::Result<()> {
        match self.socket.recv_from_full().await {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Lets routes through that are not of BGP. Offsets are those of `struct nlmsghdr` and `rtmsg`.
fn filter() -> [Filter; 7] {
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        Filter::half(4),
        Filter::if_equal(kind(RTM_NEWROUTE), 1, 0),
        Filter::if_equal(kind(RTM_DELROUTE), 0, 2),
        Filter::octet(21),
        Filter::if_equal(PROTOCOL_BGP.into(), 0, 1),
        Filter::take(0),
        Filter::take(u32::MAX),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_default_route_nor_one_of_bgp_is_a_way() {
        let address: IpAddr = "10.9.9.2".parse().unwrap();
        let route = |length, protocol, gateway: Option<&str>| RouteTo {
            length,
            protocol,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            link: 3,
            metric: 10,
        };
        let cost = |route| way(address, &route).map(|way| way.metric);
        assert_eq!(cost(route(32, 4, Some("10.0.0.2"))), Some(10));
        assert_eq!(cost(route(24, 2, None)), Some(0));
        assert_eq!(cost(route(0, 4, Some("10.0.0.2"))), None);
        assert_eq!(cost(route(32, PROTOCOL_BGP, Some("10.0.0.2"))), None);
    }
}
