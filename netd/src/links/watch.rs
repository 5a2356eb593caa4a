//! News of what others do to the ways to other nodes: an operator who deletes a route, a link that
//! goes down, an address that comes.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use netlink_packet_route::rule::RuleAttribute;
use netlink_sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};

use super::rtnl::ways::METRIC;
use super::{WAY_PROTOCOL, alias};

/// Multicast groups: links, IPv4 and IPv6 addresses.
const LINKS: [u32; 3] = [1, 5, 9];
/// Neighbours and forwarding entries; routes and rules, of IPv4 and IPv6.
const WAYS: [u32; 5] = [3, 7, 8, 11, 19];

const HEADER_BYTES: usize = 16;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
/// What marks our rules.
const RULE: RuleAttribute = RuleAttribute::Protocol(RouteProtocol::Other(WAY_PROTOCOL));
/// `RTPROT_BGP`, whose routes are many, and another's to look after.
const PROTOCOL_BGP: u8 = 186;

/// Hears of it.
pub struct WayWatch {
    socket: TokioSocket,
    own: u32,
    guarding: bool,
    /// Numbers of the tunnels' links.
    tunnels: BTreeSet<u32>,
}

// === impl WayWatch ===

impl WayWatch {
    /// Listens for what others do; `own` is the netlink port that ways are written from.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open(own: u32) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        for group in LINKS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self {
            socket,
            own,
            guarding: false,
            tunnels: BTreeSet::new(),
        })
    }

    /// Whether there are ways to guard, and the links of their tunnels. Where there are none, what
    /// a speaker of BGP does to half a million routes is no news. Returns whether more is heard
    /// now than before: what came about meanwhile must be looked at.
    ///
    /// # Errors
    /// If the kernel does not let it.
    pub fn guard(&mut self, wanted: bool, tunnels: BTreeSet<u32>) -> io::Result<bool> {
        let more = (wanted && !self.guarding) || !tunnels.is_subset(&self.tunnels);
        self.tunnels = tunnels;
        if self.guarding == wanted {
            return Ok(more);
        }
        for group in WAYS {
            let socket = self.socket.socket_mut();
            match wanted {
                true => socket.add_membership(group)?,
                false => socket.drop_membership(group)?,
            }
        }
        self.guarding = wanted;
        Ok(more)
    }

    /// Waits until the ways may be others than they were made.
    ///
    /// # Errors
    /// If the kernel cannot be heard.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((bytes, _)) if !self.is_news(&bytes) => {}
                Ok(_) => return Ok(()),
                // So much that some was not heard.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn is_news(&self, mut bytes: &[u8]) -> bool {
        while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let message = &bytes[..length.clamp(HEADER_BYTES, bytes.len())];
            if !is_of_bgp(message) && self.concerns(message) {
                return true;
            }
            bytes = bytes
                .get(length.next_multiple_of(4).max(HEADER_BYTES)..)
                .unwrap_or_default();
        }
        false
    }

    fn concerns(&self, message: &[u8]) -> bool {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
            // Better one look too many.
            return true;
        };
        if message.header.port_number == self.own {
            return false;
        }
        let NetlinkPayload::InnerMessage(inner) = message.payload else {
            return false;
        };
        match inner {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                !is_pods(&link)
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                !is_link_local(&address)
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                is_way(&route)
            }
            RouteNetlinkMessage::NewNeighbour(near) | RouteNetlinkMessage::DelNeighbour(near) => {
                self.tunnels.contains(&near.header.ifindex)
            }
            RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
                rule.attributes.contains(&RULE)
            }
            _ => false,
        }
    }
}

fn is_of_bgp(message: &[u8]) -> bool {
    let kind = u16::from_ne_bytes([message[4], message[5]]);
    let route = kind == RTM_NEWROUTE || kind == RTM_DELROUTE;
    // `rtm_protocol`.
    route && message.get(HEADER_BYTES + 5) == Some(&PROTOCOL_BGP)
}

fn is_pods(link: &LinkMessage) -> bool {
    let mut names = link
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
    names.any(|name| name.starts_with(alias::PREFIX))
}

/// Pods' links have such addresses, and come and go.
fn is_link_local(address: &AddressMessage) -> bool {
    let mut ips = address
        .attributes
        .iter()
        .filter_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
    ips.any(|ip| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    })
}

/// One of ours, or one in the place of one of ours.
fn is_way(route: &RouteMessage) -> bool {
    let metric = RouteAttribute::Priority(METRIC);
    u8::from(route.header.protocol) == WAY_PROTOCOL || route.attributes.contains(&metric)
}
