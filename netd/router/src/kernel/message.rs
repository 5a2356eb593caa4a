//! rtnetlink messages: encoding of routes, decoding of routes, links and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::nexthops::Command;
use super::{METRIC, PROTOCOL_BGP, TABLE_MAIN};

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_DELROUTE: u16 = 25;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_NEWNEXTHOP: u16 = 104;
pub(super) const RTM_DELNEXTHOP: u16 = 105;
pub(super) const RTM_GETNEXTHOP: u16 = 106;

const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

/// Asks for the route in the table, not for what follows from it for one packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTNH_F_LINKDOWN: u8 = 16;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTNH_F_DEAD: u8 = 1;
const RTNH_F_ONLINK: u8 = 4;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const RTN_UNICAST: u8 = 1;

const NDA_DST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const HEADER: usize = 16;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

/// Where packets go, as the kernel knows it: an address, and the interface for link-local ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The next router.
    pub gateway: IpAddr,
    /// The interface's number; the kernel finds it when absent.
    pub link: Option<u32>,
}

/// A route of ours in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Its next hops, in ascending order; those that the kernel does not use are left out.
    pub hops: Vec<Hop>,
    /// The nexthop object that it points to.
    pub object: Option<u32>,
}

/// What a route is to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// Gone.
    Gone,
    /// To these next hops.
    Hops(&'a [Hop]),
    /// To the next hops of this object.
    Object(u32),
}

/// Appends a message that makes a route what it should be. `source` is what this machine's own
/// packets over it come from, where they do not say; `None` leaves it to the kernel.
pub(super) fn put_route(
    out: &mut Vec<u8>,
    sequence: u32,
    prefix: &IpNet,
    way: Way<'_>,
    source: Option<IpAddr>,
) {
    let start = out.len();
    let (kind, flags) = match way {
        Way::Gone => (RTM_DELROUTE, NLM_F_REQUEST),
        _ => (RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE),
    };
    begin(out, kind, flags, sequence);
    let family = family_of(prefix.addr());
    let alone = match way {
        Way::Hops([only]) => Some(only),
        _ => None,
    };
    out.extend([family, prefix.prefix_len(), 0, 0]);
    out.extend([TABLE_MAIN, PROTOCOL_BGP, 0, RTN_UNICAST]);
    out.extend(u32::from(alone.map_or(0, on_link)).to_ne_bytes());
    attribute(out, RTA_DST, &octets(prefix.network()));
    attribute(out, RTA_PRIORITY, &METRIC.to_ne_bytes());
    if let Some(source) = source.filter(|_| !matches!(way, Way::Gone)) {
        attribute(out, RTA_PREFSRC, &octets(source));
    }
    match (alone, way) {
        (Some(hop), _) => put_hop(out, family, hop, true),
        (None, Way::Hops(hops)) => {
            let all = nest(out, RTA_MULTIPATH);
            for hop in hops {
                let one = out.len();
                out.extend([0, 0, on_link(hop), 0]);
                out.extend(hop.link.unwrap_or(0).to_ne_bytes());
                put_hop(out, family, hop, false);
                patch_u16(out, one);
            }
            patch_u16(out, all);
        }
        (None, Way::Object(id)) => attribute(out, RTA_NH_ID, &id.to_ne_bytes()),
        (None, Way::Gone) => {}
    }
    finish(out, start);
}

