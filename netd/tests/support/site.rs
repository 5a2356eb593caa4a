//! Several nodes: two on one link, one behind a router that knows nothing of pods.
//!
//! ```text
//!    n1 ──┐                  198.51.100.0/24, 2001:db8:b::/64
//!         ├─ bridge, router ──────────── n3
//!    n2 ──┘
//!    192.0.2.0/24, 2001:db8:a::/64
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use peapod_netd::Config;
use serde_json::{Value, json};

use super::agent::Agent;
use super::api::Api;
use super::namespace::{ip, move_into};
use super::objects::{put_slices, put_web, reference};
use super::{Namespace, Pod, eventually, quicken};

/// All nodes, and what is between them.
pub struct Site {
    pub api: Api,
    /// Nodes have no IPv4 address, as far as the cluster knows.
    v6_only: bool,
    pub router: Namespace,
    members: Vec<Member>,
}

/// A node.
pub struct Member {
    pub name: String,
    /// Its addresses, IPv4 first.
    pub ips: [String; 2],
    /// Its blocks of pods' addresses, IPv4 first.
    pub blocks: [String; 2],
    /// Where its BGP speaker is to be asked.
    pub bgp_socket: Option<PathBuf>,
    v6_only: bool,
    pub here: Namespace,
    api: Api,
    agent: Agent,
}

impl Site {
    /// Namespaces, links, and the objects of nodes and blocks; no agent yet.
    pub fn new() -> Self {
        Self::of_families(false)
    }

    /// The same, where nodes know each other by IPv6 addresses only.
    pub fn v6_only() -> Self {
        Self::of_families(true)
    }

    fn of_families(v6_only: bool) -> Self {
        let router = Namespace::new();
        quicken(&router);
        for command in [
            "link set lo up",
            "link add br0 type bridge",
            "link set br0 up",
        ] {
            router.ip(command);
        }
        let api = Api::default();
        let mut site = Site {
            api,
            v6_only,
            router,
            members: Vec::new(),
        };
        site.address("br0", 'a');
        for (number, side) in [(1, 'a'), (2, 'a'), (3, 'b')] {
            site.add(number, side);
        }
        site
    }

    /// The same, with an agent on every node.
    pub fn start() -> Self {
        Self::new().with_agents()
    }

    /// Starts an agent on every node.
    pub fn with_agents(mut self) -> Self {
        (1..=3).for_each(|number| self.restart(number));
        self
    }

    /// Has pods' packets get from node to node in this way.
    pub fn encapsulate(&self, encapsulation: &str) {
        for (name, cidr) in [("v4", "10.244.0.0/16"), ("v6", "fd00:10:244::/56")] {
            self.api.put(json!({
                "apiVersion": "net.peapod.dev/v1", "kind": "IpPool", "metadata": {"name": name},
                "spec": {"cidr": cidr, "encapsulation": encapsulation},
            }));
        }
    }

    /// The service `web`, at 10.96.1.1, fd00:10:96::11 and port 30080 of every node.
    pub fn serve(&self, endpoints: &[(usize, &Pod)]) {
        let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30080}]);
        put_web(&self.api, &ports, &json!({"type": "NodePort"}));
        let ports = json!([{"port": 80, "protocol": "TCP"}]);
        let endpoints: Vec<_> = endpoints
            .iter()
            .map(|(node, pod)| (self.node(*node).name.as_str(), *pod))
            .collect();
        put_slices(&self.api, "web", &ports, &endpoints, &json!({}));
    }

    fn address(&self, link: &str, side: char) {
        let v4 = if side == 'a' { "192.0.2" } else { "198.51.100" };
        self.router.ip(&format!("address add {v4}.1/24 dev {link}"));
        self.router
            .ip(&format!("address add 2001:db8:{side}::1/64 dev {link}"));
    }

    fn add(&mut self, number: u8, side: char) {
        let here = Namespace::new();
        quicken(&here);
        let (v4, port) = match side {
            'a' => ("192.0.2", format!("n{number}")),
            _ => ("198.51.100", format!("n{number}")),
        };
        self.router.run(|| {
            ip(&format!("link add {port} type veth peer name eth0"));
            move_into("eth0", &here);
            ip(&format!("link set {port} up"));
        });
        match side {
            'a' => self.router.ip(&format!("link set {port} master br0")),
            _ => self.address(&port, side),
        }
        for command in [
            "link set lo up".to_owned(),
            format!("address add {v4}.1{number}/24 dev eth0"),
            format!("address add 2001:db8:{side}::1{number}/64 dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add default via {v4}.1"),
            format!("-6 route add default via 2001:db8:{side}::1"),
        ] {
            here.ip(&command);
        }
        let ips = [
            format!("{v4}.1{number}"),
            format!("2001:db8:{side}::1{number}"),
        ];
        let mut member = Member::new(number, ips, here, &self.api);
        member.v6_only = self.v6_only;
        member.tell(json!({}));
        self.members.push(member);
    }

    /// A node by its number, from 1.
    pub fn node(&self, number: usize) -> &Member {
        &self.members[number - 1]
    }

    /// Ends a node's agent if it runs, and starts another.
    pub fn restart(&mut self, number: usize) {
        self.members[number - 1].restart();
    }

    /// Ends a node's agent.
    pub fn stop(&mut self, number: usize) {
        self.members[number - 1].stop();
    }
}

