//! rtnetlink messages: how they are framed. What they are about stands in [`routes`], [`objects`] and
//! [`links`].

mod links;
mod objects;
mod routes;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) use links::{forget_neighbor, link, link_address};
pub(super) use objects::{nexthop, put_nexthop};
pub use routes::{Hop, KernelRoute};
pub(super) use routes::{RouteTo, Way, get_route, put_route, route, route_to};

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

const RTNH_F_ONLINK: u8 = 4;
const HEADER: usize = 16;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;

fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
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

/// A next hop with an interface is there: we know, so the kernel need not look for a route to it.
fn on_link(hop: &Hop) -> u8 {
    hop.link.map_or(0, |_| RTNH_F_ONLINK)
}
