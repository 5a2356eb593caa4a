//! A node with a pod, on two leaves of some make; everything in namespaces.
//!
//! ```text
//!           ┌── leaf1 (AS 65101, link 1) ──
//!   node ───┤
//!           └── leaf2 (AS 65102, link 2) ──      both announce FAR_V4 and FAR_V6
//! ```

use std::net::UdpSocket;

use peapod_lab::{Lab, eventually};
use serde_json::{Value, json};

use crate::support::{Node, Pod};

/// What both leaves announce.
pub const FAR_V4: &str = "198.51.100.0/24";
pub const FAR_V6: &str = "2001:db8:99::/64";
/// What the node announces: its blocks, and a load balancer's address.
pub const BLOCK_V4: &str = "10.244.1.0/24";
pub const BLOCK_V6: &str = "fd00:10:244:1::/64";
pub const BALANCER: &str = "203.0.113.9";
/// The AS of nodes, where nothing is said.
const NODE_AS: u32 = 64_512;

/// Who makes the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    Frr,
    Bird,
    GoBgp,
}

/// How node and leaves are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// By addresses, a session for each family.
    Numbered,
    /// By interfaces; routes of both families over link-local next hops, in one session.
    Unnumbered,
}

/// The node, its pod behind a service, and its leaves.
pub struct Rack {
    pub node: Node,
    pub pod: Pod,
    pub lab: Lab,
    make: Make,
    links: Links,
}

impl Rack {
    /// All sessions are up, and everybody has everybody's routes.
    pub fn new(make: Make, links: Links) -> Self {
        let node = Node::without_agent();
        let mut lab = Lab::new();
        lab.adopt("node", &this_thread());
        for leaf in 1..=2 {
            let addresses = |end: u8| match links {
                Links::Numbered => format!("10.0.{leaf}.{end}/24 fd00:{leaf}::{end}/64"),
                Links::Unnumbered => String::new(),
            };
            let ends = (addresses(1), addresses(2));
            lab.link(("node", &ends.0), (&name(leaf), &ends.1));
        }
        let mut rack = start(node, lab, make, links);
        rack.peers();
        for leaf in 1..=2 {
            rack.leaf(leaf);
        }
        rack.complete();
        rack
    }

