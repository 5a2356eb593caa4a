//! Requests that make, change and delete links, addresses and routes.

use std::net::IpAddr;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType,
};

use super::{Request, family};
use crate::links::ROUTE_PROTOCOL;

/// A new route; what is not said is the kernel's choice.
#[derive(Clone, Debug)]
pub struct NewRoute {
    /// Where to.
    pub destination: IpNet,
    /// Number of the link; without one it is a blackhole.
    pub link: Option<u32>,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Source address of what this machine itself sends by it.
    pub source: Option<IpAddr>,
    /// MTU of what this machine itself sends by it.
    pub mtu: Option<u32>,
    /// Whether it is tagged as this agent's ([`ROUTE_PROTOCOL`]).
    pub tagged: bool,
}

/// Makes a veth pair: `name` here, `peer` in the namespace behind `netns`; both down.
pub fn add_veth(name: &str, peer: &str, netns: RawFd, mtu: u32) -> Request {
    let mut other = LinkMessage::default();
    other.attributes = vec![
        LinkAttribute::IfName(peer.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(netns),
    ];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]),
    ];
    Request::new(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add link {name}"),
    )
}

/// Sets a link up.
pub fn set_up(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    Request::new(
        RouteNetlinkMessage::SetLink(message),
        0,
        format!("set link {index} up"),
    )
}

/// Sets a link's alias.
pub fn set_alias(index: u32, alias: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
        .attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    Request::new(
        RouteNetlinkMessage::SetLink(message),
        0,
        format!("set the alias of link {index}"),
    )
}

/// Deletes a link; one that is gone is fine.
pub fn delete_link(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    Request::new(
        RouteNetlinkMessage::DelLink(message),
        0,
        format!("delete link {name}"),
    )
    .tolerating(libc::ENODEV)
}

fn address_message(index: u32, address: IpNet, link_local: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr().is_ipv6());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    if link_local {
        message.header.scope = AddressScope::Link;
    }
    // No duplicate address detection: the address would be unusable for a second.
    if address.addr().is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(address.addr()),
        AddressAttribute::Address(address.addr()),
    ];
    message
}

/// Adds an address to a link; one that is there is fine.
pub fn add_address(index: u32, address: IpNet) -> Request {
    Request::new(
        RouteNetlinkMessage::NewAddress(address_message(index, address, false)),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add address {address}"),
    )
    .tolerating(libc::EEXIST)
}

/// Adds an address that is valid on this link only.
pub fn add_link_local_address(index: u32, address: IpNet) -> Request {
    Request::new(
        RouteNetlinkMessage::NewAddress(address_message(index, address, true)),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add address {address}"),
    )
    .tolerating(libc::EEXIST)
}

/// Deletes an address; one that is gone is fine.
pub fn delete_address(index: u32, address: IpNet) -> Request {
    Request::new(
        RouteNetlinkMessage::DelAddress(address_message(index, address, false)),
        0,
        format!("delete address {address}"),
    )
    .tolerating(libc::EADDRNOTAVAIL)
}

/// Adds a route to the main table, in place of one with the same destination.
pub fn replace_route(route: &NewRoute) -> Request {
    let mut message = route_message(route.destination);
    if route.tagged {
        message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    } else {
        message.header.protocol = RouteProtocol::Boot;
    }
    message.header.scope = RouteScope::Universe;
    match route.link {
        Some(link) => message.attributes.push(RouteAttribute::Oif(link)),
        None => message.header.kind = RouteType::BlackHole,
    }
    if route.link.is_some() && route.gateway.is_none() && !route.destination.addr().is_ipv6() {
        message.header.scope = RouteScope::Link;
    }
    let attributes = &mut message.attributes;
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    let mtu = route.mtu.map(|mtu| vec![RouteMetric::Mtu(mtu)]);
    attributes.extend(mtu.map(RouteAttribute::Metrics));
    Request::new(
        RouteNetlinkMessage::NewRoute(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        format!("add route {}", route.destination),
    )
}

/// Deletes this agent's route; one that is gone is fine.
pub fn delete_route(destination: IpNet) -> Request {
    let mut message = route_message(destination);
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    Request::new(
        RouteNetlinkMessage::DelRoute(message),
        0,
        format!("delete route {destination}"),
    )
    .tolerating(libc::ESRCH)
}

pub(super) fn route_message(destination: IpNet) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination.addr().is_ipv6());
    message.header.destination_prefix_length = destination.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message
        .attributes
        .push(RouteAttribute::Destination(destination.addr().into()));
    message
}
