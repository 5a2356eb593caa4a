//! The ways to other nodes as they are worked out: text in, text out (`tests/golden/ways`), and
//! what holds for any nodes.
//!
//! `## here` names this node with its addresses, `## links` its networks by number of the link,
//! `## apply` holds objects of the API; `## ways` is what follows. `GOLDEN=write` writes what came
//! out instead of comparing, to be read before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use peapod_api::labels::DRAIN;
use peapod_api::net::{BgpPeerSpec, Encapsulation, IpPoolSpec};
use peapod_netd::core::neighbourhood::{BlockFacts, Neighbourhood, NodeFacts, PoolFacts};
use peapod_netd::core::ways::{Class, Facts, OnLink, Other, Way, Ways, mac, pod_mtu};
use proptest::prelude::*;
use serde_json::Value;

#[test]
fn golden() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ways");
    let files = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let wanted = fs::read_to_string(&path).unwrap();
        let got = play(&wanted);
        if std::env::var_os("GOLDEN").is_some_and(|mode| mode == "write") {
            fs::write(&path, &got).unwrap();
            continue;
        }
        assert_eq!(got, wanted, "{}", path.display());
    }
}

#[derive(Default)]
struct World {
    name: String,
    ips: Vec<IpAddr>,
    on_link: Vec<OnLink>,
    known: Neighbourhood,
}

/// Plays a file's sections; returns the file with what came out.
fn play(text: &str) -> String {
    let mut world = World::default();
    let mut sections = text.split("\n## ");
    let mut played = sections.next().unwrap().to_owned();
    for section in sections {
        let (title, body) = section.split_once('\n').unwrap();
        let mut body = body.to_owned();
        match title {
            "here" => {
                let mut words = body.split_whitespace();
                world.name = words.next().unwrap().to_owned();
                world.ips = words.map(|ip| ip.parse().unwrap()).collect();
            }
            "links" => world.on_link = body.lines().filter_map(on_link).collect(),
            "apply" => body.split("\n---\n").for_each(|object| world.apply(object)),
            "ways" => body = world.show(),
            other => panic!("no section is called {other}"),
        }
        write!(played, "\n## {title}\n{}", body.trim_end_matches('\n')).unwrap();
        played.push('\n');
    }
    played
}

fn on_link(line: &str) -> Option<OnLink> {
    let (link, net) = line.split_once(' ')?;
    Some(OnLink {
        link: link.parse().unwrap(),
        net: net.parse().unwrap(),
    })
}

impl World {
    fn apply(&mut self, yaml: &str) {
        let object: Value = serde_saphyr::from_str(yaml).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let spec = || object["spec"].clone();
        match object["kind"].as_str().unwrap() {
            "Node" => {
                let addresses = object["status"]["addresses"].as_array().unwrap();
                let node = NodeFacts {
                    ips: addresses
                        .iter()
                        .map(|ip| ip.as_str().unwrap().parse().unwrap())
                        .collect(),
                    labels: serde_json::from_value(object["metadata"]["labels"].clone())
                        .unwrap_or_default(),
                    leaving: object["metadata"]["annotations"][DRAIN].is_string(),
                };
                self.known.set_node(name, Some(node));
            }
            "IpBlock" => {
                let block = BlockFacts {
                    node: object["spec"]["node"].as_str().unwrap().to_owned(),
                    cidr: object["spec"]["cidr"].as_str().unwrap().parse().unwrap(),
                    pool: object["spec"]["pool"].as_str().map(str::to_owned),
                };
                self.known.set_block(name, Some(block));
            }
            "IpPool" => {
                let spec: IpPoolSpec = serde_json::from_value(spec()).unwrap();
                self.known.set_pool(name, PoolFacts::of(&spec));
            }
            "BgpPeer" => {
                let spec: BgpPeerSpec = serde_json::from_value(spec()).unwrap();
                self.known.set_peer(name, Some(&spec));
            }
            other => panic!("no {other} is known"),
        }
    }

