//! A node with a pod, on two leaves of some make; everything in namespaces.
//!
//! ```text
//!                 ┌── leaf1 (AS 65101) ──┐
//!   pod ── node ──┤                      ├── far (AS 65200), if it is there
//!                 └── leaf2 (AS 65102) ──┘
//! ```
//!
//! What is far, FAR_V4 and FAR_V6, is announced by the leaves, or by a router of ours behind them:
//! then there can be traffic.

use std::net::UdpSocket;

use peapod_lab::traffic::{End, Traffic};
use peapod_lab::{Lab, eventually};
use serde_json::{Value, json};

use crate::config;
use crate::support::{Node, Pod};

/// What both leaves announce: the blocks of another node, whose agent is not here.
pub const FAR_V4: &str = "10.244.2.0/24";
pub const FAR_V6: &str = "fd00:10:244:2::/64";
/// What the node announces: its blocks, and a load balancer's address.
pub const BLOCK_V4: &str = "10.244.1.0/24";
pub const BLOCK_V6: &str = "fd00:10:244:1::/64";
pub const BALANCER: &str = "203.0.113.9";
/// An address at what is far.
const FAR_HOST: &str = "10.244.2.1";
/// Addresses beyond the leaves that are outside of the cluster.
pub const BEYOND_V4: &str = "198.51.100.1";
pub const BEYOND_V6: &str = "2001:db8:9::1";
/// Flows in each direction.
const FLOWS: u16 = 8;
/// BFD speaks so often, and misses three words. A busy machine may leave its daemons without a
/// processor for longer than the 300 ms that could be asked for.
pub const BFD_MS: u32 = 300;
/// The AS of nodes, where nothing is said.
pub const NODE_AS: u32 = 64_512;

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

/// Which rack it is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub make: Make,
    pub links: Links,
    /// BFD on all sessions.
    pub bfd: bool,
    /// There is a router behind the leaves.
    pub far: bool,
}

/// The node, its pod behind a service, and its leaves.
pub struct Rack {
    pub node: Node,
    pub pod: Pod,
    pub lab: Lab,
    shape: Shape,
}

impl Rack {
    /// All sessions are up, and everybody has everybody's routes.
    pub fn new(shape: Shape) -> Self {
        let mut rack = wired(shape);
        rack.peers();
        if shape.far {
            rack.far();
        }
        for leaf in 1..=2 {
            rack.leaf(leaf);
        }
        rack.complete();
        rack
    }

    /// Starts the router behind the leaves.
    fn far(&mut self) {
        let options = match self.shape.bfd {
            true => format!(", bfd: {{intervalMs: {BFD_MS}, multiplier: 3}}"),
            false => String::new(),
        };
        let neighbor = |at: String| {
            format!(
                "- {{address: \"{at}\", remoteAs: external, \
                 timers: {{connectRetrySeconds: 1}}{options}}}\n"
            )
        };
        let neighbors: String = (1..=2)
            .flat_map(|leaf| [format!("10.1.{leaf}.2"), format!("fd01:{leaf}::2")])
            .map(neighbor)
            .collect();
        self.lab.router(
            "far",
            &format!(
                "asn: 65200\nrouterId: 192.0.2.9\ninstall: true\n\
                 announce: [{FAR_V4}, \"{FAR_V6}\", {BEYOND_V4}/32, \"{BEYOND_V6}/128\"]\nneighbors:\n{neighbors}"
            ),
        );
    }

    /// Traffic from the router behind the leaves to the pod, and from there to it.
    pub fn traffic(&self) -> [Traffic; 2] {
        let far = End::of(&self.lab, "far", FAR_HOST);
        let pod = End::of(&self.lab, "pod", &self.pod.v4().to_string());
        [(&far, &pod), (&pod, &far)].map(|(from, to)| Traffic::between(from, to, FLOWS).flowing())
    }