/// A next hop with an interface is there: we know, so the kernel need not look for a route to it.
fn on_link(hop: &Hop) -> u8 {
    hop.link.map_or(0, |_| RTNH_F_ONLINK)
}

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Appends a message about a nexthop object.
pub(super) fn put_nexthop(out: &mut Vec<u8>, sequence: u32, command: &Command) {
    let start = out.len();
    let make = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE;
    let (kind, flags, id) = match command {
        Command::Single { id, .. } | Command::Group { id, .. } => (RTM_NEWNEXTHOP, make, id),
        Command::Delete { id } => (RTM_DELNEXTHOP, NLM_F_REQUEST, id),
    };
    begin(out, kind, flags, sequence);
    let (family, on_link) = match command {
        Command::Single { hop, .. } => (family_of(hop.gateway), on_link(hop)),
        _ => (0, 0),
    };
    let protocol = if kind == RTM_NEWNEXTHOP {
        PROTOCOL_BGP
    } else {
        0
    };
    out.extend([family, 0, protocol, 0]);
    out.extend(u32::from(on_link).to_ne_bytes());
    attribute(out, NHA_ID, &id.to_ne_bytes());
    match command {
        Command::Single { hop, .. } => {
            attribute(out, NHA_OIF, &hop.link.unwrap_or(0).to_ne_bytes());
            attribute(out, NHA_GATEWAY, &octets(hop.gateway));
        }
        Command::Group { members, .. } => {
            // Each: the number, its weight less one, and three octets of nothing.
            let each = members.iter().flat_map(|id| {
                let [a, b, c, d] = id.to_ne_bytes();
                [a, b, c, d, 0, 0, 0, 0]
            });
            attribute(out, NHA_GROUP, &each.collect::<Vec<u8>>());
        }
        Command::Delete { .. } => {}
    }
    finish(out, start);
}

/// A nexthop object: its number and, of a group, its members.
pub(super) fn nexthop(body: &[u8]) -> Option<(u32, Vec<u32>)> {
    let all: Vec<(u16, &[u8])> = attributes(body.get(8..)?).collect();
    let of = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted);
    let (_, id) = of(NHA_ID)?;
    let group = of(NHA_GROUP).map_or(&[][..], |(_, value)| value);
    let members = group.chunks_exact(8).filter_map(|one| u32_at(one, 0));
    Some((u32_at(id, 0)?, members.collect()))
}

/// Asks the last message of a batch to be acknowledged.
pub(super) fn acknowledge(out: &mut [u8], start: usize) {
    let flags = u16::from_ne_bytes([out[start + 6], out[start + 7]]) | NLM_F_ACK;
    out[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
}

/// The sequence number of the message that begins at `start`.
pub(super) fn sequence(bytes: &[u8], start: usize) -> u32 {
    u32_at(bytes, start + 8).unwrap_or_default()
}

/// A request for all of something, with a body of zeroes but for the family.
pub(super) fn dump(kind: u16, family: u8, body: usize) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, kind, NLM_F_REQUEST | NLM_F_DUMP, 1);
    out.push(family);
    out.resize(HEADER + body, 0);
    finish(&mut out, 0);
    out
}

/// A request for the route to an address.
pub(super) fn get_route(address: IpAddr) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, RTM_GETROUTE, NLM_F_REQUEST, 1);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    out.extend([family_of(address), bits, 0, 0]);
    out.extend([0; 4]);
    out.extend(RTM_F_FIB_MATCH.to_ne_bytes());
    attribute(&mut out, RTA_DST, &octets(address));
    finish(&mut out, 0);
    out
}

/// The route to an address that was asked for: where its packets go, and its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteTo {
    /// Of the prefix; 0 is a default route.
    pub length: u8,
    /// Who made it.
    pub protocol: u8,
    /// The next router, unless the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub link: u32,
    /// What it costs.
    pub metric: u32,
}

/// The answer; none for a route that leads nowhere, or over a link that is down.
pub(super) fn route_to(body: &[u8]) -> Option<RouteTo> {
    let header = body.get(..12)?;
    let (length, protocol, kind) = (header[1], header[5], header[7]);
    let down = u32::from(RTNH_F_DEAD | RTNH_F_LINKDOWN);
    if kind != RTN_UNICAST || u32_at(header, 8)? & down != 0 {
        return None;
    }
    let (mut gateway, mut link, mut metric) = (None, None, 0);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            RTA_GATEWAY => gateway = address(value),
            RTA_VIA => gateway = address(value.get(2..)?),
            RTA_OIF => link = u32_at(value, 0),
            RTA_PRIORITY => metric = u32_at(value, 0)?,
            // One of several will do; those over dead links are left out.
            RTA_MULTIPATH => {
                let hop = next_hops(value).into_iter().next()?;
                (gateway, link) = (Some(hop.gateway), hop.link);
            }
            _ => {}
        }
    }
    Some(RouteTo {
        length,
        protocol,
        gateway,
        link: link?,
        metric,
    })
}