    fn show(&self) -> String {
        let Some(facts) = self.known.ways(&self.name, &self.ips) else {
            return "nothing yet\n".to_owned();
        };
        let ways = Ways::new(&self.name, &facts, &self.on_link);
        let mut text = String::new();
        for (block, way) in &ways.blocks {
            match way {
                Way::Direct { link, gateway } => {
                    writeln!(text, "{block} via {gateway} on link {link}").unwrap();
                }
                Way::Tunnel(hop) => {
                    let next = hop.to.next_hop(*block);
                    writeln!(
                        text,
                        "{block} by {:?} tunnel to {} via {next}",
                        hop.over, hop.to
                    )
                    .unwrap();
                }
            }
        }
        for (over, tunnel) in &ways.tunnels {
            for (mac, remote) in &tunnel.far {
                writeln!(
                    text,
                    "{over:?} tunnel {} to {mac} at {remote}",
                    tunnel.local
                )
                .unwrap();
            }
        }
        for (block, class) in &ways.returns {
            writeln!(text, "from {block} as {class:?}:").unwrap();
            let of_class = ways
                .nodes
                .iter()
                .filter(|((of, ip), _)| of == class && ip.is_ipv4() == block.addr().is_ipv4());
            for ((_, ip), hop) in of_class {
                writeln!(text, "  {ip} by {:?} tunnel to {}", hop.over, hop.to).unwrap();
            }
        }
        if let Some(handover) = &ways.handover {
            writeln!(text, "hands over to {}:", handover.node).unwrap();
            for (ip, way) in &handover.ways {
                match way {
                    Way::Direct { link, .. } => writeln!(text, "  {ip} on link {link}"),
                    Way::Tunnel(hop) => {
                        writeln!(text, "  {ip} by {:?} tunnel to {}", hop.over, hop.to)
                    }
                }
                .unwrap();
            }
        }
        writeln!(text, "pods' MTU of 1500: {}", pod_mtu(&facts, &ways, 1500)).unwrap();
        text
    }
}

/// A node on some of a few networks, with blocks of some pools.
#[derive(Clone, Debug)]
struct Member {
    /// Number of its IPv4 and of its IPv6 network, where it has an address of the family.
    networks: [Option<u8>; 2],
    on_fabric: bool,
    leaving: bool,
    /// Its encapsulations: each has a block of each family.
    pools: Vec<Option<Encapsulation>>,
}

fn member() -> impl Strategy<Value = Member> {
    use Encapsulation::{Direct, Routed, Vxlan, VxlanCrossSubnet};
    let network = || proptest::option::weighted(0.8, 0..3u8);
    let pool = proptest::option::of(proptest::sample::select(vec![
        Direct,
        Routed,
        Vxlan,
        VxlanCrossSubnet,
    ]));
    let pools = proptest::collection::vec(pool, 1..4);
    let leaving = proptest::bool::weighted(0.4);
    let all = (network(), network(), any::<bool>(), leaving, pools);
    all.prop_map(|(v4, v6, on_fabric, leaving, pools)| Member {
        networks: [v4, v6],
        on_fabric,
        leaving,
        pools,
    })
}

fn name(number: usize) -> String {
    format!("n{number}")
}

fn ips(number: usize, member: &Member) -> Vec<IpAddr> {
    let host = number as u8 + 1;
    let v4 = |net: u8| IpAddr::from(Ipv4Addr::new(192, 0, net, host));
    let v6 = |net: u8| {
        IpAddr::from(Ipv6Addr::new(
            0x2001,
            0xdb8,
            net.into(),
            0,
            0,
            0,
            0,
            host.into(),
        ))
    };
    let [first, second] = member.networks;
    first.map(v4).into_iter().chain(second.map(v6)).collect()
}

fn blocks(number: usize, member: &Member) -> BTreeMap<IpNet, Option<Encapsulation>> {
    let both = |(pool, &asked): (usize, &Option<Encapsulation>)| {
        let v4: IpNet = format!("10.{pool}.{number}.0/24").parse().unwrap();
        let v6: IpNet = format!("fd00:{pool}:{number}::/64").parse().unwrap();
        [(v4, asked), (v6, asked)]
    };
    member.pools.iter().enumerate().flat_map(both).collect()
}