    /// Tells the API of the neighbours.
    fn peers(&self) {
        let timers = json!({"connectRetrySeconds": 1});
        let peer = |name: String, spec: Value| {
            let mut spec = spec;
            spec["timers"] = timers.clone();
            spec["remoteAs"] = json!("external");
            if self.shape.bfd {
                spec["bfd"] = json!({"intervalMs": BFD_MS, "multiplier": 3});
            }
            self.node
                .api
                .put(json!({"apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer",
                "metadata": {"name": name}, "spec": spec}));
        };
        for leaf in 1..=2 {
            match self.shape.links {
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
        match self.shape.make {
            Make::Frr => drop(self.lab.frr(&at, &config::frr(leaf, self.shape))),
            Make::Bird => drop(self.lab.bird(&at, &config::bird(leaf, self.shape))),
            Make::GoBgp => self.start_gobgp(leaf),
        }
    }

    fn start_gobgp(&mut self, leaf: u8) {
        let at = name(leaf);
        if self.shape.links == Links::Unnumbered {
            self.greet(leaf);
        }
        self.lab.gobgp(&at, &config::gobgp(leaf, self.shape));
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
            let whole = |one: &Value| {
                one["state"] == "Established"
                    && one["received"].as_u64() >= Some(1)
                    && (!self.shape.bfd || one["bfd"] == "Up")
            };
            all.len() == self.sessions() && all.iter().all(whole)
        });
        self.node_uses(&[1, 2]);
        if self.shape.far {
            self.far_uses(&[1, 2]);
            for leaf in (1..=2).filter(|_| self.shape.bfd) {
                self.lab.bfd_up("far", &format!("10.1.{leaf}.2"));
            }
        }
        for leaf in 1..=2 {
            for prefix in [BLOCK_V4, BLOCK_V6, BALANCER] {
                self.leaf_has(leaf, prefix);
            }
        }
    }

    fn sessions(&self) -> usize {
        match self.shape.links {
            Links::Numbered => 4,
            Links::Unnumbered => 2,
        }
    }

    /// Waits until the node's kernel leads what is far over these leaves, in both families.
    pub fn node_uses(&self, leaves: &[u8]) {
        let hops = |family: &str| -> Vec<String> {
            let hop = |leaf: &u8| match (self.shape.links, family) {
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

    /// Waits until the router behind the leaves leads to the pod over these.
    pub fn far_uses(&self, leaves: &[u8]) {
        let hops: Vec<String> = leaves.iter().map(|leaf| format!("10.1.{leaf}.2")).collect();
        let hops: Vec<&str> = hops.iter().map(String::as_str).collect();
        self.lab.kernel_route("far", BLOCK_V4, &hops);
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
        if self.shape.make == Make::GoBgp {
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
pub fn this_thread() -> std::path::PathBuf {
    let (process, thread) = (std::process::id(), nix::unistd::gettid());
    format!("/proc/{process}/task/{thread}/ns/net").into()
}

/// The node with its agent, and a service with an endpoint there; links to leaves that are not
/// started yet.
fn wired(shape: Shape) -> Rack {
    let mut node = Node::without_agent();
    let mut lab = Lab::new();
    lab.adopt("node", &this_thread());
    for leaf in 1..=2 {
        let (at, numbered) = (name(leaf), shape.links == Links::Numbered);
        let ends = addresses(0, leaf).map(|end| if numbered { end } else { String::new() });
        lab.link(("node", &ends[0]), (&at, &ends[1]));
        if shape.far {
            let ends = addresses(1, leaf);
            lab.link(("far", &ends[0]), (&at, &ends[1]));
        }
    }
    if shape.far {
        for address in [
            format!("{FAR_HOST}/32"),
            "fd00:10:244:2::1/128".to_owned(),
            format!("{BEYOND_V4}/32"),
            format!("{BEYOND_V6}/128"),
        ] {
            lab.within("far", &format!("ip addr add {address} dev lo"));
        }
        for at in ["node", "far"] {
            lab.within(at, "sysctl -qw net.ipv4.fib_multipath_hash_policy=1");
        }
    }
    node.api.put(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "here", "uid": "u"}}));
    node.restart();
    let pod = node.server("server");
    let descriptor = pod.netns.path().display().to_string();
    let process = format!("/proc/{}", std::process::id());
    lab.adopt("pod", descriptor.replace("/proc/self", &process).as_ref());
    node.service(json!({"type": "LoadBalancer", "externalIPs": [BALANCER]}));
    node.endpoints(&[&pod]);
    Rack {
        node,
        pod,
        lab,
        shape,
    }
}

/// The addresses of both ends of a link to a leaf.
fn addresses(net: u8, leaf: u8) -> [String; 2] {
    [1, 2].map(|end| format!("10.{net}.{leaf}.{end}/24 fd0{net}:{leaf}::{end}/64"))
}

fn name(leaf: u8) -> String {
    format!("leaf{leaf}")
}
