//! VXLAN links, what their forwarding tables say, and who is behind them; and the rules that lead
//! pods' packets there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Request, Rtnl, family};
use crate::core::ways::Mac;
use crate::links::WAY_PROTOCOL;

/// Before the rule of the main table (32766), behind that of the node's own addresses (0).
const RULE_PRIORITY: u32 = 9_700;

/// A VXLAN link's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub id: u32,
    /// Address that packets are sent from, outside of the tunnel.
    pub local: Option<IpAddr>,
    /// UDP port.
    pub port: u16,
    /// Whether it learns from where hardware addresses send.
    pub learning: bool,
}

/// An entry of a VXLAN link: a hardware address, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    /// In the forwarding table: the node's address outside of the tunnel.
    Forward(Mac, IpAddr),
    /// Of a next hop inside of the tunnel.
    Neighbour(Mac, IpAddr),
}

/// A rule: some packets look into a table of its own first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Where they come from: a range, or anywhere.
    pub from: IpNet,
    /// The mark that they carry, where they must carry one.
    pub mark: Option<u32>,
    /// The table.
    pub table: u32,
}

impl Rtnl {
    /// The permanent entries of a VXLAN link.
    pub fn entries(&mut self, link: u32) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let families = [
            AddressFamily::Bridge,
            AddressFamily::Inet,
            AddressFamily::Inet6,
        ];
        for of in families {
            let mut message = NeighbourMessage::default();
            message.header.family = of;
            let request = RouteNetlinkMessage::GetNeighbour(message);
            let listed = self.dump(request, "list neighbours")?;
            found.extend(
                listed
                    .into_iter()
                    .filter_map(|message| read_entry(message, link)),
            );
        }
        Ok(found)
    }

    /// The rules that were made earlier, of both families.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        let mut found = Vec::new();
        for v6 in [false, true] {
            let mut message = RuleMessage::default();
            message.header.family = family(v6);
            let request = RouteNetlinkMessage::GetRule(message);
            let listed = self.dump(request, "list rules")?;
            found.extend(listed.into_iter().filter_map(read_rule));
        }
        Ok(found)
    }
}

/// Adds a VXLAN link, down, that neither floods nor learns.
pub fn add_vxlan(name: &str, settings: &Vxlan, mac: Mac, mtu: u32) -> Request {
    let mut data = vec![
        InfoVxlan::Id(settings.id),
        InfoVxlan::Port(settings.port),
        InfoVxlan::Learning(settings.learning),
    ];
    data.extend(settings.local.map(|local| match local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }));
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vxlan),
            LinkInfo::Data(InfoData::Vxlan(data)),
        ]),
    ];
    Request::new(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add the VXLAN link {name}"),
    )
}

/// Sets a link's MTU.
pub fn set_mtu(index: u32, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    Request::new(
        RouteNetlinkMessage::SetLink(message),
        0,
        format!("set the MTU of link {index} to {mtu}"),
    )
}

/// Adds an entry, in place of another with the same key.
pub fn replace_entry(link: u32, entry: Entry) -> Request {
    let mut message = entry_message(link, entry);
    let (Entry::Forward(mac, _) | Entry::Neighbour(mac, _)) = entry;
    message.header.state = NeighbourState::Permanent;
    if let Entry::Neighbour(..) = entry {
        let attribute = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
        message.attributes.push(attribute);
    }
    Request::new(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        format!("add {}", describe(entry)),
    )
}

/// Deletes an entry; one that is gone is fine.
pub fn delete_entry(link: u32, entry: Entry) -> Request {
    Request::new(
        RouteNetlinkMessage::DelNeighbour(entry_message(link, entry)),
        0,
        format!("delete {}", describe(entry)),
    )
    .tolerating(libc::ENOENT)
}

fn describe(entry: Entry) -> String {
    match entry {
        Entry::Forward(mac, ip) => format!("forwarding entry {mac} to {ip}"),
        Entry::Neighbour(mac, ip) => format!("neighbour {ip} at {mac}"),
    }
}

