//! Which nodes, leaves and spines an instance on one machine has, their names, addresses and
//! links. Pure: the same settings give the same plan.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Most nodes on one machine.
pub const NODES_MAX: u32 = 64;
const SPINES_MAX: u32 = 8;
const LEAVES_MAX: u32 = 16;
/// The AS of the spines, and the one before the first leaf's (RFC 6996: for private use).
const SPINE_AS: u32 = 65_000;
const LEAF_AS: u32 = 65_100;

/// A node's ports towards its two leaves.
pub const PORTS: [&str; 2] = ["eth1", "eth2"];

/// A leaf-spine fabric: `SPINESxLEAVES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fabric {
    /// How many spines.
    pub spines: u32,
    /// How many leaves; two for each rack.
    pub leaves: u32,
}

// === impl Fabric ===

impl Fabric {
    /// How many racks it has.
    pub fn racks(self) -> u32 {
        self.leaves / 2
    }
}

impl FromStr for Fabric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once('x')
            .and_then(|(spines, leaves)| Some((spines.parse().ok()?, leaves.parse().ok()?)));
        let Some((spines, leaves)) = parsed else {
            return Err("it must be SPINESxLEAVES, as 2x4".to_owned());
        };
        if !(1..=SPINES_MAX).contains(&spines) {
            return Err(format!(
                "it may have 1 to {SPINES_MAX} spines, not {spines}"
            ));
        }
        if !(2..=LEAVES_MAX).contains(&leaves) || leaves % 2 != 0 {
            return Err(format!(
                "it may have 2 to {LEAVES_MAX} leaves, two for each rack, not {leaves}"
            ));
        }
        Ok(Self { spines, leaves })
    }
}

impl TryFrom<String> for Fabric {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Fabric> for String {
    fn from(fabric: Fabric) -> String {
        fabric.to_string()
    }
}

impl std::fmt::Display for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.spines, self.leaves)
    }
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What tells this instance's names on the machine from another's.
    pub id: String,
    /// The network between the nodes and the machine.
    pub network: Ipv4Net,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// Leaves and spines.
    pub routers: Vec<RouterPlan>,
    /// The links of the fabric.
    pub links: Vec<LinkPlan>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Its rack, where there are racks.
    pub rack: Option<String>,
    /// The machine's end of its `eth0`.
    pub port: String,
}

/// A leaf or a spine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterPlan {
    /// Its name.
    pub name: String,
    /// Its AS.
    pub asn: u32,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Its interfaces, each named after what is at the other end.
    pub interfaces: Vec<String>,
}

/// A link: the name of a member and of its interface, at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// One end.
    pub a: (String, String),
    /// The other.
    pub b: (String, String),
}

// === impl Plan ===

impl Plan {
    /// Makes the plan.
    pub fn new(id: &str, network: Ipv4Net, nodes: u32, fabric: Option<Fabric>) -> Self {
        let mut plan = Self {
            id: id.to_owned(),
            network,
            nodes: (0..nodes).map(|n| node(id, network, n)).collect(),
            routers: Vec::new(),
            links: Vec::new(),
        };
        if let Some(fabric) = fabric {
            plan.add_fabric(fabric);
        }
        plan
    }

    fn add_fabric(&mut self, fabric: Fabric) {
        let router = |name: String, asn, last: (u8, u32)| RouterPlan {
            name,
            asn,
            router_id: Ipv4Addr::new(10, 255, last.0, last.1 as u8 + 1),
            interfaces: Vec::new(),
        };
        let spines = (0..fabric.spines).map(|s| router(spine(s), SPINE_AS, (0, s)));
        let leaves = (0..fabric.leaves).map(|l| router(leaf(l), LEAF_AS + 1 + l, (1, l)));
        self.routers = spines.chain(leaves).collect();
        for s in 0..fabric.spines {
            for l in 0..fabric.leaves {
                self.link((spine(s), leaf(l)), (leaf(l), spine(s)));
            }
        }
        let count = self.nodes.len() as u32;
        for n in 0..count {
            let rack = n * fabric.racks() / count;
            let name = self.nodes[n as usize].name.clone();
            self.nodes[n as usize].rack = Some(format!("rack-{}", rack + 1));
            for (side, interface) in PORTS.into_iter().enumerate() {
                let leaf = leaf(rack * 2 + side as u32);
                self.link((leaf, name.clone()), (name.clone(), interface.to_owned()));
            }
        }
    }

    fn link(&mut self, a: (String, String), b: (String, String)) {
        for (member, interface) in [&a, &b] {
            let router = self.routers.iter_mut().find(|r| r.name == *member);
            if let Some(router) = router {
                router.interfaces.push(interface.clone());
            }
        }
        self.links.push(LinkPlan { a, b });
    }

    /// What is at the other end of a link: a member and its interface.
    pub fn far_end(&self, member: &str, interface: &str) -> Option<(&str, &str)> {
        let at = |end: &(String, String)| (end.0.as_str(), end.1.as_str()) == (member, interface);
        let link = self.links.iter().find(|link| at(&link.a) || at(&link.b))?;
        let far = if at(&link.a) { &link.b } else { &link.a };
        Some((&far.0, &far.1))
    }

