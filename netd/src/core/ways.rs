//! How this node reaches the pods of others: over a link that both are on, or through a VXLAN
//! tunnel (RFC 7348). Pure.
//!
//! Nothing is flooded or learned in a tunnel. What its other end must be told follows from names
//! and addresses that every node knows: the hardware address of a node's end is made of the node's
//! name, and behind it is the node's own address.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use peapod_api::net::Encapsulation;

use crate::links::alias::fnv1a;

/// What VXLAN adds to a packet over IPv4, in bytes: Ethernet, VXLAN, UDP and IP headers.
const OVERHEAD_V4: u32 = 50;
/// The same over IPv6.
const OVERHEAD_V6: u32 = 70;
/// Least MTU that IPv6 works with (RFC 8200, section 5).
const MTU_MIN: u32 = 1280;

/// What ways follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// This node's own addresses.
    pub ips: Vec<IpAddr>,
    /// This node leaves the fabric.
    pub leaving: bool,
    /// This node's own blocks of pod addresses, and how packets get to each; the nodes decide
    /// where nothing is said.
    pub blocks: BTreeMap<IpNet, Option<Encapsulation>>,
    /// The other nodes that hold blocks, by name.
    pub others: BTreeMap<String, Other>,
    /// The pools have packets tunnelled to some nodes at least, now or later: pods' links leave
    /// room for it from the start.
    pub tunnels_asked: bool,
    /// MTU of pods' links, in bytes, where a pool names one.
    pub mtu: Option<u32>,
}

/// Another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Other {
    /// Its InternalIPs.
    pub ips: Vec<IpAddr>,
    /// Both that node and this one speak BGP.
    pub on_fabric: bool,
    /// It leaves the fabric.
    pub leaving: bool,
    /// Its blocks of pod addresses.
    pub blocks: BTreeMap<IpNet, Option<Encapsulation>>,
}

/// A network that a link of this node is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnLink {
    /// Number of the link.
    pub link: u32,
    /// The network, as an address of the node on it says.
    pub net: IpNet,
}

/// The family that tunnels run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Underlay {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Hardware address of a node's end of the tunnels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// How this node reaches the pods of others, and its pods the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// The way to each block.
    pub blocks: BTreeMap<IpNet, Way>,
    /// This node's ends of the tunnels that are used.
    pub tunnels: BTreeMap<Underlay, Tunnel>,
    /// The class of each own block whose pods reach some nodes by tunnels.
    pub returns: BTreeMap<IpNet, Class>,
    /// Addresses of nodes that pods of a class reach by tunnels: nothing between the nodes need
    /// know of pods, and packets go the same way forth and back.
    pub nodes: BTreeMap<(Class, IpAddr), Hop>,
    /// To the node that leaves and gets the connections that it began.
    pub handover: Option<Handover>,
}

/// The way to a node that leaves the fabric: its clients' packets, which the fabric leads to other
/// nodes by then, are sent on to it, since it alone knows their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Its name.
    pub node: String,
    /// Its address of each family, and the way there.
    pub ways: BTreeMap<IpAddr, Way>,
}

/// Blocks to which packets get in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// By VXLAN from all nodes.
    Vxlan,
    /// By VXLAN from nodes that share no link.
    CrossSubnet,
    /// As the nodes decide.
    Decided,
}

/// An end of a tunnel, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hop {
    /// Which of this node's ends leads there.
    pub over: Underlay,
    /// The other end.
    pub to: Mac,
}

/// The way to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the node that holds it, over a link that both are on.
    Direct {
        /// Number of the link.
        link: u32,
        /// The node's address there.
        gateway: IpAddr,
    },
    /// To the other end of a tunnel.
    Tunnel(Hop),
}

/// This node's end of the tunnels over one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// This node's address outside of the tunnels.
    pub local: IpAddr,
    /// The other ends, and the address of each node outside of the tunnel.
    pub far: BTreeMap<Mac, IpAddr>,
}

// === impl Ways ===

