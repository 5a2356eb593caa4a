//! Two racks behind leaves of other makes: a node is lost, and then a rack. What is not lost with them
//! does not notice.
//!
//! ```text
//!    n1 ─┬─ leaf1 ─┬─ spine ─┬─ leaf3 ─┬─ n3       each node on both leaves of its rack,
//!    n2 ─┴─ leaf2 ─┘         └─ leaf4 ─┘           all unnumbered, with BFD
//! ```

use std::time::Instant;

use peapod_lab::traffic::{End, Loss, Traffic};
use peapod_lab::{Lab, eventually};
use serde_json::json;

use crate::config;
use crate::rack::{BFD_MS, Make};
use crate::support::api::Api;
use crate::support::site::Member;
use crate::support::{Namespace, Pod, quicken};

/// The racks: their leaves, and their nodes.
const RACKS: [([u8; 2], &[u8]); 2] = [([1, 2], &[1, 2]), ([3, 4], &[3])];
/// Flows in each direction and family.
const FLOWS: u16 = 8;

struct Racks {
    nodes: Vec<Member>,
    pods: Vec<Pod>,
    lab: Lab,
}

impl Racks {
    /// Everybody has everybody's routes.
    fn new(make: Make) -> Self {
        let (api, mut lab) = (Api::default(), Lab::new());
        let mut nodes = Vec::new();
        for (rack, (leaves, numbers)) in RACKS.iter().enumerate() {
            for number in *numbers {
                nodes.push(node(&api, &mut lab, *number, rack));
                for leaf in leaves {
                    lab.link((&format!("n{number}"), ""), (&format!("leaf{leaf}"), ""));
                }
            }
            for leaf in leaves {
                lab.link(("spine", ""), (&format!("leaf{leaf}"), ""));
                peer(&api, rack, *leaf);
            }
        }
        for (leaves, numbers) in RACKS {
            let nodes = numbers.iter().map(|number| format!("to-n{number}"));
            let links: Vec<String> = nodes.chain(["to-spine".to_owned()]).collect();
            for leaf in leaves {
                let name = format!("leaf{leaf}");
                match make {
                    Make::Frr => drop(lab.frr(&name, &config::frr_of_rack(leaf, &links))),
                    _ => drop(lab.bird(&name, &config::bird_of_rack(leaf, &links))),
                }
            }
        }
        lab.router("spine", &spine());
        let mut pods = Vec::new();
        for node in &mut nodes {
            node.restart();
            pods.push(node.pod(&format!("of-{}", node.name)));
        }
        let racks = Racks { nodes, pods, lab };
        racks.complete();
        racks
    }

    fn members(&self) -> impl Iterator<Item = (&Member, usize)> {
        let rack = |number: usize| usize::from(number >= RACKS[0].1.len());
        self.nodes
            .iter()
            .enumerate()
            .map(move |(at, node)| (node, rack(at)))
    }

    /// Waits until everybody has ways to everybody else, over both leaves, watched by BFD.
    fn complete(&self) {
        for (node, rack) in self.members() {
            for leaf in RACKS[rack].0 {
                self.lab.established(&node.name, &format!("to-leaf{leaf}"));
                self.lab.bfd_up(&node.name, &format!("to-leaf{leaf}"));
            }
            let others = self.nodes.iter().filter(|other| other.name != node.name);
            for block in others.flat_map(|other| &other.blocks) {
                eventually(
                    &format!("{} reaches {block} over both leaves", node.name),
                    || self.lab.hops(&node.name, block).len() == 2,
                );
            }
        }
        let audit = |(node, _): (&Member, usize)| self.lab.audit(&node.name);
        eventually("the kernels have what the tables say", || {
            self.members().map(audit).all(|audit| audit.clean())
        });
    }

    /// Waits until nobody leads to a node any more, of these.
    fn gone(&self, lost: usize, of: &[&str]) {
        for block in &self.nodes[lost].blocks {
            for name in of {
                eventually(&format!("{name} leads nobody to {block}"), || {
                    self.lab.hops(name, block).is_empty()
                });
            }
        }
    }

