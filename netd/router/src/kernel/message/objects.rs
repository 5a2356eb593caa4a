//! Nexthop objects: written and read.

use super::{
    NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, RTM_DELNEXTHOP, RTM_NEWNEXTHOP, attribute,
    attributes, begin, family_of, finish, octets, on_link, u32_at,
};
use crate::kernel::PROTOCOL_BGP;
use crate::kernel::nexthops::Command;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

/// Appends a message about a nexthop object.
pub(in crate::kernel) fn put_nexthop(out: &mut Vec<u8>, sequence: u32, command: &Command) {
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
pub(in crate::kernel) fn nexthop(body: &[u8]) -> Option<(u32, Vec<u32>)> {
    let all: Vec<(u16, &[u8])> = attributes(body.get(8..)?).collect();
    let of = |wanted: u16| all.iter().find(|(kind, _)| *kind == wanted);
    let (_, id) = of(NHA_ID)?;
    let group = of(NHA_GROUP).map_or(&[][..], |(_, value)| value);
    let members = group.chunks_exact(8).filter_map(|one| u32_at(one, 0));
    Some((u32_at(id, 0)?, members.collect()))
}
