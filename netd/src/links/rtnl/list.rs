//! What the kernel has: links, routes and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Rtnl, family, tunnel};
use crate::links::Error;

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias, empty without one.
    pub alias: String,
    /// Bytes.
    pub mtu: u32,
    /// Number of the other end of a veth pair, in its own namespace.
    pub peer: Option<u32>,
    /// Whether it is a loopback.
    pub loopback: bool,
    /// Whether it is up, by its owner's will.
    pub up: bool,
    /// Its hardware address, where it has one of six octets.
    pub mac: Option<[u8; 6]>,
    /// What it is set to, if it is a VXLAN link.
    pub vxlan: Option<tunnel::Vxlan>,
}

/// A route as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Number of the link it leaves by.
    pub link: Option<u32>,
    /// Routing table; 254 is the main one.
    pub table: u32,
    /// Who installed it (`RTPROT_*`).
    pub protocol: u8,
    /// Whether packets are dropped instead.
    pub blackhole: bool,
}

impl Rtnl {
    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = self.dump(request, "list links")?;
        Ok(found.into_iter().filter_map(read_link).collect())
    }

    /// One link by its name.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let request = RouteNetlinkMessage::GetLink(message);
        match self.ask(request, NLM_F_ACK, &format!("find link {name}")) {
            Ok(found) => found.into_iter().find_map(read_link),
            Err(error) if error.errno() == Some(libc::ENODEV) => None,
            Err(error) => return Err(error),
        }
        .ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// All unicast and blackhole routes of a family, in every table.
    pub fn routes(&mut self, v6: bool) -> Result<Vec<Route>, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(v6);
        let found = self.dump(RouteNetlinkMessage::GetRoute(message), "list routes")?;
        Ok(found.into_iter().filter_map(read_route).collect())
    }

    /// All addresses, each with its link's number.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let found = self.dump(request, "list addresses")?;
        Ok(found.into_iter().filter_map(read_address).collect())
    }
}

fn read_link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: String::new(),
        mtu: 0,
        peer: None,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        up: message.header.flags.contains(LinkFlags::Up),
        mac: None,
        vxlan: tunnel::read_vxlan(&message.attributes),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Address(octets) => link.mac = octets.try_into().ok(),
            LinkAttribute::Link(peer) => link.peer = Some(peer),
            _ => {}
        }
    }
    Some(link)
}

fn read_address(message: RouteNetlinkMessage) -> Option<(u32, IpNet)> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            // On a point-to-point link `Address` is the other end's.
            AddressAttribute::Local(local) => address = Some(local),
            AddressAttribute::Address(other) => address = address.or(Some(other)),
            _ => {}
        }
    }
    let net = IpNet::new(address?, message.header.prefix_len).ok()?;
    Some((message.header.index, net))
}

fn read_route(message: RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else {
        return None;
    };
    let header = message.header;
    let blackhole = header.kind == RouteType::BlackHole;
    if !blackhole && header.kind != RouteType::Unicast {
        return None;
    }
    let mut destination: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut link = None;
    let mut table = u32::from(header.table);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => destination = ip.into(),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => destination = ip.into(),
            RouteAttribute::Oif(index) => link = Some(index),
            RouteAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    Some(Route {
        destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
        link,
        table,
        protocol: header.protocol.into(),
        blackhole,
    })
}