    /// The name of a member's network namespace.
    pub fn netns(&self, member: &str) -> String {
        format!("{}{member}", netns_prefix(&self.id))
    }

    /// The bridge between the nodes.
    pub fn bridge(&self) -> String {
        format!("{}br", link_prefix(&self.id))
    }

    /// The nftables table.
    pub fn table(&self) -> String {
        table(&self.id)
    }

    /// The machine's addresses on the bridge, where nodes reach the API server.
    pub fn gateways(&self) -> Vec<IpAddr> {
        host(self.network, 1)
    }

    /// The ranges that nodes' addresses are of.
    pub fn networks(&self) -> [IpNet; 2] {
        [self.network.into(), v6(self.network).into()]
    }
}

/// How the names of an instance's namespaces begin.
pub fn netns_prefix(id: &str) -> String {
    format!("peapod-{id}-")
}

/// How the names of an instance's links begin. Not as pods' links do: those are of the machine's
/// own network agent.
pub fn link_prefix(id: &str) -> String {
    format!("pd{id}")
}

/// The name of an instance's table.
pub fn table(id: &str) -> String {
    format!("peapod-nodes-{id}")
}

fn node(id: &str, network: Ipv4Net, number: u32) -> NodePlan {
    NodePlan {
        name: format!("node-{}", number + 1),
        ips: host(network, number + 2),
        rack: None,
        port: format!("{}n{}", link_prefix(id), number + 1),
    }
}

fn spine(number: u32) -> String {
    format!("spine-{}", number + 1)
}

fn leaf(number: u32) -> String {
    format!("leaf-{}", number + 1)
}

/// The addresses of one host.
fn host(network: Ipv4Net, number: u32) -> Vec<IpAddr> {
    let v4 = Ipv4Addr::from(u32::from(network.network()) + number);
    let v6 = Ipv6Addr::from(u128::from(v6(network).network()) + u128::from(number));
    vec![v4.into(), v6.into()]
}

/// The IPv6 range beside an IPv4 one: `fd00:` and its octets.
fn v6(network: Ipv4Net) -> Ipv6Net {
    let [a, b, c, _] = network.network().octets().map(u16::from);
    let address = Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, 0);
    Ipv6Net::new_assert(address, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u32, fabric: &str) -> Plan {
        let fabric = (!fabric.is_empty()).then(|| fabric.parse().unwrap());
        Plan::new("0a1b2c", "10.254.7.0/24".parse().unwrap(), nodes, fabric)
    }

    #[test]
    fn fabrics() {
        assert_eq!(
            "2x4".parse(),
            Ok(Fabric {
                spines: 2,
                leaves: 4
            })
        );
        for wrong in ["", "2", "0x4", "2x3", "9x4", "2x18", "x", "2x4x8"] {
            assert!(wrong.parse::<Fabric>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn nodes_have_addresses_of_both_families() {
        let plan = plan(2, "");
        assert_eq!(plan.gateways()[0].to_string(), "10.254.7.1");
        let shown: Vec<String> = plan.nodes[1].ips.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.254.7.3", "fd00:a:fe:7::3"]);
        assert!(plan.links.is_empty() && plan.routers.is_empty());
        assert_eq!(plan.netns("node-1"), "peapod-0a1b2c-node-1");
    }

    #[test]
    fn every_node_is_on_both_leaves_of_its_rack() {
        let plan = plan(4, "2x4");
        let racks: Vec<_> = plan
            .nodes
            .iter()
            .map(|n| n.rack.as_deref().unwrap())
            .collect();
        assert_eq!(racks, ["rack-1", "rack-1", "rack-2", "rack-2"]);
        let ends = |node: &str| -> Vec<String> {
            let of = plan.links.iter().filter(|link| link.b.0 == node);
            of.map(|link| format!("{}:{}", link.a.0, link.b.1))
                .collect()
        };
        assert_eq!(ends("node-1"), ["leaf-1:eth1", "leaf-2:eth2"]);
        assert_eq!(ends("node-4"), ["leaf-3:eth1", "leaf-4:eth2"]);
        assert_eq!(plan.links.len(), 2 * 4 + 4 * 2);
        let leaf = plan.routers.iter().find(|r| r.name == "leaf-3").unwrap();
        assert_eq!(leaf.asn, 65_103);
        assert_eq!(leaf.interfaces, ["spine-1", "spine-2", "node-3", "node-4"]);
    }

    #[test]
    fn names_fit_the_kernel() {
        let plan = plan(NODES_MAX, "8x16");
        let interfaces = plan.links.iter().flat_map(|link| [&link.a.1, &link.b.1]);
        let ports = plan.nodes.iter().map(|node| &node.port);
        for name in interfaces.chain(ports).chain([&plan.bridge()]) {
            assert!(name.len() < 16, "{name}");
        }
    }
}