    /// Tells the API of the neighbours.
    fn peers(&self) {
        let timers = json!({"connectRetrySeconds": 1});
        let peer = |name: String, spec: Value| {
            let mut spec = spec;
            spec["timers"] = timers.clone();
            spec["remoteAs"] = json!("external");
            self.node
                .api
                .put(json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
                "metadata": {"name": name}, "spec": spec}));
        };
        for leaf in 1..=2 {
            match self.links {
                Links::Unnumbered => {
                    peer(name(leaf), json!({"interface": format!("to-leaf{leaf}")}))
                }
                Links::Numbered => {
                    let v4 =
                        json!({"address": format!("10.0.{leaf}.2"), "families": ["ipv4-unicast"]});
                    let v6 =
                        json!({"address": format!("fd00:{leaf}::2"), "families": ["ipv6-unicast"]});
                    peer(format!("leaf{leaf}-v4"), v4);
                    peer(format!("leaf{leaf}-v6"), v6);
                }
            }
        }
    }

    /// Starts a leaf.
    pub fn leaf(&mut self, leaf: u8) {
        let at = name(leaf);
        match self.make {
            Make::Frr => drop(self.lab.frr(&at, &frr(leaf, self.links))),
            Make::Bird => drop(self.lab.bird(&at, &bird(leaf, self.links))),
            Make::GoBgp => self.start_gobgp(leaf),
        }
    }

    fn start_gobgp(&mut self, leaf: u8) {
        let at = name(leaf);
        if self.links == Links::Unnumbered {
            self.greet(leaf);
        }
        self.lab.gobgp(&at, &gobgp(leaf, self.links));
        let lab = &self.lab;
        eventually("GoBGP answers", || {
            lab.try_within(&at, "gobgp global").is_ok()
        });
        lab.within(&at, &format!("gobgp global rib add -a ipv4 {FAR_V4}"));
        lab.within(&at, &format!("gobgp global rib add -a ipv6 {FAR_V6}"));
    }

    /// GoBGP looks for its neighbour among those that the kernel has spoken with.
    fn greet(&self, leaf: u8) {
        let node = self.lab.link_local("node", &format!("to-leaf{leaf}"));
        let greet = move || {
            let socket = UdpSocket::bind("[::]:0").unwrap();
            let index = nix::net::if_::if_nametoindex("to-node").unwrap();
            let to = std::net::SocketAddrV6::new(node.parse().unwrap(), 9, 0, index);
            socket.send_to(b"?", to).unwrap();
        };
        self.lab.spawn_in(&name(leaf), greet).join().unwrap();
        eventually("the node is a neighbour", || {
            let known = self.lab.within(&name(leaf), "ip -6 neigh show dev to-node");
            known.contains("lladdr")
        });
    }

    /// Waits until everybody has everybody's routes.
    pub fn complete(&self) {
        eventually("the API is told of all sessions", || {
            let told = self.node.api.get("BgpNode", "/here").unwrap_or_default();
            let all = told["status"]["sessions"].as_array().cloned();
            let all = all.unwrap_or_default();
            all.len() == self.sessions() && all.iter().all(|one| one["state"] == "Established")
        });
        self.node_uses(&[1, 2]);
        for leaf in 1..=2 {
            for prefix in [BLOCK_V4, BLOCK_V6, BALANCER] {
                self.leaf_has(leaf, prefix);
            }
        }
    }

    fn sessions(&self) -> usize {
        match self.links {
            Links::Numbered => 4,
            Links::Unnumbered => 2,
        }
    }

    /// Waits until the node's kernel leads what is far over these leaves, in both families.
    pub fn node_uses(&self, leaves: &[u8]) {
        let hops = |family: &str| -> Vec<String> {
            let hop = |leaf: &u8| match (self.links, family) {
                (Links::Unnumbered, _) => self.lab.link_local(&name(*leaf), "to-node"),
                (_, "v4") => format!("10.0.{leaf}.2"),
                _ => format!("fd00:{leaf}::2"),
            };
            let mut hops: Vec<String> = leaves.iter().map(hop).collect();
            hops.sort();
            hops
        };
        for (prefix, family) in [(FAR_V4, "v4"), (FAR_V6, "v6")] {
            let hops = hops(family);
            let hops: Vec<&str> = hops.iter().map(String::as_str).collect();
            self.lab.kernel_route("node", prefix, &hops);
        }
    }

    /// Waits until a leaf has a route to the node.
    pub fn leaf_has(&self, leaf: u8, prefix: &str) {
        eventually(&format!("leaf{leaf} has {prefix}"), || {
            self.has(leaf, prefix)
        });
    }

    /// Whether a leaf has a route to the node: in its kernel, or, as GoBGP has nothing to do with
    /// the kernel, in its own table.
    pub fn has(&self, leaf: u8, prefix: &str) -> bool {
        let at = name(leaf);
        let v6 = prefix.contains(':');
        if self.make == Make::GoBgp {
            let family = if v6 { "ipv6" } else { "ipv4" };
            let length = if prefix.contains('/') { "" } else { "/32" };
            let show = format!("gobgp -j global rib -a {family} {prefix}{length}");
            let shown = self.lab.try_within(&at, &show).unwrap_or_default();
            return shown.contains(&NODE_AS.to_string());
        }
        let family = if v6 { "-6" } else { "-4" };
        let shown = self
            .lab
            .within(&at, &format!("ip {family} route show {prefix}"));
        shown.contains("to-node")
    }
}

/// The file of the calling thread's network namespace.
fn this_thread() -> std::path::PathBuf {
    let (process, thread) = (std::process::id(), nix::unistd::gettid());
    format!("/proc/{process}/task/{thread}/ns/net").into()
}

/// The agent at work, and a service with an endpoint here.
fn start(mut node: Node, lab: Lab, make: Make, links: Links) -> Rack {
    node.api.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "uid": "u"}}));
    node.restart();
    let pod = node.server("server");
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER]}));
    node.endpoints(&[&pod]);
    Rack {
        node,
        pod,
        lab,
        make,
        links,
    }
}