    /// What flows between two nodes' pods lose while something happens.
    fn losses(&self, what: &str, ends: [usize; 2], happens: impl FnOnce()) -> Loss {
        let end = |node: usize, family: usize| End {
            space: self.pods[node].netns.path(),
            address: self.pods[node].reply.ips[family].to_string(),
        };
        let [a, b] = ends;
        let pairs = [0, 1].map(|family| [(a, b, family), (b, a, family)]);
        let traffic: Vec<Traffic> = pairs
            .into_iter()
            .flatten()
            .map(|(from, to, family)| Traffic::between(&end(from, family), &end(to, family), FLOWS))
            .map(Traffic::flowing)
            .collect();
        let from = Instant::now();
        happens();
        let flows: Vec<_> = traffic.into_iter().flat_map(Traffic::stop).collect();
        let loss = Loss::of(&flows, from);
        println!("{what}: {loss}");
        loss
    }

    fn speak(&self, members: &[&str]) {
        for name in members {
            self.lab.within(name, "nft delete table inet silent");
        }
        self.complete();
    }
}

/// A node in a namespace of its own, with its address on `lo`.
fn node(api: &Api, lab: &mut Lab, number: u8, rack: usize) -> Member {
    let here = Namespace::new();
    quicken(&here);
    let ips = [
        format!("10.243.0.{number}"),
        format!("fd00:10:243::{number}"),
    ];
    here.ip("link set lo up");
    here.ip(&format!("address add {}/32 dev lo", ips[0]));
    here.ip(&format!("address add {}/128 dev lo", ips[1]));
    let mut member = Member::new(number, ips, here, api);
    let process = format!("/proc/{}", std::process::id());
    let file = member.here.path().display().to_string();
    lab.adopt(&member.name, file.replace("/proc/self", &process).as_ref());
    lab.within(
        &member.name,
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
    );
    member.bgp_socket = Some(lab.socket(&member.name));
    member.tell(json!({"net.peapod.dev/rack": format!("r{rack}")}));
    member
}

/// The nodes of a rack speak with a leaf.
fn peer(api: &Api, rack: usize, leaf: u8) {
    api.put(json!({
        "apiVersion": "net.peapod.dev/v1", "kind": "BgpPeer", "metadata": {"name": format!("leaf{leaf}")},
        "spec": {
            "nodeSelector": {"matchLabels": {"net.peapod.dev/rack": format!("r{rack}")}},
            "interface": format!("to-leaf{leaf}"), "remoteAs": "external",
            "timers": {"connectRetrySeconds": 1}, "bfd": {"intervalMs": BFD_MS, "multiplier": 3},
        },
    }));
}

fn spine() -> String {
    let leaves = RACKS.iter().flat_map(|(leaves, _)| leaves);
    let neighbors: String = leaves
        .map(|leaf| {
            format!(
                "- {{interface: to-leaf{leaf}, remoteAs: external, timers: {{connectRetrySeconds: 1}}, \
                 bfd: {{intervalMs: {BFD_MS}, multiplier: 3}}}}\n"
            )
        })
        .collect();
    format!("asn: 65000\nrouterId: 192.0.2.9\ninstall: true\nmultipath: 8\nneighbors:\n{neighbors}")
}

fn lost_and_back(make: Make) {
    let racks = Racks::new(make);
    let loss = racks.losses(&format!("{make:?}: n2 is lost"), [0, 2], || {
        racks.lab.silence("n2");
        racks.gone(1, &["n1", "n3", "leaf1", "leaf2", "leaf3", "leaf4"]);
    });
    assert_eq!(loss.lost, 0, "flows between other nodes");
    racks.speak(&["n2"]);
    let loss = racks.losses(
        &format!("{make:?}: the second rack is lost"),
        [0, 1],
        || {
            racks.lab.silence("leaf3");
            racks.lab.silence("leaf4");
            racks.gone(2, &["n1", "n2", "leaf1", "leaf2", "spine"]);
        },
    );
    assert_eq!(loss.lost, 0, "flows within the other rack");
    racks.speak(&["leaf3", "leaf4"]);
}

#[test]
fn a_node_and_a_rack_behind_frr_are_lost_and_come_back() {
    lost_and_back(Make::Frr);
}

#[test]
fn a_node_and_a_rack_behind_bird_are_lost_and_come_back() {
    lost_and_back(Make::Bird);
}