impl Ways {
    /// Works them out. A block that no way leads to is left out; of two nodes that claim one the
    /// first by name has it.
    pub fn new(node: &str, facts: &Facts, on_link: &[OnLink]) -> Self {
        let mut ways = Self::default();
        for (name, other) in &facts.others {
            // An address of this node's own is nobody else's.
            let theirs = other.ips.iter().filter(|ip| !facts.ips.contains(ip));
            let pair = Pair {
                names: (node, name),
                own: &facts.ips,
                theirs: theirs.copied().collect(),
                on_fabric: other.on_fabric,
                on_link,
            };
            ways.add(&pair, other, facts);
            if facts.leaving || other.leaving {
                ways.hand_over(&pair, facts.leaving, other.leaving);
            }
        }
        let used: BTreeSet<(Class, bool)> = ways
            .nodes
            .keys()
            .map(|(c, ip)| (*c, ip.is_ipv4()))
            .collect();
        let own = facts
            .blocks
            .iter()
            .filter_map(|(block, asked)| Some((*block, class(*asked)?)));
        ways.returns = own
            .filter(|(block, class)| used.contains(&(*class, is_v4(block))))
            .collect();
        ways
    }

    fn add(&mut self, pair: &Pair<'_>, other: &Other, facts: &Facts) {
        for (&block, &asked) in &other.blocks {
            // What runs to the nodes themselves must not be led to their pods.
            let swallows = pair
                .theirs
                .iter()
                .chain(pair.own)
                .any(|ip| block.contains(ip));
            if swallows || self.blocks.contains_key(&block) {
                continue;
            }
            let way = pair.way(asked, is_v4(&block));
            if let Some(way) = way.filter(|way| self.dig(pair, way)) {
                self.blocks.insert(block, way);
            }
        }
        for (block, &asked) in &facts.blocks {
            let (Some(class), v4) = (class(asked), is_v4(block)) else {
                continue;
            };
            let Some(way @ Way::Tunnel(hop)) = pair.way(asked, v4) else {
                continue;
            };
            if self.dig(pair, &way) {
                let ips = pair.theirs.iter().filter(|ip| ip.is_ipv4() == v4);
                self.nodes.extend(ips.map(|&ip| ((class, ip), hop)));
            }
        }
    }

    /// Of several nodes that leave, the others hand over to the first by name, and each of them to
    /// the next: so every packet comes by all of them, and by none twice.
    fn hand_over(&mut self, pair: &Pair<'_>, own: bool, other: bool) {
        let mut ways = BTreeMap::new();
        let ours = |ip: &&IpAddr| pair.own.iter().any(|own| own.is_ipv4() == ip.is_ipv4());
        // Of families that both have: the other end works out the same.
        for &ip in pair.theirs.iter().filter(ours) {
            // One way of each family is enough.
            if ways
                .keys()
                .any(|one: &IpAddr| one.is_ipv4() == ip.is_ipv4())
            {
                continue;
            }
            let way = pair.way(Some(Encapsulation::VxlanCrossSubnet), ip.is_ipv4());
            // Who leaves has its end of the tunnel, too.
            if let Some(way) = way.filter(|way| self.dig(pair, way)) {
                ways.insert(ip, way);
            }
        }
        let next = !own || pair.names.1 > pair.names.0;
        if other && next && self.handover.is_none() && !ways.is_empty() {
            self.handover = Some(Handover {
                node: pair.names.1.to_owned(),
                ways,
            });
        }
    }

    /// The families of tunnels that pods' packets go through.
    fn of_pods(&self) -> BTreeSet<Underlay> {
        let blocks = self.blocks.values().filter_map(|way| match way {
            Way::Tunnel(hop) => Some(hop.over),
            Way::Direct { .. } => None,
        });
        blocks
            .chain(self.nodes.values().map(|hop| hop.over))
            .collect()
    }

    /// Sees to the tunnel that a way leads through; whether there is one for this pair.
    fn dig(&mut self, pair: &Pair<'_>, way: &Way) -> bool {
        let (Way::Tunnel(hop), Some((local, remote))) = (way, pair.underlay()) else {
            return true;
        };
        let tunnel = self.tunnels.entry(hop.over).or_insert_with(|| Tunnel {
            local,
            far: BTreeMap::new(),
        });
        // Names of one hash are as good as never met; the first of them has the tunnel.
        *tunnel.far.entry(hop.to).or_insert(remote) == remote
    }
}

/// This node and another.
struct Pair<'a> {
    /// Of this node and the other.
    names: (&'a str, &'a str),
    /// This node's addresses.
    own: &'a [IpAddr],
    /// The other's.
    theirs: Vec<IpAddr>,
    /// Both speak BGP.
    on_fabric: bool,
    on_link: &'a [OnLink],
}

// === impl Pair ===

