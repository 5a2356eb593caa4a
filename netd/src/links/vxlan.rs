//! This node's ends of the tunnels: VXLAN links, one for each family that tunnels run over.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::rtnl::tunnel::{Entry, Vxlan, add_vxlan, delete_entry, replace_entry, set_mtu};
use super::rtnl::{self, Link, Request, Rtnl};
use super::{Error, sysctl};
use crate::core::ways::{Mac, Tunnel, Underlay};

/// VXLAN network identifier of pods' packets: not one that other networks of containers begin to
/// count at.
const ID: u32 = 0x70_65_61;
/// How the links' names begin.
pub const PREFIX: &str = "vxlan-pods";

/// A link that is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number.
    pub(super) link: u32,
    /// Whether it was made or set anew.
    pub(super) changed: bool,
}

/// What is the same for all tunnels over a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// Of packets inside, in bytes.
    pub(super) mtu: u32,
    /// UDP port of both ends.
    pub(super) port: u16,
}

/// The link of the tunnels over a family.
pub(crate) fn name(over: Underlay) -> &'static str {
    match over {
        Underlay::V4 => "vxlan-pods",
        Underlay::V6 => "vxlan-pods6",
    }
}

/// Whether a link is one of the tunnels'.
pub(crate) fn is_tunnel(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Makes a link as it should be, with the node's addresses, which are the source of what the node
/// itself sends through it.
pub(super) fn ensure(
    rtnl: &mut Rtnl,
    present: &[Link],
    own: Mac,
    (over, tunnel): (Underlay, &Tunnel),
    ips: &[IpAddr],
    Outer { mtu, port }: Outer,
) -> Result<Device, Error> {
    let name = name(over);
    let settings = Vxlan {
        id: ID,
        local: Some(tunnel.local),
        port,
        learning: false,
    };
    let found = present.iter().find(|link| link.name == name);
    let fits = |link: &&Link| link.vxlan == Some(settings) && link.mac == Some(own.0);
    if let Some(link) = found.filter(fits) {
        let mut requests = addresses(link.index, ips);
        if link.mtu != mtu {
            requests.push(set_mtu(link.index, mtu));
        }
        if !link.up {
            requests.push(rtnl::set_up(link.index));
        }
        rtnl.run(requests)?;
        return Ok(Device {
            link: link.index,
            changed: link.mtu != mtu || !link.up,
        });
    }
    // Most settings of a VXLAN link cannot be changed.
    let mut requests: Vec<Request> = found.map(|_| rtnl::delete_link(name)).into_iter().collect();
    requests.push(add_vxlan(name, &settings, own, mtu));
    rtnl.run(requests)?;
    let link = rtnl.link(name)?.index;
    for (family, setting, value) in [
        ("ipv6", "accept_dad", "0"),
        ("ipv6", "accept_ra", "0"),
        // Nobody is asked for neighbours on it: it needs no link-local address.
        ("ipv6", "addr_gen_mode", "1"),
        ("ipv4", "send_redirects", "0"),
    ] {
        sysctl::write_if_there(&format!("net/{family}/conf/{name}/{setting}"), value)?;
    }
    let mut requests = addresses(link, ips);
    requests.push(rtnl::set_up(link));
    rtnl.run(requests)?;
    Ok(Device {
        link,
        changed: true,
    })
}

fn addresses(link: u32, ips: &[IpAddr]) -> Vec<Request> {
    ips.iter()
        .map(|&ip| rtnl::add_address(link, ip.into()))
        .collect()
}

/// The requests that make a link's entries as wanted; stale ones first.
pub(super) fn entries(
    rtnl: &mut Rtnl,
    link: u32,
    wanted: &BTreeSet<Entry>,
) -> Result<(Vec<Request>, Vec<Request>), Error> {
    let present: BTreeSet<Entry> = rtnl.entries(link)?.into_iter().collect();
    let key = |entry: &Entry| match *entry {
        Entry::Forward(mac, _) => (Some(mac), None),
        Entry::Neighbour(_, ip) => (None, Some(ip)),
    };
    let keys: BTreeSet<_> = wanted.iter().map(key).collect();
    // A hardware address may have been led to two places: both entries have its key.
    let surplus = present.difference(wanted).filter(|entry| match entry {
        Entry::Forward(..) => true,
        Entry::Neighbour(..) => !keys.contains(&key(entry)),
    });
    let stale = surplus.map(|&entry| delete_entry(link, entry)).collect();
    let missing = wanted
        .difference(&present)
        .map(|&entry| replace_entry(link, entry));
    Ok((stale, missing.collect()))
}

/// Deletes the links that no tunnel needs; how many.
pub(super) fn remove_others(
    rtnl: &mut Rtnl,
    present: &[Link],
    needed: impl Fn(&str) -> bool,
) -> Result<usize, Error> {
    let unneeded = present
        .iter()
        .filter(|link| is_tunnel(&link.name) && !needed(&link.name));
    let requests: Vec<Request> = unneeded.map(|link| rtnl::delete_link(&link.name)).collect();
    let count = requests.len();
    rtnl.run(requests)?;
    Ok(count)
}
