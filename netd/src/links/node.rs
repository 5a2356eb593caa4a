//! What the node itself needs: forwarding, blackholes for its blocks, a way to service
//! addresses, and the MTU.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::rtnl::{self, NewRoute, Rtnl};
use super::{Error, ROUTE_PROTOCOL, alias, sysctl};

/// MTU where there is no uplink to learn it from.
const DEFAULT_MTU: u32 = 1500;
const MAIN_TABLE: u32 = 254;

/// Lets the node forward packets. What the settings were is recorded in `state_dir`.
pub fn enable_forwarding(state_dir: &Path) -> Result<(), Error> {
    let mut settings = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    if sysctl::has_ipv6() {
        // A router ignores router advertisements unless told not to: a laptop would lose its
        // own way out.
        for link in Rtnl::open()?.links()? {
            let key = format!("net/ipv6/conf/{}/accept_ra", link.name);
            if sysctl::read(&key).is_some_and(|value| value == "1") && !link.loopback {
                settings.push((key, "2"));
            }
        }
        settings.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    sysctl::set_recorded(state_dir, &settings)
}

/// The MTU of the link that a default route leaves by.
pub fn uplink_mtu() -> Result<u32, Error> {
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    for v6 in [false, true] {
        let routes = rtnl.routes(v6)?;
        let default = routes.iter().find(|route| {
            route.destination.prefix_len() == 0 && route.table == MAIN_TABLE && !route.blackhole
        });
        let link = default.and_then(|route| links.iter().find(|l| Some(l.index) == route.link));
        if let Some(link) = link {
            return Ok(link.mtu);
        }
    }
    Ok(DEFAULT_MTU)
}

/// Routes that the node should have, beside those to its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRoutes {
    /// Blocks that this node owns: an address of them that no pod has goes nowhere.
    pub blocks: Vec<IpNet>,
    /// Ranges of service addresses. They are translated before they are routed, but a program
    /// on the node cannot even send where there is no route: so there is one, by `lo`.
    pub services: Vec<IpNet>,
    /// The node's own addresses: the source of what it sends to services.
    pub node_ips: Vec<IpAddr>,
    /// MTU of pods' links.
    pub mtu: u32,
}

/// Makes the node's routes as wanted, touching only those that differ.
pub fn ensure_routes(wanted: &NodeRoutes) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let links = rtnl.links()?;
    let mut present = rtnl.routes(false)?;
    present.extend(rtnl.routes(true)?);
    let ours: BTreeSet<IpNet> = present
        .iter()
        .filter(|route| route.protocol == ROUTE_PROTOCOL && route.table == MAIN_TABLE)
        .filter(|route| !is_pod_route(route.link, &links))
        .map(|route| route.destination)
        .collect();
    let loopback = links.iter().find(|link| link.loopback).map(|l| l.index);
    let blackholes = wanted.blocks.iter().map(|&block| NewRoute {
        destination: block.trunc(),
        link: None,
        gateway: None,
        source: None,
        mtu: None,
        tagged: true,
    });
    let services = wanted.services.iter().map(|&range| NewRoute {
        destination: range.trunc(),
        link: loopback,
        gateway: None,
        source: same_family(&wanted.node_ips, range),
        mtu: Some(wanted.mtu),
        tagged: true,
    });
    let routes: Vec<NewRoute> = blackholes.chain(services).collect();
    let keep: BTreeSet<IpNet> = routes.iter().map(|route| route.destination).collect();
    let mut requests: Vec<_> = ours
        .difference(&keep)
        .map(|&d| rtnl::delete_route(d))
        .collect();
    let missing = routes.iter().filter(|r| !ours.contains(&r.destination));
    requests.extend(missing.map(rtnl::replace_route));
    rtnl.run(requests)
}

fn is_pod_route(link: Option<u32>, links: &[rtnl::Link]) -> bool {
    links
        .iter()
        .any(|l| Some(l.index) == link && l.name.starts_with(alias::PREFIX))
}

fn same_family(ips: &[IpAddr], range: IpNet) -> Option<IpAddr> {
    let mut ips = ips.iter().copied();
    ips.find(|ip| ip.is_ipv4() == range.addr().is_ipv4())
}

/// Adds an address to `lo`.
pub fn add_local_address(ip: IpAddr) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let loopback = rtnl.link("lo")?.index;
    rtnl.run(vec![
        rtnl::set_up(loopback),
        rtnl::add_address(loopback, ip.into()),
    ])
}

/// Takes an address from `lo`; one that is not there is fine.
pub fn remove_local_address(ip: IpAddr) -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let loopback = rtnl.link("lo")?.index;
    rtnl.run(vec![rtnl::delete_address(loopback, ip.into())])
}

/// Deletes every route of this agent.
pub fn remove_routes() -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let mut present = rtnl.routes(false)?;
    present.extend(rtnl.routes(true)?);
    let ours = present.iter().filter(|r| r.protocol == ROUTE_PROTOCOL);
    let requests = ours.map(|r| rtnl::delete_route(r.destination)).collect();
    rtnl.run(requests)
}
