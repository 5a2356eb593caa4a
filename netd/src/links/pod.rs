//! Connecting one pod: a veth pair, its addresses and routes.
//!
//! ```text
//!   pod's namespace                     node
//!   eth0  10.244.0.5/32                 pea0c4f...  169.254.1.1/32, fe80::1/64
//!         fd00:10:244::5/128            10.244.0.5/32 and fd00:10:244::5/128 by this link
//!         default by 169.254.1.1, fe80::1
//! ```
//!
//! The alias is set last: a link without one is the leftover of an attempt that was cut short.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use peapod_api::attach::PodRef;

use super::rtnl::{self, NewRoute, Rtnl};
use super::{Error, alias, netns, sysctl};

/// Every pod's IPv4 gateway, on the node's end of its link.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Every pod's IPv6 gateway.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The pod's end of the link, where nobody asked for another name.
pub const INTERFACE: &str = "eth0";

/// A pod to connect.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// The pod.
    pub pod: PodRef,
    /// Its pinned network namespace.
    pub netns: PathBuf,
    /// Name of the pod's end of the link.
    pub interface: String,
    /// Its addresses, at most one of each family.
    pub ips: Vec<IpAddr>,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// The node's own addresses: where what the node sends to the pod comes from.
    pub node_ips: Vec<IpAddr>,
}

/// A pod that the kernel shows as connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The pod.
    pub pod: PodRef,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// The link on the node.
    pub link: String,
    /// Bytes.
    pub mtu: u32,
}

/// Connects a pod whose link does not exist yet.
pub fn connect(wiring: &Wiring) -> Result<(), Error> {
    let name = alias::link_name(&wiring.pod.uid);
    let mut inside = netns::inside(&wiring.netns, || {
        // New links take these over: no second of waiting for duplicate address detection, and
        // no router but the node.
        sysctl::write_if_there("net/ipv6/conf/default/accept_dad", "0")?;
        sysctl::write_if_there("net/ipv6/conf/default/accept_ra", "0")?;
        Rtnl::open()
    })?;
    let namespace = File::open(&wiring.netns).map_err(|source| Error::Namespace {
        path: wiring.netns.clone(),
        source,
    })?;
    let mut here = Rtnl::open()?;
    let veth = rtnl::add_veth(&name, &wiring.interface, namespace.as_raw_fd(), wiring.mtu);
    here.run(vec![veth])?;
    node_end(&mut here, &name, wiring)?;
    pod_end(&mut inside, &wiring.interface, &wiring.ips)?;
    let index = here.link(&name)?.index;
    here.run(vec![rtnl::set_alias(
        index,
        &alias::encode(&wiring.pod, &wiring.ips),
    )])
}

fn node_end(here: &mut Rtnl, name: &str, wiring: &Wiring) -> Result<(), Error> {
    let index = here.link(name)?.index;
    for (key, value) in [
        ("ipv6", "accept_dad=0"),
        // The only link-local address is the gateway's.
        ("ipv6", "addr_gen_mode=1"),
        // A pod sends from its own addresses only.
        ("ipv4", "rp_filter=1"),
        // Answers to what the node sent from 127.0.0.1 to a node port may come in here; the
        // tables drop what pods send there themselves.
        ("ipv4", "route_localnet=1"),
        // A pod that reaches itself through a service must not be told of a shorter way.
        ("ipv4", "send_redirects=0"),
    ] {
        let (setting, value) = value.split_once('=').unwrap_or((value, ""));
        sysctl::write_if_there(&format!("net/{key}/conf/{name}/{setting}"), value)?;
    }
    let mut requests = vec![rtnl::set_up(index)];
    let has_v4 = wiring.ips.iter().any(IpAddr::is_ipv4);
    if has_v4 {
        requests.push(rtnl::add_link_local_address(index, host(GATEWAY_V4.into())));
    }
    if wiring.ips.iter().any(IpAddr::is_ipv6) {
        requests.push(rtnl::add_link_local_address(
            index,
            on_link(GATEWAY_V6.into()),
        ));
    }
    for &ip in &wiring.ips {
        let mut own = wiring.node_ips.iter().copied();
        requests.push(rtnl::replace_route(&NewRoute {
            destination: host(ip),
            link: Some(index),
            gateway: None,
            source: own.find(|node| node.is_ipv4() == ip.is_ipv4()),
            mtu: None,
            tagged: true,
        }));
    }
    here.run(requests)
}