fn entry_message(link: u32, entry: Entry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = link;
    message.header.kind = RouteType::Unspec;
    let (Entry::Forward(_, ip) | Entry::Neighbour(_, ip)) = entry;
    match entry {
        Entry::Forward(mac, _) => {
            message.header.family = AddressFamily::Bridge;
            message.header.flags = NeighbourFlags::Own;
            let attribute = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
            message.attributes.push(attribute);
        }
        Entry::Neighbour(..) => message.header.family = family(ip.is_ipv6()),
    }
    message
        .attributes
        .push(NeighbourAttribute::Destination(ip.into()));
    message
}

/// Adds a rule; one that is there is fine.
pub fn add_rule(rule: Rule) -> Request {
    Request::new(
        RouteNetlinkMessage::NewRule(rule_message(rule)),
        NLM_F_CREATE | NLM_F_EXCL,
        format!("add the rule from {}", rule.from),
    )
    .tolerating(libc::EEXIST)
}

/// Deletes a rule; one that is gone is fine.
pub fn delete_rule(rule: Rule) -> Request {
    Request::new(
        RouteNetlinkMessage::DelRule(rule_message(rule)),
        0,
        format!("delete the rule from {}", rule.from),
    )
    .tolerating(libc::ENOENT)
}

fn rule_message(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.from.addr().is_ipv6());
    message.header.src_len = rule.from.prefix_len();
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.attributes = vec![
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(RULE_PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::Other(WAY_PROTOCOL)),
    ];
    let attributes = &mut message.attributes;
    if rule.from.prefix_len() > 0 {
        attributes.push(RuleAttribute::Source(rule.from.addr()));
    }
    attributes.extend(rule.mark.map(RuleAttribute::FwMark));
    message
}

// === answers ===

pub(super) fn read_vxlan(attributes: &[LinkAttribute]) -> Option<Vxlan> {
    let infos = attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let data = infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let mut vxlan = Vxlan {
        id: 0,
        local: None,
        port: 0,
        learning: false,
    };
    for setting in data {
        match *setting {
            InfoVxlan::Id(id) => vxlan.id = id,
            InfoVxlan::Local(ip) => vxlan.local = Some(ip.into()),
            InfoVxlan::Local6(ip) => vxlan.local = Some(ip.into()),
            InfoVxlan::Port(port) => vxlan.port = port,
            InfoVxlan::Learning(learning) => vxlan.learning = learning,
            _ => {}
        }
    }
    Some(vxlan)
}

fn read_entry(message: RouteNetlinkMessage, link: u32) -> Option<Entry> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else {
        return None;
    };
    let header = &message.header;
    if header.ifindex != link || header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut mac, mut ip) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => mac = octets.first_chunk().copied(),
            NeighbourAttribute::Destination(to) => ip = address(to),
            _ => {}
        }
    }
    let (mac, ip) = (Mac(mac?), ip?);
    Some(match header.family {
        AddressFamily::Bridge => Entry::Forward(mac, ip),
        _ => Entry::Neighbour(mac, ip),
    })
}

fn address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        // As the forwarding table has it.
        NeighbourAddress::Other(octets) => match octets.len() {
            4 => octets
                .first_chunk::<4>()
                .map(|octets| IpAddr::from(*octets)),
            16 => octets
                .first_chunk::<16>()
                .map(|octets| IpAddr::from(*octets)),
            _ => None,
        },
        _ => None,
    }
}

fn read_rule(message: RouteNetlinkMessage) -> Option<Rule> {
    let RouteNetlinkMessage::NewRule(message) = message else {
        return None;
    };
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(WAY_PROTOCOL));
    if !message.attributes.contains(&ours) {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let mut from: IpAddr = match message.header.family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut mark = None;
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(ip) => from = ip,
            RuleAttribute::FwMark(number) => mark = Some(number),
            RuleAttribute::Table(number) => table = number,
            _ => {}
        }
    }
    let from = IpNet::new(from, message.header.src_len).ok()?;
    Some(Rule { from, mark, table })
}
