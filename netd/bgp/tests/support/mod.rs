//! A network of speakers in virtual time: links that can be cut, connections that deliver bytes
//! in order after a delay, a forwarding table for each speaker.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use peapod_bgp::config::{Neighbor, RemoteAs};
use peapod_bgp::fsm::{ConnectionId, State};
use peapod_bgp::speaker::{Endpoint, Input, Output};
use peapod_bgp::types::Family;
use peapod_bgp::{Config, Speaker, Time};

/// Time from one end of a link to the other.
const DELAY_MS: u64 = 1;

/// A network.
pub struct Net {
    pub now: Time,
    pub nodes: Vec<Node>,
    links: Vec<Link>,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    waiting: HashMap<u64, Delivery>,
    connections: HashMap<ConnectionId, Far>,
    next: u64,
}

/// A speaker and its forwarding table.
pub struct Node {
    pub name: String,
    pub speaker: Speaker,
    pub fib: BTreeMap<IpNet, Vec<String>>,
    /// Changes of forwarding ever taken.
    pub changes: usize,
}

/// A link between two nodes, each with an address on it.
struct Link {
    ends: [(usize, IpAddr); 2],
    up: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
struct Far {
    node: usize,
    connection: ConnectionId,
    link: usize,
}

/// What arrives at a node.
struct Delivery {
    node: usize,
    input: Input,
    /// Only if this link is up then.
    link: Option<usize>,
}

impl Net {
    pub fn new() -> Self {
        Net {
            now: Time(0),
            nodes: Vec::new(),
            links: Vec::new(),
            events: BinaryHeap::new(),
            waiting: HashMap::new(),
            connections: HashMap::new(),
            next: 1,
        }
    }

    /// Adds a speaker without neighbours.
    pub fn add(&mut self, name: &str, config: Config) -> usize {
        let seed = self.nodes.len() as u64;
        let speaker = Speaker::new(config, seed, self.now);
        let name = name.to_owned();
        self.nodes.push(Node {
            name,
            speaker,
            fib: BTreeMap::new(),
            changes: 0,
        });
        self.nodes.len() - 1
    }

    /// Connects two speakers by a link, each knowing the other as its neighbour.
    pub fn link(&mut self, a: usize, b: usize) -> usize {
        self.link_with(a, b, |_, _| {})
    }

    /// The same, with the neighbours' options changed: of `a` at `b` and of `b` at `a`.
    pub fn link_with(
        &mut self,
        a: usize,
        b: usize,
        change: impl FnOnce(&mut Neighbor, &mut Neighbor),
    ) -> usize {
        let number = self.links.len() as u32;
        let address = |end: u32| IpAddr::from((0x0a00_0000 + number * 2 + end).to_be_bytes());
        let ends = [(a, address(0)), (b, address(1))];
        let remote_as = |node: usize| RemoteAs::Number(self.nodes[node].speaker.config().asn);
        let mut b_at_a = Neighbor::at(ends[1].1, remote_as(b));
        let mut a_at_b = Neighbor::at(ends[0].1, remote_as(a));
        for neighbor in [&mut b_at_a, &mut a_at_b] {
            neighbor.options.timers.hold_seconds = 9;
            neighbor.options.timers.connect_retry_seconds = 2;
        }
        change(&mut a_at_b, &mut b_at_a);
        self.links.push(Link { ends, up: true });
        for (node, neighbor) in [(a, b_at_a), (b, a_at_b)] {
            let mut config = self.nodes[node].speaker.config().clone();
            config.neighbors.push(neighbor);
            self.handle(node, Input::Configure(Box::new(config)));
        }
        self.links.len() - 1
    }

    /// Cuts a link, or repairs it; both ends see its carrier.
    pub fn set_link(&mut self, link: usize, up: bool) {
        if std::mem::replace(&mut self.links[link].up, up) == up {
            return;
        }
        if !up {
            self.connections.retain(|_, far| far.link != link);
        }
        for (node, _) in self.links[link].ends {
            self.handle(
                node,
                Input::Link {
                    interface: format!("link{link}"),
                    up,
                },
            );
        }
    }

    /// Cuts a link without anybody seeing it.
    pub fn lose_silently(&mut self, link: usize) {
        self.links[link].up = false;
        self.connections.retain(|_, far| far.link != link);
    }

    pub fn announce(&mut self, node: usize, prefix: &str) {
        let prefixes = vec![prefix.parse().unwrap()];
        self.handle(
            node,
            Input::Announce {
                prefixes,
                attributes: Default::default(),
            },
        );
    }

    pub fn withdraw(&mut self, node: usize, prefix: &str) {
        let prefixes = vec![prefix.parse().unwrap()];
        self.handle(node, Input::Withdraw { prefixes });
    }

    /// Lets time pass.
    pub fn run(&mut self, ms: u64) {
        let end = Time(self.now.0 + ms);
        while let Some((at, what)) = self.next_event().filter(|(at, _)| *at <= end) {
            self.now = at.max(self.now);
            match what {
                Next::Delivery(id) => self.deliver(id),
                Next::Tick(node) => self.handle(node, Input::Tick),
            }
        }
        self.now = end;
    }

    /// Lets time pass until a condition holds; panics when that takes longer than `ms`. How long
    /// it took.
    pub fn run_until(&mut self, ms: u64, what: &str, condition: impl Fn(&Net) -> bool) -> u64 {
        let start = self.now.0;
        while !condition(self) {
            assert!(self.now.0 - start < ms, "not within {ms} ms: {what}");
            self.run(1);
        }
        self.now.0 - start
    }