fn name(leaf: u8) -> String {
    format!("leaf{leaf}")
}

fn asn(leaf: u8) -> u32 {
    65_100 + u32::from(leaf)
}

// === the leaves' configurations ===

fn frr(leaf: u8, links: Links) -> String {
    let (v4, v6) = match links {
        Links::Numbered => (format!("10.0.{leaf}.1"), format!("fd00:{leaf}::1")),
        Links::Unnumbered => ("to-node".to_owned(), "to-node".to_owned()),
    };
    let neighbors = match links {
        Links::Numbered => format!(
            " neighbor {v4} remote-as external\n neighbor {v6} remote-as external\n \
             neighbor {v4} timers connect 1\n neighbor {v6} timers connect 1\n"
        ),
        Links::Unnumbered => {
            " neighbor to-node interface remote-as external\n neighbor to-node timers connect 1\n"
                .to_owned()
        }
    };
    format!(
        "hostname leaf{leaf}\ninterface to-node\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\n\
         router bgp {asn}\n bgp router-id 192.0.2.{leaf}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n no bgp default ipv4-unicast\n{neighbors} \
         address-family ipv4 unicast\n  neighbor {v4} activate\n  network {FAR_V4}\n \
         exit-address-family\n \
         address-family ipv6 unicast\n  neighbor {v6} activate\n  network {FAR_V6}\n \
         exit-address-family\n",
        asn = asn(leaf)
    )
}

fn bird(leaf: u8, links: Links) -> String {
    let asn = asn(leaf);
    let common = format!("local as {asn}; connect retry time 1; connect delay time 1;");
    let channel = |family: &str, more: &str| {
        format!("{family} {{ import all; export where source = RTS_STATIC; {more} }};")
    };
    let sessions = match links {
        Links::Numbered => format!(
            "protocol bgp v4 {{ {common} neighbor 10.0.{leaf}.1 as {NODE_AS}; {} }}\n\
             protocol bgp v6 {{ {common} neighbor fd00:{leaf}::1 as {NODE_AS}; {} }}\n",
            channel("ipv4", ""),
            channel("ipv6", "")
        ),
        Links::Unnumbered => format!(
            "protocol radv {{ interface \"to-node\" {{ min ra interval 3; max ra interval 4; }}; }}\n\
             protocol bgp node {{ {common} neighbor range fe80::/10 as {NODE_AS}; \
             interface \"to-node\"; {} {} }}\n",
            channel("ipv4", "extended next hop on;"),
            channel("ipv6", "")
        ),
    };
    format!(
        "router id 192.0.2.{leaf};\nprotocol device {{}}\n\
         protocol static s4 {{ ipv4; route {FAR_V4} blackhole; }}\n\
         protocol static s6 {{ ipv6; route {FAR_V6} blackhole; }}\n\
         protocol kernel k4 {{ ipv4 {{ export where source = RTS_BGP; }}; }}\n\
         protocol kernel k6 {{ ipv6 {{ export where source = RTS_BGP; }}; }}\n{sessions}"
    )
}

fn gobgp(leaf: u8, links: Links) -> String {
    let neighbor = |at: String, families: &[&str]| {
        let families = families.iter().map(|family| {
            format!(
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\n\
                 afi-safi-name = \"{family}-unicast\"\n"
            )
        });
        format!(
            "[[neighbors]]\n[neighbors.config]\n{at}\npeer-as = {NODE_AS}\n\
             [neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n{}",
            families.collect::<String>()
        )
    };
    let neighbors = match links {
        Links::Numbered => {
            neighbor(format!("neighbor-address = \"10.0.{leaf}.1\""), &["ipv4"])
                + &neighbor(format!("neighbor-address = \"fd00:{leaf}::1\""), &["ipv6"])
        }
        Links::Unnumbered => neighbor(
            "neighbor-interface = \"to-node\"".to_owned(),
            &["ipv4", "ipv6"],
        ),
    };
    format!(
        "[global.config]\nas = {}\nrouter-id = \"192.0.2.{leaf}\"\n{neighbors}",
        asn(leaf)
    )
}
