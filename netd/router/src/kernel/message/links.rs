//! Links, their addresses, and who is behind them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    NLM_F_REQUEST, RTM_DELNEIGH, address, attribute, attributes, begin, family_of, finish, octets,
    u32_at,
};

const NDA_DST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// A link: its number, name, and whether it carries packets.
pub(in crate::kernel) fn link(body: &[u8]) -> Option<(u32, String, bool)> {
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
pub(in crate::kernel) fn link_address(body: &[u8]) -> Option<(u32, IpNet)> {
    let all: Vec<(u16, &[u8])> = attributes(body.get(8..)?).collect();
    let of = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted);
    let (_, octets) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    let net = IpNet::new(address(octets)?, *body.get(1)?).ok()?;
    Some((u32_at(body, 4)?, net))
}

/// A request to forget the link-layer address of a neighbour.
pub(in crate::kernel) fn forget_neighbor(link: u32, address: IpAddr) -> Vec<u8> {
    let mut out = Vec::new();
    begin(&mut out, RTM_DELNEIGH, NLM_F_REQUEST, 1);
    out.push(family_of(address));
    out.extend([0; 3]);
    out.extend(link.to_ne_bytes());
    // State, flags, type.
    out.extend([0; 4]);
    attribute(&mut out, NDA_DST, &octets(address));
    finish(&mut out, 0);
    out
}