    /// Whether all sessions over links that are up are established, and no message is under way.
    pub fn quiet(&self) -> bool {
        let sessions = self.links.iter().filter(|link| link.up).all(|link| {
            let [(a, at_a), (b, at_b)] = link.ends;
            self.established(a, at_b) && self.established(b, at_a)
        });
        sessions && self.waiting.is_empty()
    }

    fn established(&self, node: usize, peer: IpAddr) -> bool {
        let peers = self.nodes[node].speaker.peers();
        peers
            .iter()
            .any(|view| view.address == Some(peer) && view.state == State::Established)
    }

    fn next_event(&self) -> Option<(Time, Next)> {
        let delivery = self
            .events
            .peek()
            .map(|Reverse((at, id))| (*at, Next::Delivery(*id)));
        let ticks = self.nodes.iter().enumerate();
        let tick = ticks.filter_map(|(at, node)| Some((node.speaker.deadline()?, Next::Tick(at))));
        delivery.into_iter().chain(tick).min_by_key(|(at, _)| *at)
    }

    fn deliver(&mut self, id: u64) {
        self.events.pop();
        let Some(delivery) = self.waiting.remove(&id) else {
            return;
        };
        if delivery.link.is_none_or(|link| self.links[link].up) {
            self.handle(delivery.node, delivery.input);
        }
    }

    fn later(&mut self, node: usize, link: Option<usize>, input: Input) {
        self.next += 1;
        self.events
            .push(Reverse((Time(self.now.0 + DELAY_MS), self.next)));
        self.waiting
            .insert(self.next, Delivery { node, input, link });
    }

    /// Has a speaker handle something, and does what it wants.
    pub fn handle(&mut self, node: usize, input: Input) {
        self.nodes[node].speaker.handle(input, self.now);
        let outputs: Vec<Output> = self.nodes[node].speaker.take_outputs().collect();
        for output in outputs {
            self.act(node, output);
        }
        let node = &mut self.nodes[node];
        for change in node.speaker.take_changes(usize::MAX) {
            node.changes += 1;
            match change.next_hops {
                None => node.fib.remove(&change.prefix),
                Some(hops) => {
                    let hops = hops.iter().map(ToString::to_string).collect();
                    node.fib.insert(change.prefix, hops)
                }
            };
        }
    }

    fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect { peer, address } => self.connect(node, peer, address),
            Output::Send { connection, bytes } => self.send(node, connection, bytes),
            Output::Close { connection } => {
                if let Some(far) = self.connections.remove(&connection) {
                    self.connections.remove(&far.connection);
                    let closed = Input::Closed {
                        connection: far.connection,
                    };
                    self.later(far.node, Some(far.link), closed);
                }
            }
            Output::Abandon { .. } | Output::Notice { .. } => {}
        }
    }

    fn connect(&mut self, node: usize, peer: peapod_bgp::rib::PeerId, address: IpAddr) {
        let links = self.links.iter().enumerate();
        let found = links
            .filter(|(_, link)| link.up)
            .find_map(|(at, link)| match link.ends {
                [near, far] if near.0 == node && far.1 == address => Some((at, near, far)),
                [far, near] if near.0 == node && far.1 == address => Some((at, near, far)),
                _ => None,
            });
        let Some((link, near, far)) = found else {
            self.later(node, None, Input::ConnectFailed { peer });
            return;
        };
        self.next += 2;
        let (ours, theirs) = (ConnectionId(self.next - 1), ConnectionId(self.next));
        self.connections.insert(
            ours,
            Far {
                node: far.0,
                connection: theirs,
                link,
            },
        );
        self.connections.insert(
            theirs,
            Far {
                node,
                connection: ours,
                link,
            },
        );
        let ends = |local: IpAddr, remote: IpAddr| Endpoint {
            interface: Some(format!("link{link}")),
            ..Endpoint::between(local, remote)
        };
        let endpoint = ends(near.1, far.1);
        self.later(
            node,
            Some(link),
            Input::Connected {
                peer,
                connection: ours,
                endpoint,
            },
        );
        let endpoint = ends(far.1, near.1);
        self.later(
            far.0,
            Some(link),
            Input::Accepted {
                connection: theirs,
                endpoint,
            },
        );
    }

    fn send(&mut self, node: usize, connection: ConnectionId, bytes: Bytes) {
        let count = bytes.len();
        if let Some(far) = self.connections.get(&connection).copied() {
            let input = Input::Received {
                connection: far.connection,
                bytes,
            };
            self.later(far.node, Some(far.link), input);
        }
        self.later(
            node,
            None,
            Input::Sent {
                connection,
                bytes: count,
            },
        );
    }

    /// All forwarding tables, as text.
    pub fn tables(&self) -> BTreeMap<String, BTreeMap<IpNet, Vec<String>>> {
        self.nodes
            .iter()
            .map(|node| (node.name.clone(), node.fib.clone()))
            .collect()
    }

    /// What each speaker says its forwarding table should be.
    pub fn wanted_tables(&self) -> BTreeMap<String, BTreeMap<IpNet, Vec<String>>> {
        let of = |node: &Node| {
            let families = Family::SUPPORTED.into_iter();
            let routes = families.flat_map(|family| node.speaker.forwarding(family));
            let shown = routes.map(|(prefix, hops)| {
                (
                    prefix,
                    hops.iter().map(ToString::to_string).collect::<Vec<_>>(),
                )
            });
            shown.collect()
        };
        self.nodes
            .iter()
            .map(|node| (node.name.clone(), of(node)))
            .collect()
    }
}

enum Next {
    Delivery(u64),
    Tick(usize),
}

/// A configuration of an AS, with a router id made of its number, and multipath.
pub fn config(asn: u32, router_id: u32) -> Config {
    let mut config = Config::new(asn, router_id.into());
    config.selection.multipath = 8;
    config.selection.multipath_relax = true;
    config
}
