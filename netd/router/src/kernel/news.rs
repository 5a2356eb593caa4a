//! News of what others do to our routes and nexthop objects: an operator who deletes one, a daemon
//! that replaces one, the kernel that takes one away with its link.
//!
//! A filter in the kernel keeps out what is not ours, and what we wrote ourselves: half a million
//! routes that we install are no news.

use std::io;

use ipnet::IpNet;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};

use super::PROTOCOL_BGP;
use super::message::{self, RTM_DELNEXTHOP, RTM_DELROUTE, RTM_NEWROUTE};
use crate::sys::{self, Filter};

/// Multicast groups: IPv4 routes, IPv6 routes, nexthop objects.
const GROUPS: [u32; 3] = [7, 11, 32];

/// What others did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The route to a prefix was changed or removed.
    Route(IpNet),
    /// Nexthop objects were removed.
    Objects,
    /// So much that it was not heard: everything must be looked at.
    Overflow,
}

/// Hears of it.
pub struct RouteWatch {
    socket: TokioSocket,
}

// === impl RouteWatch ===

impl RouteWatch {
    /// Listens for what others do; `own` is the netlink port that our routes are written from.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open(own: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        sys::set_filter(socket.socket_ref(), &filter(own))?;
        socket.socket_mut().bind_auto()?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(RouteWatch { socket })
    }

    /// Waits for news.
    ///
    /// # Errors
    /// If the kernel cannot be heard.
    pub async fn next(&mut self) -> io::Result<Vec<News>> {
        match self.socket.recv_from_full().await {
            Ok((bytes, _)) => Ok(message::messages(&bytes).filter_map(news).collect()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(vec![News::Overflow]),
            Err(error) => Err(error),
        }
    }
}

fn news(message: message::Message<'_>) -> Option<News> {
    match message.kind {
        RTM_NEWROUTE | RTM_DELROUTE => {
            message::route(message.body).map(|route| News::Route(route.prefix))
        }
        RTM_DELNEXTHOP => Some(News::Objects),
        _ => None,
    }
}

/// Lets through what is about routes of protocol bgp, or nexthop objects of it, and not from `own`.
/// Offsets are those of `struct nlmsghdr`, `rtmsg` and `nhmsg`.
fn filter(own: u32) -> [Filter; 13] {
    let kind = |kind: u16| u32::from(kind.to_be());
    [
        Filter::word(12),
        Filter::if_equal(own.to_be(), 10, 0),
        Filter::half(4),
        Filter::if_equal(kind(RTM_NEWROUTE), 3, 0),
        Filter::if_equal(kind(RTM_DELROUTE), 2, 0),
        Filter::if_equal(kind(RTM_DELNEXTHOP), 3, 0),
        Filter::take(0),
        Filter::octet(21),
        Filter::if_equal(PROTOCOL_BGP.into(), 2, 3),
        Filter::octet(18),
        Filter::if_equal(PROTOCOL_BGP.into(), 0, 1),
        Filter::take(u32::MAX),
        Filter::take(0),
    ]
}
