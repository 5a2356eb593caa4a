//! The ways to other nodes' pods in the kernel: compared with what should be, and made so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::rtnl::tunnel::{Entry, Rule, add_rule, delete_rule};
use super::rtnl::ways::{WayRoute, delete_way, replace_way};
use super::rtnl::{Link, Request, Rtnl};
use super::{Error, alias, vxlan};
use crate::core::ways::{Class, Facts, Hop, Mac, OnLink, Underlay, Way, Ways, mac, pod_mtu};
use crate::nat::handover;

const MAIN_TABLE: u32 = 254;
/// The routing table of what is handed over to a node that leaves.
const HANDOVER_TABLE: u32 = 9_704;
/// Requests that go to the kernel as one message: their answers must fit its buffer.
const BATCH: usize = 128;

/// The connection by which ways are made. It stays open, so that news of what others do can be
/// told from what it did itself.
pub struct WayKeeper {
    rtnl: Rtnl,
    node: String,
    mtu: u32,
    vxlan_port: u16,
}

/// What the kernel was found as, and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The ways, all of them in place.
    pub ways: Ways,
    /// The links of the tunnels.
    pub links: BTreeMap<Underlay, u32>,
    /// MTU of pods' links, in bytes.
    pub pod_mtu: u32,
    /// How many entries were added or put right.
    pub added: usize,
    /// How many were taken away.
    pub removed: usize,
}

// === impl WayKeeper ===

impl WayKeeper {
    /// Opens one for the node of this name, whose pods' links have `mtu` bytes where nothing takes
    /// of them.
    /// Tunnels have `vxlan_port` at both ends.
    pub fn open(node: &str, mtu: u32, vxlan_port: u16) -> Result<Self, Error> {
        Ok(Self {
            rtnl: Rtnl::open()?,
            node: node.to_owned(),
            mtu,
            vxlan_port,
        })
    }

    /// The netlink port that it writes from.
    pub fn port(&self) -> u32 {
        self.rtnl.port()
    }

    /// Makes the kernel as the facts and the node's links want it, touching only what differs.
    pub fn keep(&mut self, facts: &Facts) -> Result<Kept, Error> {
        let links = self.rtnl.links()?;
        let addresses = self.rtnl.addresses()?;
        let ways = Ways::new(&self.node, facts, &on_link(&links, &addresses));
        let mut kept = Kept::default();
        let mut mtu = self.mtu;
        for (&over, tunnel) in &ways.tunnels {
            let outside = mtu_of(tunnel.local, &links, &addresses).unwrap_or(self.mtu);
            mtu = mtu.min(outside);
            let inside = over.mtu(outside);
            let own = mac(&self.node);
            let device = vxlan::ensure(
                &mut self.rtnl,
                &links,
                own,
                (over, tunnel),
                &facts.ips,
                vxlan::Outer {
                    mtu: inside,
                    port: self.vxlan_port,
                },
            )?;
            kept.links.insert(over, device.link);
            kept.added += usize::from(device.changed);
        }
        kept.pod_mtu = pod_mtu(facts, &ways, mtu);
        // Entries before the routes to them, and routes away before the entries.
        let (mut stale, mut missing) = (Vec::new(), Vec::new());
        for (over, &link) in &kept.links {
            let wanted = entries(&ways, *over);
            let (old, new) = vxlan::entries(&mut self.rtnl, link, &wanted)?;
            stale.extend(old);
            missing.extend(new);
        }
        let (old, new) = self.routes(&routes(&ways, &facts.ips, &kept.links))?;
        let stale: Vec<Request> = old.into_iter().chain(stale).collect();
        missing.extend(new);
        let (old, new) = self.rules(&rules(&ways))?;
        let stale: Vec<Request> = old.into_iter().chain(stale).collect();
        missing.extend(new);
        kept.added += missing.len();
        kept.removed += stale.len();
        run(&mut self.rtnl, stale)?;
        run(&mut self.rtnl, missing)?;
        let needed = |name: &str| kept.links.keys().any(|&over| vxlan::name(over) == name);
        kept.removed += vxlan::remove_others(&mut self.rtnl, &links, needed)?;
        kept.ways = ways;
        Ok(kept)
    }