impl Pair<'_> {
    /// How packets of a family get from one to the other: the same seen from either.
    fn way(&self, asked: Option<Encapsulation>, v4: bool) -> Option<Way> {
        let (direct, tunnel) = match asked {
            Some(Encapsulation::Routed) => (false, false),
            None if self.on_fabric => (false, false),
            Some(Encapsulation::Direct) => (true, false),
            Some(Encapsulation::Vxlan) => (false, true),
            Some(Encapsulation::VxlanCrossSubnet) | None => (true, true),
        };
        let over_link = || direct_way(&self.theirs, v4, self.on_link);
        let through_tunnel = || {
            let (local, _) = self.underlay()?;
            let (over, to) = (family(local), mac(self.names.1));
            (to != mac(self.names.0)).then_some(Way::Tunnel(Hop { over, to }))
        };
        let over_link = direct.then(over_link).flatten();
        over_link.or_else(|| tunnel.then(through_tunnel).flatten())
    }

    /// Addresses of both, of the first family that both have.
    fn underlay(&self) -> Option<(IpAddr, IpAddr)> {
        let first = |ips: &[IpAddr], over| ips.iter().copied().find(|&ip| family(ip) == over);
        let both = |over| first(self.own, over).zip(first(&self.theirs, over));
        both(Underlay::V4).or_else(|| both(Underlay::V6))
    }
}

/// The class of blocks that may be reached by tunnels.
fn class(asked: Option<Encapsulation>) -> Option<Class> {
    match asked {
        Some(Encapsulation::Routed | Encapsulation::Direct) => None,
        Some(Encapsulation::Vxlan) => Some(Class::Vxlan),
        Some(Encapsulation::VxlanCrossSubnet) => Some(Class::CrossSubnet),
        None => Some(Class::Decided),
    }
}

/// By the first of the node's addresses that is on a link of ours, on the most specific network.
fn direct_way(ips: &[IpAddr], v4: bool, on_link: &[OnLink]) -> Option<Way> {
    ips.iter()
        .filter(|ip| ip.is_ipv4() == v4)
        .find_map(|&gateway| {
            let around = on_link.iter().filter(|on| on.net.contains(&gateway));
            let nearest =
                around.max_by_key(|on| (on.net.prefix_len(), std::cmp::Reverse(on.link)))?;
            let link = nearest.link;
            Some(Way::Direct { link, gateway })
        })
}

fn is_v4(block: &IpNet) -> bool {
    block.addr().is_ipv4()
}

fn family(ip: IpAddr) -> Underlay {
    match ip {
        IpAddr::V4(_) => Underlay::V4,
        IpAddr::V6(_) => Underlay::V6,
    }
}

// === impl Underlay ===

impl Underlay {
    /// Bytes that a tunnel over it takes from every packet.
    pub fn overhead(self) -> u32 {
        match self {
            Underlay::V4 => OVERHEAD_V4,
            Underlay::V6 => OVERHEAD_V6,
        }
    }

    /// MTU inside of a tunnel, where the link outside has `mtu`.
    pub fn mtu(self, mtu: u32) -> u32 {
        mtu.saturating_sub(self.overhead()).max(MTU_MIN)
    }
}

/// MTU of pods' links where the node's own has `mtu`.
pub fn pod_mtu(facts: &Facts, ways: &Ways, mtu: u32) -> u32 {
    if let Some(named) = facts.mtu {
        return named;
    }
    // With IPv4 it is the first choice.
    let own = facts.ips.iter().map(|&ip| family(ip)).min();
    let asked = own.filter(|_| facts.tunnels_asked);
    let used = ways.of_pods().into_iter().chain(asked);
    used.map(|over| over.mtu(mtu)).min().unwrap_or(mtu).min(mtu)
}

// === impl Mac ===

/// The hardware address of a node's end: of 46 bits of a hash of its name, individual and locally
/// administered (IEEE 802).
pub fn mac(node: &str) -> Mac {
    let hash = fnv1a(node.as_bytes());
    let [_, _, mut octets @ ..] = (hash ^ (hash >> 46)).to_be_bytes();
    octets[0] = (octets[0] & 0xfc) | 0x02;
    Mac(octets)
}

impl Mac {
    /// The IPv6 link-local address that is made of it (RFC 4291, appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
        let (first, last) = (word(a ^ 0x02, b), word(e, f));
        Ipv6Addr::new(0xfe80, 0, 0, 0, first, word(c, 0xff), word(0xfe, d), last)
    }

    /// The next hop of packets to a range behind this end. IPv6 has an address of the end's own;
    /// IPv4 takes the range's first address.
    pub fn next_hop(self, range: IpNet) -> IpAddr {
        match range {
            IpNet::V4(net) => net.network().into(),
            IpNet::V6(_) => self.link_local().into(),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