impl Member {
    /// The node of a number, in a namespace; its agent does not run yet.
    pub fn new(number: u8, ips: [String; 2], here: Namespace, api: &Api) -> Self {
        Member {
            name: format!("n{number}"),
            ips,
            blocks: [
                format!("10.244.{number}.0/24"),
                format!("fd00:10:244:{number}::/64"),
            ],
            bgp_socket: None,
            v6_only: false,
            agent: Agent::new(&here),
            here,
            api: api.clone(),
        }
    }

    /// Tells the API of it, of its labels and of its blocks.
    pub fn tell(&self, labels: Value) {
        let name = &self.name;
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "uid": format!("uid-of-{name}"), "labels": labels},
            "status": {"addresses": self.known_ips()
                .map(|ip| json!({"type": "InternalIP", "address": ip})).collect::<Vec<_>>()},
        }));
        for (family, cidr) in ["v4", "v6"].iter().zip(&self.blocks) {
            self.api.put(json!({
                "apiVersion": "net.peapod.dev/v1", "kind": "IpBlock",
                "metadata": {"name": format!("{name}-{family}")},
                "spec": {"cidr": cidr, "node": name},
            }));
        }
    }

    /// Ends its agent if it runs, and starts another.
    pub fn restart(&mut self) {
        let config = self.config();
        self.agent.restart(&self.api, config);
    }

    /// Ends its agent.
    pub fn stop(&mut self) {
        self.agent.stop();
    }

    fn config(&self) -> Config {
        let ips: Vec<&str> = self.known_ips().collect();
        Config {
            // Not the usual one, which the kernel might take by itself.
            vxlan_port: 8473,
            bgp_socket: self.bgp_socket.clone(),
            ..self.agent.config(&self.name, &ips)
        }
    }

    /// Its addresses, as far as the cluster knows.
    fn known_ips(&self) -> impl Iterator<Item = &str> {
        let known = &self.ips[usize::from(self.v6_only)..];
        known.iter().map(String::as_str)
    }

    /// Where it keeps what must outlive it.
    pub fn state(&self) -> &Path {
        self.agent.state()
    }

    /// Attaches a pod that answers on port 80.
    pub fn pod(&self, name: &str) -> Pod {
        let reference = reference(name);
        let netns = Namespace::new();
        let reply = self.agent.attach(&reference, &netns, Vec::new()).unwrap();
        netns.serve_tcp(name, 80);
        Pod {
            reference,
            netns,
            reply,
        }
    }

    /// Output of a command there.
    pub fn shows(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let program = words.next().unwrap().to_owned();
        let output = self
            .here
            .run(|| Command::new(program).args(words).output().unwrap());
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Routes to other nodes, with what numbers say left out.
    pub fn ways(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for command in [
            "ip -4 route show table all proto 97",
            "ip -6 route show table all proto 97",
        ] {
            let shown = self.shows(command);
            lines.extend(shown.lines().map(|line| line.trim().to_owned()));
        }
        lines
    }

    /// What its tunnels are made of: links, forwarding entries, neighbours, rules.
    pub fn tunnels(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for command in [
            "ip -o -d link show type vxlan",
            "bridge fdb show",
            "ip neigh show nud permanent",
            "ip rule show",
            "ip -6 rule show",
        ] {
            let shown = self.shows(command);
            let ours = shown.lines().filter(|line| {
                let everywhere = line.contains("33:33:") || line.contains("01:00:5e:");
                (line.contains("vxlan") || line.contains("9700:")) && !everywhere
            });
            lines.extend(ours.map(|line| line.trim().to_owned()));
        }
        lines
    }

    /// How many packets it had to cut into fragments.
    pub fn fragments(&self) -> u64 {
        let (v4, v6) = (
            self.shows("cat /proc/net/snmp"),
            self.shows("cat /proc/net/snmp6"),
        );
        let mut lines = v4.lines().filter(|line| line.starts_with("Ip:"));
        let names = lines.next().unwrap().split_whitespace();
        let values = lines.next().unwrap().split_whitespace();
        let of_v4 = names.zip(values).find(|(name, _)| *name == "FragCreates");
        let of_v6 = v6
            .lines()
            .find_map(|line| line.strip_prefix("Ip6FragCreates"));
        let number = |text: &str| text.trim().parse::<u64>().unwrap();
        number(of_v4.unwrap().1) + number(of_v6.unwrap())
    }

    /// Waits until the routes to other nodes are such.
    pub fn wait_for_ways(&self, what: &str, check: impl Fn(&[String]) -> bool) {
        eventually(what, || check(&self.ways()).then_some(()));
    }
}
