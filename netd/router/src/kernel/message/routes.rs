//! Routes: written, read, asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{
    AF_INET, AF_INET6, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, RTM_DELROUTE, RTM_GETROUTE,
    RTM_NEWROUTE, address, attribute, attributes, begin, family_of, finish, nest, octets, on_link,
    patch_u16, u16_at, u32_at,
};
use crate::kernel::{METRIC, PROTOCOL_BGP, TABLE_MAIN};

/// Asks for the route in the table, not for what follows from it for one packet.
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTNH_F_DEAD: u8 = 1;
const RTNH_F_LINKDOWN: u8 = 16;
const RTN_UNICAST: u8 = 1;

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
pub(in crate::kernel) enum Way<'a> {
    /// Gone.
    Gone,
    /// To these next hops.
    Hops(&'a [Hop]),
    /// To the next hops of this object.
    Object(u32),
}

/// Appends a message that makes a route what it should be. `source` is what this machine's own
/// packets over it come from, where they do not say; `None` leaves it to the kernel.
pub(in crate::kernel) fn put_route(
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

/// A request for the route to an address.
pub(in crate::kernel) fn get_route(address: IpAddr) -> Vec<u8> {
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
pub(in crate::kernel) struct RouteTo {
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
pub(in crate::kernel) fn route_to(body: &[u8]) -> Option<RouteTo> {
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

/// A route of ours in the main table.
pub(in crate::kernel) fn route(body: &[u8]) -> Option<KernelRoute> {
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