    /// What is to be deleted, and what to be added.
    fn routes(
        &mut self,
        wanted: &BTreeSet<WayRoute>,
    ) -> Result<(Vec<Request>, Vec<Request>), Error> {
        let present: BTreeSet<WayRoute> = self.rtnl.ways()?.into_iter().collect();
        let place = |route: &WayRoute| (route.table, route.destination);
        let places: BTreeSet<_> = wanted.iter().map(place).collect();
        let stale = present
            .iter()
            .filter(|route| !places.contains(&place(route)));
        let missing = wanted.difference(&present);
        Ok((
            stale.map(delete_way).collect(),
            missing.map(replace_way).collect(),
        ))
    }

    fn rules(&mut self, wanted: &BTreeSet<Rule>) -> Result<(Vec<Request>, Vec<Request>), Error> {
        let present: BTreeSet<Rule> = self.rtnl.rules()?.into_iter().collect();
        let stale = present.difference(wanted).map(|&rule| delete_rule(rule));
        let missing = wanted.difference(&present).map(|&rule| add_rule(rule));
        Ok((stale.collect(), missing.collect()))
    }
}

/// Takes every way to other nodes away.
pub fn remove() -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let mut requests: Vec<Request> = rtnl.rules()?.into_iter().map(delete_rule).collect();
    requests.extend(rtnl.ways()?.iter().map(delete_way));
    run(&mut rtnl, requests)?;
    let links = rtnl.links()?;
    vxlan::remove_others(&mut rtnl, &links, |_| false)?;
    Ok(())
}

/// Runs requests in batches. All are tried; the first error is returned.
fn run(rtnl: &mut Rtnl, requests: Vec<Request>) -> Result<(), Error> {
    let mut outcome = Ok(());
    let mut requests = requests.into_iter().peekable();
    while requests.peek().is_some() {
        let batch = requests.by_ref().take(BATCH).collect();
        let ran = rtnl.run(batch);
        outcome = outcome.and(ran);
    }
    outcome
}

/// The networks that the node's links are on, without those of pods and tunnels.
fn on_link(links: &[Link], addresses: &[(u32, IpNet)]) -> Vec<OnLink> {
    let outward = links.iter().filter(|link| link.up && is_outward(link));
    let outward: BTreeSet<u32> = outward.map(|link| link.index).collect();
    let mut nets: Vec<OnLink> = addresses
        .iter()
        .filter(|(link, net)| outward.contains(link) && is_network(net))
        .map(|&(link, net)| OnLink {
            link,
            net: net.trunc(),
        })
        .collect();
    nets.sort();
    nets.dedup();
    nets
}

fn is_outward(link: &Link) -> bool {
    let pods = link.name.starts_with(alias::PREFIX) || vxlan::is_tunnel(&link.name);
    !link.loopback && !pods
}

/// MTU of the link that has an address.
fn mtu_of(ip: IpAddr, links: &[Link], addresses: &[(u32, IpNet)]) -> Option<u32> {
    let has = |link: &&Link| {
        let mut all = addresses.iter();
        all.any(|(at, net)| *at == link.index && net.addr() == ip)
    };
    let link = links.iter().filter(|link| is_outward(link)).find(has)?;
    Some(link.mtu)
}

/// Not an address alone, nor a range that every link has.
fn is_network(net: &IpNet) -> bool {
    let everywhere = match net.addr() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    net.prefix_len() < net.max_prefix_len() && !everywhere
}

