//! Which route a flow takes: the kernel's own answer for the flow's key, and all next hops of
//! the route that it chose from.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use crate::links::rtnl::Rtnl;
use crate::links::vxlan::is_tunnel;
use crate::links::{Error, ROUTE_PROTOCOL, WAY_PROTOCOL};

/// A flow, as far as routing looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Where it comes from; `None` lets the kernel choose.
    pub source: Option<IpAddr>,
    /// Where it goes.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 for none.
    pub source_port: u16,
    /// Destination port; 0 for none.
    pub destination_port: u16,
    /// The link that it comes in by, for a packet that is forwarded.
    pub input: Option<u32>,
}

/// What is done with packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// They are sent on.
    Forwarded,
    /// They are for this very namespace.
    Local,
    /// They are dropped silently.
    Blackhole,
    /// They are refused.
    Refused,
}

/// A next hop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The gateway; `None` for what is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link's name.
    pub link: String,
    /// Whether the kernel leaves it out: dead, or its link is down.
    pub down: bool,
}

/// The kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// What is done with the packets.
    pub fate: Fate,
    /// The next hop that this flow takes.
    pub next_hop: Option<NextHop>,
    /// The source address, as chosen.
    pub source: Option<IpAddr>,
    /// The route that it was chosen from; `None` for the one to everything.
    pub prefix: Option<IpNet>,
    /// Who installed that route.
    pub protocol: String,
    /// All next hops of that route, the chosen one among them.
    pub alternatives: Vec<NextHop>,
}

/// Asks which route a flow takes.
///
/// # Errors
/// If the kernel has none, or cannot be asked.
pub fn lookup(flow: &Flow) -> Result<Chosen, Error> {
    let mut kernel = Rtnl::open()?;
    let links = kernel.links()?;
    let name = |index: u32| {
        let found = links.iter().find(|link| link.index == index);
        found.map_or_else(|| format!("if{index}"), |link| link.name.clone())
    };
    let what = format!("find a route to {}", flow.destination);
    let result = ask(&mut kernel, flow, false, &what)?;
    // Without a route of the table there is an answer still: unreachable, or a policy's.
    let matched = ask(&mut kernel, flow, true, &what)?;
    let taken = next_hops(&result, &name);
    let fate = match result.header.kind {
        RouteType::Local => Fate::Local,
        RouteType::BlackHole => Fate::Blackhole,
        RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => Fate::Refused,
        _ => Fate::Forwarded,
    };
    Ok(Chosen {
        fate,
        source: result.attributes.iter().find_map(|one| match one {
            RouteAttribute::PrefSource(address) => address_of(address),
            _ => None,
        }),
        prefix: prefix(&matched),
        protocol: protocol(matched.header.protocol.into(), &taken),
        alternatives: next_hops(&matched, &name),
        next_hop: taken.into_iter().next(),
    })
}

fn ask(
    kernel: &mut Rtnl,
    flow: &Flow,
    table_entry: bool,
    what: &str,
) -> Result<RouteMessage, Error> {
    let answers = kernel.ask(
        RouteNetlinkMessage::GetRoute(question(flow, table_entry)),
        NLM_F_ACK,
        what,
    )?;
    let mut routes = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    routes.next().ok_or_else(|| Error::Malformed {
        what: what.to_owned(),
        detail: "it has no route in it".to_owned(),
    })
}

fn question(flow: &Flow, table_entry: bool) -> RouteMessage {
    let mut message = RouteMessage::default();
    let length = |ip: IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    message.header.address_family = match flow.destination {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = length(flow.destination);
    message.header.flags = match table_entry {
        true => RouteFlags::LookupTable | RouteFlags::FibMatch,
        false => RouteFlags::LookupTable,
    };
    let mut attributes = vec![RouteAttribute::Destination(flow.destination.into())];
    if let Some(source) = flow.source {
        message.header.source_prefix_length = length(source);
        attributes.push(RouteAttribute::Source(source.into()));
    }
    attributes.extend(flow.input.map(RouteAttribute::Iif));
    // The kernel takes ports of these only.
    if matches!(
        i32::from(flow.protocol),
        libc::IPPROTO_TCP | libc::IPPROTO_UDP
    ) {
        attributes.push(RouteAttribute::IpProto(flow.protocol));
        if flow.source_port != 0 {
            attributes.push(RouteAttribute::Sport(flow.source_port));
        }
        if flow.destination_port != 0 {
            attributes.push(RouteAttribute::Dport(flow.destination_port));
        }
    }
    message.attributes = attributes;
    message
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn prefix(route: &RouteMessage) -> Option<IpNet> {
    let destination = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Destination(address) => address_of(address),
        _ => None,
    });
    IpNet::new(destination?, route.header.destination_prefix_length).ok()
}

/// The next hops of a route: its own, or those of its group.
fn next_hops(route: &RouteMessage, name: &dyn Fn(u32) -> String) -> Vec<NextHop> {
    let several = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    if let Some(hops) = several {
        let hops = hops.iter().map(|hop| NextHop {
            gateway: gateway(&hop.attributes),
            link: name(hop.interface_index),
            down: hop
                .flags
                .intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
        });
        return hops.collect();
    }
    let link = route.attributes.iter().find_map(|one| match one {
        RouteAttribute::Oif(index) => Some(name(*index)),
        _ => None,
    });
    let hop = link.map(|link| NextHop {
        gateway: gateway(&route.attributes),
        link,
        down: route
            .header
            .flags
            .intersects(RouteFlags::Dead | RouteFlags::Linkdown),
    });
    hop.into_iter().collect()
}

fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|one| match one {
        RouteAttribute::Gateway(address) => address_of(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some((*ip).into()),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some((*ip).into()),
        _ => None,
    })
}

/// Who installed a route (`/etc/iproute2/rt_protos`, and our own): for ways to other nodes, which
/// they are.
fn protocol(number: u8, taken: &[NextHop]) -> String {
    match number {
        WAY_PROTOCOL if taken.iter().any(|hop| is_tunnel(&hop.link)) => "vxlan".to_owned(),
        WAY_PROTOCOL => "direct".to_owned(),
        2 => "kernel".to_owned(),
        3 => "boot".to_owned(),
        4 => "static".to_owned(),
        9 => "ra".to_owned(),
        16 => "dhcp".to_owned(),
        186 => "bgp".to_owned(),
        ROUTE_PROTOCOL => "peapod".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_local() {
        let flow = Flow {
            source: None,
            destination: "127.0.0.1".parse().unwrap(),
            protocol: libc::IPPROTO_TCP as u8,
            source_port: 0,
            destination_port: 80,
            input: None,
        };
        let chosen = lookup(&flow).unwrap();
        assert_eq!(chosen.fate, Fate::Local);
        assert_eq!(chosen.next_hop.unwrap().link, "lo");
    }
}