/// A request to forget the link-layer address of a neighbour.
pub(super) fn forget_neighbor(link: u32, address: IpAddr) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, RTM_DELNEIGH, NLM_F_REQUEST, 1);
    out.push(if address.is_ipv4() { AF_INET } else { AF_INET6 });
    out.extend([0; 3]);
    out.extend(link.to_ne_bytes());
    // State, flags, type.
    out.extend([0; 4]);
    attribute(&mut out, NDA_DST, &octets(address));
    finish(&mut out, 0);
    out
}

fn put_hop(out: &mut Vec<u8>, family: u8, hop: &Hop, with_link: bool) {
    match hop.gateway {
        IpAddr::V6(gateway) if family == AF_INET => {
            let via = nest(out, RTA_VIA);
            out.extend(u16::from(AF_INET6).to_ne_bytes());
            out.extend(gateway.octets());
            patch_u16(out, via);
        }
        gateway => attribute(out, RTA_GATEWAY, &octets(gateway)),
    }
    if let Some(link) = hop.link.filter(|_| with_link) {
        attribute(out, RTA_OIF, &link.to_ne_bytes());
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn begin(out: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32) {
    out.extend([0; 4]);
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
}

fn finish(out: &mut [u8], start: usize) {
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let start = nest(out, kind);
    out.extend(value);
    patch_u16(out, start);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn nest(out: &mut Vec<u8>, kind: u16) -> usize {
    let start = out.len();
    out.extend([0; 2]);
    out.extend(kind.to_ne_bytes());
    start
}

/// Puts the length of what began at `start` there, and fills up to a multiple of four.
fn patch_u16(out: &mut Vec<u8>, start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

/// The messages of a datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32_at(header, 0)? as usize;
        let message = Message {
            kind: u16_at(header, 4)?,
            sequence: u32_at(header, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in some octets, by number.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

/// The error number of an answer; 0 is success.
pub(super) fn error_number(message: &Message<'_>) -> Option<i32> {
    (message.kind == NLMSG_ERROR).then(|| u32_at(message.body, 0).map_or(0, |code| -(code as i32)))
}

/// A link: its number, name, and whether it carries packets.
pub(super) fn link(body: &[u8]) -> Option<(u32, String, bool)> {
    let flags = u32_at(body, 8)?;
    // With a carrier the kernel may take up to a second until packets pass (IFF_RUNNING).
    let running = (libc::IFF_UP | libc::IFF_LOWER_UP | libc::IFF_RUNNING) as u32;
    let name = attributes(body.get(16..)?)
        .find(|(kind, _)| *kind == IFLA_IFNAME)?
        .1;
    let name = String::from_utf8_lossy(name)
        .trim_end_matches('\0')
        .to_owned();
    Some((u32_at(body, 4)?, name, flags & running == running))
}

/// An address: the number of its link, and itself with the length of the link's prefix.
pub(super) fn link_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let all: Vec<(u16, &[u8])> = attributes(body.get(8..)?).collect();
    let of = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted);
    let (_, octets) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let net = IpNet::new(address(octets)?, *body.get(1)?).ok()?;
    Some((u32_at(body, 4)?, net))
}

/// A route of ours in the main table.
pub(super) fn route(body: &[u8]) -> Option<KernelRoute> {
    let header = body.get(..12)?;
    let (family, length, table, protocol) = (header[0], header[1], header[4], header[5]);
    if table != TABLE_MAIN || protocol != PROTOCOL_BGP {
        return None;
    }
    let any: IpAddr = if family == AF_INET {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let mut prefix = any;
    let dead = u32_at(header, 8)? & u32::from(RTNH_F_DEAD) != 0;
    let (mut hops, mut gateway, mut link, mut object) = (Vec::new(), None, None, None);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            RTA_DST => prefix = address(value)?,
            RTA_GATEWAY => gateway = address(value),
            RTA_VIA => gateway = address(value.get(2..)?),
            RTA_OIF => link = u32_at(value, 0),
            RTA_MULTIPATH => hops = next_hops(value),
            RTA_NH_ID => object = u32_at(value, 0),
            _ => {}
        }
    }
    hops.extend(
        gateway
            .filter(|_| !dead)
            .map(|gateway| Hop { gateway, link }),
    );
    hops.sort_unstable();
    Some(KernelRoute {
        prefix: IpNet::new(prefix, length).ok()?,
        hops,
        object,
    })
}

fn next_hops(mut bytes: &[u8]) -> Vec<Hop> {
    let mut hops = Vec::new();
    while let Some(length) = u16_at(bytes, 0)
        .map(usize::from)
        .filter(|length| *length >= 8)
    {
        let Some(one) = bytes.get(..length) else {
            break;
        };
        let dead = one[2] & RTNH_F_DEAD != 0;
        let gateway = attributes(&one[8..]).find_map(|(kind, value)| match kind {
            RTA_GATEWAY => address(value),
            RTA_VIA => address(value.get(2..)?),
            _ => None,
        });
        hops.extend(gateway.filter(|_| !dead).map(|gateway| Hop {
            gateway,
            link: u32_at(one, 4),
        }));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_up_when_packets_pass() {
        let body = |flags: libc::c_int| {
            let mut body = vec![0; 16];
            body[4] = 7;
            body[8..12].copy_from_slice(&(flags as u32).to_ne_bytes());
            body.extend([9, 0, 3, 0]);
            body.extend(b"eth1\0\0\0\0");
            body
        };
        let carrier = libc::IFF_UP | libc::IFF_LOWER_UP;
        let running = carrier | libc::IFF_RUNNING;
        for (flags, up) in [(running, true), (carrier, false), (libc::IFF_UP, false)] {
            assert_eq!(
                link(&body(flags)),
                Some((7, "eth1".to_owned(), up)),
                "{flags:x}"
            );
        }
    }

    #[test]
    fn routes_read_as_they_were_written() {
        let hop = |gateway: &str, link| Hop {
            gateway: gateway.parse().unwrap(),
            link,
        };
        let cases = [
            ("10.1.0.0/16", vec![hop("10.0.0.2", None)]),
            ("0.0.0.0/0", vec![hop("fe80::2", Some(3))]),
            (
                "10.1.0.0/16",
                vec![hop("10.0.0.2", Some(2)), hop("10.0.0.6", Some(3))],
            ),
            (
                "10.1.1.1/32",
                vec![hop("fe80::1", Some(2)), hop("fe80::1", Some(3))],
            ),
            ("fd00:1::/64", vec![hop("fd00::2", None)]),
            (
                "fd00:1::/64",
                vec![hop("fe80::1", Some(2)), hop("fe80::2", Some(3))],
            ),
        ];
        for (prefix, hops) in cases {
            let prefix: IpNet = prefix.parse().unwrap();
            let mut bytes = Vec::new();
            put_route(&mut bytes, 7, &prefix, Way::Hops(&hops), None);
            let message = messages(&bytes).next().unwrap();
            assert_eq!((message.kind, message.sequence), (RTM_NEWROUTE, 7));
            assert_eq!(bytes.len() % 4, 0);
            let object = None;
            let same = KernelRoute {
                prefix,
                hops,
                object,
            };
            assert_eq!(route(message.body), Some(same));
        }
    }

    #[test]
    fn objects_read_as_they_were_written() {
        let hop = Hop {
            gateway: "fe80::1".parse().unwrap(),
            link: Some(3),
        };
        let members = vec![6, 7];
        for (command, expected) in [
            (Command::Single { id: 9, hop }, (9, vec![])),
            (
                Command::Group {
                    id: 8,
                    members: members.clone(),
                },
                (8, members),
            ),
        ] {
            let mut bytes = Vec::new();
            put_nexthop(&mut bytes, 1, &command);
            let message = messages(&bytes).next().unwrap();
            assert_eq!(message.kind, RTM_NEWNEXTHOP);
            assert_eq!(nexthop(message.body), Some(expected));
        }
        let (prefix, mut bytes) = ("10.0.0.0/8".parse().unwrap(), Vec::new());
        put_route(&mut bytes, 1, &prefix, Way::Object(8), None);
        let message = messages(&bytes).next().unwrap();
        assert_eq!(route(message.body).unwrap().object, Some(8));
    }
}
