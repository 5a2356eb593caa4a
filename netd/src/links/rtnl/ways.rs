//! Routes to other nodes and their pods, and the rules that lead to some of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::change::route_message;
use super::{Error, Request, Rtnl, family};
use crate::links::WAY_PROTOCOL;

/// Metric of ways: before what the fabric tells by BGP (20), behind what the machine has itself.
pub(crate) const METRIC: u32 = 10;

/// A route to another node or its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WayRoute {
    /// Routing table.
    pub table: u32,
    /// Where to.
    pub destination: IpNet,
    /// Next hop.
    pub gateway: IpAddr,
    /// Number of the link.
    pub link: u32,
    /// The next hop is on the link, whatever its address says.
    pub onlink: bool,
    /// Source address of what this machine itself sends by it.
    pub source: Option<IpAddr>,
}

impl Rtnl {
    /// The routes to other nodes that were installed earlier, of both families.
    pub fn ways(&mut self) -> Result<Vec<WayRoute>, Error> {
        // Where a full table of the Internet stands beside them, the kernel need not show it all.
        // A kernel that cannot choose shows everything.
        let _ = self.socket.set_netlink_get_strict_chk(true);
        let mut found = Vec::new();
        for v6 in [false, true] {
            let mut message = RouteMessage::default();
            message.header.address_family = family(v6);
            message.header.protocol = RouteProtocol::Other(WAY_PROTOCOL);
            let request = RouteNetlinkMessage::GetRoute(message);
            let listed = self.dump(request, "list routes to other nodes")?;
            found.extend(listed.into_iter().filter_map(read));
        }
        Ok(found)
    }
}

/// Adds a route, in place of one with the same table, destination and metric.
pub fn replace_way(route: &WayRoute) -> Request {
    let mut message = way_message(route);
    message.header.scope = RouteScope::Universe;
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Oif(route.link));
    attributes.push(RouteAttribute::Gateway(route.gateway.into()));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    Request::new(
        RouteNetlinkMessage::NewRoute(message),
        netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_REPLACE,
        format!("add route {} via {}", route.destination, route.gateway),
    )
}

/// Deletes a route; one that is gone is fine.
pub fn delete_way(route: &WayRoute) -> Request {
    let mut message = way_message(route);
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    Request::new(
        RouteNetlinkMessage::DelRoute(message),
        0,
        format!("delete route {}", route.destination),
    )
    .tolerating(libc::ESRCH)
}

fn way_message(route: &WayRoute) -> RouteMessage {
    let mut message = route_message(route.destination);
    message.header.protocol = RouteProtocol::Other(WAY_PROTOCOL);
    message.header.table = u8::try_from(route.table).unwrap_or(0);
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    attributes.push(RouteAttribute::Priority(METRIC));
    message
}

fn read(message: RouteNetlinkMessage) -> Option<WayRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = message.header;
    if u8::from(header.protocol) != WAY_PROTOCOL {
        return None;
    }
    let mut destination: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut gateway, mut link, mut source) = (None, 0, None);
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Gateway(by) => gateway = address(by),
            RouteAttribute::PrefSource(ip) => source = address(ip),
            RouteAttribute::Oif(index) => link = index,
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    Some(WayRoute {
        table,
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        // One of ours always has one: whoever made this is put right.
        gateway: gateway.unwrap_or(destination),
        link,
        onlink: header.flags.contains(RouteFlags::Onlink),
        source,
    })
}

fn address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(ip.into()),
        RouteAddress::Inet6(ip) => Some(ip.into()),
        _ => None,
    }
}