fn seen_from(number: usize, members: &[Member]) -> (Facts, Ways) {
    let own = &members[number];
    let others = members
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != number);
    let facts = Facts {
        ips: ips(number, own),
        leaving: own.leaving,
        blocks: blocks(number, own),
        others: others
            .map(|(other, member)| {
                let facts = Other {
                    ips: ips(other, member),
                    on_fabric: own.on_fabric && member.on_fabric,
                    leaving: member.leaving,
                    blocks: blocks(other, member),
                };
                (name(other), facts)
            })
            .collect(),
        ..Facts::default()
    };
    let on_link: Vec<OnLink> = ips(number, own)
        .into_iter()
        .map(|ip| OnLink {
            link: 2,
            net: IpNet::new(ip, if ip.is_ipv4() { 24 } else { 48 })
                .unwrap()
                .trunc(),
        })
        .collect();
    let ways = Ways::new(&name(number), &facts, &on_link);
    (facts, ways)
}

fn class(asked: Option<Encapsulation>) -> Option<Class> {
    match asked {
        None => Some(Class::Decided),
        Some(Encapsulation::Vxlan) => Some(Class::Vxlan),
        Some(Encapsulation::VxlanCrossSubnet) => Some(Class::CrossSubnet),
        Some(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_handed_over_gets_there_and_goes_around_in_no_circle(
        members in proptest::collection::vec(member(), 2..6)
    ) {
        let all: Vec<(Facts, Ways)> = (0..members.len()).map(|n| seen_from(n, &members)).collect();
        for (number, (_, ways)) in all.iter().enumerate() {
            let (mut at, mut left) = (number, members.len());
            while let Some(handover) = &all[at].1.handover {
                let next = (0..members.len()).find(|n| name(*n) == handover.node).unwrap();
                prop_assert!(members[next].leaving);
                prop_assert!(handover.ways.keys().all(|ip| ips(next, &members[next]).contains(ip)));
                at = next;
                prop_assert!(left > 0, "a circle from {}", name(number));
                left -= 1;
            }
            let hops = ways.handover.iter().flat_map(|handover| {
                handover.ways.values().map(|way| (handover.node.clone(), *way))
            });
            for (node, way) in hops {
                let Way::Tunnel(hop) = way else { continue };
                let there = (0..members.len()).find(|n| name(*n) == node).unwrap();
                let far = &all[there].1.tunnels[&hop.over];
                prop_assert_eq!(ways.tunnels[&hop.over].far[&hop.to], far.local);
                prop_assert_eq!(far.far[&mac(&name(number))], ways.tunnels[&hop.over].local);
            }
        }
    }

    #[test]
    fn ways_agree_at_both_ends(members in proptest::collection::vec(member(), 2..6)) {
        let all: Vec<(Facts, Ways)> = (0..members.len()).map(|n| seen_from(n, &members)).collect();
        for (a, (facts, ways)) in all.iter().enumerate() {
            for (block, way) in &ways.blocks {
                prop_assert!(!facts.blocks.contains_key(block));
                let Way::Tunnel(hop) = way else { continue };
                // Who sends into a tunnel is expected at its other end, where the block is.
                let (b, _) = all
                    .iter()
                    .enumerate()
                    .find(|(_, (facts, _))| facts.blocks.contains_key(block))
                    .unwrap();
                prop_assert_eq!(hop.to, mac(&name(b)));
                let here = &ways.tunnels[&hop.over];
                let there = &all[b].1.tunnels[&hop.over];
                prop_assert_eq!(here.far[&hop.to], there.local);
                prop_assert_eq!(there.far[&mac(&name(a))], here.local);
            }
            // A pod reaches another node as that node reaches the pod.
            for (b, (_, theirs)) in all.iter().enumerate().filter(|(b, _)| *b != a) {
                for (block, &asked) in &facts.blocks {
                    let forth = matches!(theirs.blocks.get(block), Some(Way::Tunnel(_)));
                    let of_family = |ip: &&IpAddr| ip.is_ipv4() == block.addr().is_ipv4();
                    for &ip in ips(b, &members[b]).iter().filter(of_family) {
                        let back = class(asked).is_some_and(|class| {
                            ways.nodes.contains_key(&(class, ip))
                        });
                        prop_assert_eq!(forth, back, "{} and {}", block, ip);
                        if back {
                            prop_assert_eq!(ways.returns.get(block).copied(), class(asked));
                        }
                    }
                }
            }
        }
    }
}
