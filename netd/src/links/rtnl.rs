//! The rtnetlink socket and the messages that the rest of `links` is made of.
//!
//! The one module that knows `netlink-packet-route`, which changes often. Requests go out in
//! batches: one system call for all steps of connecting a pod.

pub mod tunnel;
pub mod ways;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{Error, ROUTE_PROTOCOL};

const RECEIVE_BYTES: usize = 64 * 1024;

/// A request and what it is for.
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
    what: String,
    /// An error number that means it is already as asked.
    tolerated: Option<i32>,
}

/// A connection to rtnetlink in the network namespace of the thread that opened it.
pub struct Rtnl {
    socket: Socket,
    port: u32,
    sequence: u32,
}

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

impl Rtnl {
    /// Opens one.
    pub fn open() -> Result<Self, Error> {
        let connect = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            let own = socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok((socket, own.port_number()))
        };
        let (socket, port) = connect().map_err(Error::Open)?;
        Ok(Rtnl {
            socket,
            port,
            sequence: 0,
        })
    }

    /// The netlink port that requests come from.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests as one message and waits for all answers. All are tried; the first
    /// error is returned.
    pub fn run(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        if requests.is_empty() {
            return Ok(());
        }
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        for request in &requests {
            self.append(
                &mut bytes,
                request.message.clone(),
                request.flags | NLM_F_ACK,
            );
        }
        let what = || {
            requests
                .first()
                .map_or_else(String::new, |r| r.what.clone())
        };
        self.send(&bytes, &what)?;
        let mut outcome = Ok(());
        let mut answered = 0;
        while answered < requests.len() {
            for answer in self.receive(&what)? {
                let NetlinkPayload::Error(error) = answer.payload else {
                    continue;
                };
                answered += 1;
                let at = answer.header.sequence_number.wrapping_sub(first) as usize;
                let Some(request) = requests.get(at) else {
                    continue;
                };
                let errno = error.code.map_or(0, |code| -code.get());
                if errno != 0 && request.tolerated != Some(errno) && outcome.is_ok() {
                    outcome = Err(refused(&request.what, errno));
                }
            }
        }
        outcome
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        self.ask(message, NLM_F_DUMP, what)
    }

    /// Sends one request and gathers its answers, to the end of the dump or the first error.
    pub(crate) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, message, flags);
        let what = || what.to_owned();
        self.send(&bytes, &what)?;
        let mut found = Vec::new();
        loop {
            for answer in self.receive(&what)? {
                match answer.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(found),
                        Some(code) => return Err(refused(&what(), -code.get())),
                    },
                    _ => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], what: &dyn Fn() -> String) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0);
        sent.map(|_| ()).map_err(|source| Error::Refused {
            what: what(),
            source,
        })
    }

    fn receive(
        &self,
        what: &dyn Fn() -> String,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.socket
            .recv(&mut buffer, 0)
            .map_err(|source| Error::Refused {
                what: what(),
                source,
            })?;
        let mut messages = Vec::new();
        let mut rest = &buffer[..];
        while rest.len() >= 16 {
            let message = NetlinkMessage::deserialize(rest).map_err(|error| Error::Malformed {
                what: what(),
                detail: error.to_string(),
            })?;
            let length = (message.header.length as usize).next_multiple_of(4);
            messages.push(message);
            rest = rest.get(length.max(16)..).unwrap_or_default();
        }
        Ok(messages)
    }

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

fn refused(what: &str, errno: i32) -> Error {
    Error::Refused {
        what: what.to_owned(),
        source: io::Error::from_raw_os_error(errno),
    }
}

fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

// === requests ===

impl Request {
    fn new(message: RouteNetlinkMessage, flags: u16, what: String) -> Self {
        Request {
            message,
            flags,
            what,
            tolerated: None,
        }
    }

    /// Makes this error number a success.
    fn tolerating(mut self, errno: i32) -> Self {
        self.tolerated = Some(errno);
        self
    }
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

fn route_message(destination: IpNet) -> RouteMessage {
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

// === answers ===

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