fn pod_end(inside: &mut Rtnl, interface: &str, ips: &[IpAddr]) -> Result<(), Error> {
    let loopback = inside.link("lo")?.index;
    let index = inside.link(interface)?.index;
    let mut requests = vec![rtnl::set_up(loopback), rtnl::set_up(index)];
    for &ip in ips {
        requests.push(rtnl::add_address(index, host(ip)));
    }
    for &ip in ips {
        let (gateway, everywhere) = match ip {
            IpAddr::V4(_) => (GATEWAY_V4.into(), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            IpAddr::V6(_) => (GATEWAY_V6.into(), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        };
        let route = |destination, gateway| NewRoute {
            destination,
            link: Some(index),
            gateway,
            source: None,
            mtu: None,
            tagged: false,
        };
        if ip.is_ipv4() {
            requests.push(rtnl::replace_route(&route(host(gateway), None)));
        }
        let everywhere = IpNet::new_assert(everywhere, 0);
        requests.push(rtnl::replace_route(&route(everywhere, Some(gateway))));
    }
    inside.run(requests)
}

/// Whether the namespace at `path` holds the other end of the pod's link.
pub fn is_in(path: &Path, pod: &PodRef, interface: &str) -> Result<bool, Error> {
    let Ok(link) = Rtnl::open()?.link(&alias::link_name(&pod.uid)) else {
        return Ok(false);
    };
    let found = netns::inside(path, || match Rtnl::open()?.link(interface) {
        Ok(end) => Ok(Some(end)),
        Err(Error::NoLink(_)) => Ok(None),
        Err(error) => Err(error),
    })?;
    Ok(found.is_some_and(|end| Some(end.index) == link.peer && end.peer == Some(link.index)))
}

/// What of a connected pod is not in the kernel as [`connect`] made it.
pub fn faults(path: &Path, interface: &str, pod: &Connected) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    let mut here = Rtnl::open()?;
    match here.link(&pod.link) {
        Ok(link) => {
            for &ip in &pod.ips {
                let routes = here.routes(ip.is_ipv6())?;
                let leads =
                    |r: &rtnl::Route| r.destination == host(ip) && r.link == Some(link.index);
                if !routes.iter().any(leads) {
                    faults.push(format!("the node has no route to {ip} by {}", pod.link));
                }
            }
        }
        Err(Error::NoLink(name)) => faults.push(format!("the node has no link {name}")),
        Err(error) => return Err(error),
    }
    if !is_in(path, &pod.pod, interface)? {
        faults.push(format!("{interface} is not the other end of {}", pod.link));
        return Ok(faults);
    }
    faults.extend(netns::inside(path, || faults_inside(interface, &pod.ips))?);
    Ok(faults)
}

fn faults_inside(interface: &str, ips: &[IpAddr]) -> Result<Vec<String>, Error> {
    let mut inside = Rtnl::open()?;
    let index = inside.link(interface)?.index;
    let addresses = inside.addresses()?;
    let mut faults = Vec::new();
    for &ip in ips {
        if !addresses.contains(&(index, host(ip))) {
            faults.push(format!("{interface} has no address {ip}"));
        }
        let routes = inside.routes(ip.is_ipv6())?;
        let out = |r: &rtnl::Route| r.destination.prefix_len() == 0 && r.link == Some(index);
        if !routes.iter().any(out) {
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            faults.push(format!(
                "there is no default route for {family} by {interface}"
            ));
        }
    }
    Ok(faults)
}

/// Takes a pod's routes away: nothing reaches it any more. Its link still stands.
pub fn unroute(ips: &[IpAddr]) -> Result<(), Error> {
    let requests = ips.iter().map(|&ip| rtnl::delete_route(host(ip)));
    Rtnl::open()?.run(requests.collect())
}

/// Deletes a pod's link, which takes tens of milliseconds. One that is gone is fine.
pub fn delete(link: &str) -> Result<(), Error> {
    Rtnl::open()?.run(vec![rtnl::delete_link(link)])
}

/// The pods that are connected, and the names of links that were never finished.
pub fn list() -> Result<(Vec<Connected>, Vec<String>), Error> {
    let mut connected = Vec::new();
    let mut unfinished = Vec::new();
    for link in Rtnl::open()?.links()? {
        if !link.name.starts_with(alias::PREFIX) {
            continue;
        }
        match alias::decode(&link.alias) {
            Some((pod, ips)) => connected.push(Connected {
                pod,
                ips,
                link: link.name,
                mtu: link.mtu,
            }),
            None => unfinished.push(link.name),
        }
    }
    Ok((connected, unfinished))
}

/// An address alone: /32 or /128.
pub fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

fn on_link(ip: IpAddr) -> IpNet {
    IpNet::new_assert(ip, 64)
}