/// Every route, once the links of the tunnels are known.
fn routes(ways: &Ways, ips: &[IpAddr], links: &BTreeMap<Underlay, u32>) -> BTreeSet<WayRoute> {
    let source = |v4: bool| ips.iter().copied().find(|ip| ip.is_ipv4() == v4);
    let blocks = ways.blocks.iter().filter_map(|(&block, way)| {
        let (link, gateway, onlink) = match *way {
            Way::Direct { link, gateway } => (link, gateway, false),
            Way::Tunnel(hop) => (*links.get(&hop.over)?, hop.to.next_hop(block), true),
        };
        Some(WayRoute {
            table: MAIN_TABLE,
            destination: block.trunc(),
            gateway,
            link,
            onlink,
            source: source(gateway.is_ipv4()),
        })
    });
    let nodes = ways.nodes.iter().filter_map(|(&(class, ip), hop)| {
        let destination = IpNet::from(ip);
        Some(WayRoute {
            table: table(class),
            destination,
            gateway: hop.to.next_hop(destination),
            link: *links.get(&hop.over)?,
            onlink: true,
            source: None,
        })
    });
    blocks
        .chain(nodes)
        .chain(handover_routes(ways, links))
        .collect()
}

/// Whatever is handed over goes by these.
fn handover_routes<'a>(
    ways: &'a Ways,
    links: &'a BTreeMap<Underlay, u32>,
) -> impl Iterator<Item = WayRoute> + 'a {
    let all = ways.handover.iter().flat_map(|handover| &handover.ways);
    all.filter_map(|(&ip, way)| {
        let (link, gateway, onlink) = match *way {
            Way::Direct { link, gateway } => (link, gateway, false),
            Way::Tunnel(hop) => (*links.get(&hop.over)?, hop.to.next_hop(ip.into()), true),
        };
        Some(WayRoute {
            table: HANDOVER_TABLE,
            destination: everything(ip.is_ipv4()),
            gateway,
            link,
            onlink,
            source: None,
        })
    })
}

fn everything(v4: bool) -> IpNet {
    let any: IpAddr = match v4 {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new_assert(any, 0)
}

/// The routing table in which pods of a class find the addresses of other nodes.
fn table(class: Class) -> u32 {
    match class {
        Class::Vxlan => 9_701,
        Class::CrossSubnet => 9_702,
        Class::Decided => 9_703,
    }
}

fn rules(ways: &Ways) -> BTreeSet<Rule> {
    let rule = |(&from, &class)| Rule {
        from,
        mark: None,
        table: table(class),
    };
    let handover = ways
        .handover
        .iter()
        .flat_map(|handover| handover.ways.keys());
    let handover = handover.map(|ip| Rule {
        from: everything(ip.is_ipv4()),
        mark: Some(handover::MARK),
        table: HANDOVER_TABLE,
    });
    ways.returns.iter().map(rule).chain(handover).collect()
}

/// What the link of the tunnels over a family must know.
fn entries(ways: &Ways, over: Underlay) -> BTreeSet<Entry> {
    let far = ways
        .tunnels
        .get(&over)
        .into_iter()
        .flat_map(|tunnel| &tunnel.far);
    let forward = far.map(|(&to, &remote)| Entry::Forward(to, remote));
    let blocks = ways.blocks.iter().filter_map(|(&block, way)| match way {
        Way::Tunnel(hop) => Some((*hop, block)),
        Way::Direct { .. } => None,
    });
    let nodes = ways
        .nodes
        .iter()
        .map(|(&(_, ip), &hop)| (hop, IpNet::from(ip)));
    let handover = ways.handover.iter().flat_map(|handover| &handover.ways);
    let handover = handover.filter_map(|(&ip, way)| match way {
        Way::Tunnel(hop) => Some((*hop, IpNet::from(ip))),
        Way::Direct { .. } => None,
    });
    let hops = blocks.chain(nodes).chain(handover);
    let hops = hops.filter(|(hop, _)| hop.over == over);
    let neighbour = |(Hop { to, .. }, range): (Hop, IpNet)| {
        let to: Mac = to;
        Entry::Neighbour(to, to.next_hop(range))
    };
    forward.chain(hops.map(neighbour)).collect()
}
