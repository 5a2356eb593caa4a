//! A network of speakers in virtual time: links that can be cut, connections that deliver bytes in
//! order after a delay, a forwarding table for each speaker.
//!
//! It is for tests, for measurements, and for the question what a plan would lead to: thousands of
//! speakers run in one process, and an hour passes as fast as it can be computed. The same seed
//! and the same calls lead to the same run.
//!
//! Its callers are programs of our own: a node, link or condition that cannot be is a mistake in
//! them, and panics.

pub mod fabric;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use crate::config::{Neighbor, RemoteAs};
use crate::fsm::ConnectionId;
use crate::rib::{NextHops, PeerId};
use crate::speaker::{Beginning, Endpoint, Input, Output, Recorded};
use crate::types::Family;
use crate::{Config, Speaker, Time};

/// Time from one end of a link to the other.
const DELAY_MS: u64 = 1;

/// A network.
#[derive(Debug)]
pub struct Net {
    /// What time it is.
    pub now: Time,
    /// The speakers, by number.
    pub nodes: Vec<Node>,
    links: Vec<Link>,
    events: BinaryHeap<Reverse<(Time, u64)>>,
    waiting: HashMap<u64, Delivery>,
    connections: HashMap<ConnectionId, Far>,
    next: u64,
    recording: bool,
    /// When each node's timers are due, in order, and by node.
    ticks: BTreeSet<(Time, usize)>,
    due: Vec<Option<Time>>,
}

/// A speaker and its forwarding table.
#[derive(Debug)]
pub struct Node {
    /// What it is called.
    pub name: String,
    /// The speaker.
    pub speaker: Speaker,
    /// Where it forwards to.
    pub fib: BTreeMap<IpNet, Arc<NextHops>>,
    /// Changes of forwarding ever taken.
    pub changes: usize,
    /// All that its speaker was told, if that is [recorded](Net::record).
    pub record: Option<Record>,
}

/// All that a speaker was told, and what it said.
#[derive(Clone, Debug)]
pub struct Record {
    /// How it was made.
    pub beginning: Beginning,
    /// What it was told.
    pub inputs: Vec<Recorded>,
    /// What it said, as text.
    pub said: Vec<String>,
}

/// A link between two nodes, each with an address on it.
#[derive(Debug)]
struct Link {
    ends: [(usize, IpAddr); 2],
    up: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Far {
    node: usize,
    connection: ConnectionId,
    link: usize,
}

/// What arrives at a node.
#[derive(Debug)]
struct Delivery {
    node: usize,
    input: Input,
    /// Only if this link is up then.
    link: Option<usize>,
}

// === impl Net ===

impl Default for Net {
    fn default() -> Self {
        Net::new()
    }
}

impl Net {
    /// A network of nothing.
    pub fn new() -> Self {
        Net {
            now: Time(0),
            nodes: Vec::new(),
            links: Vec::new(),
            events: BinaryHeap::new(),
            waiting: HashMap::new(),
            connections: HashMap::new(),
            next: 1,
            recording: false,
            ticks: BTreeSet::new(),
            due: Vec::new(),
        }
    }

    /// Has everything recorded that happens to nodes added from now on.
    pub fn record(&mut self) {
        self.recording = true;
    }

    /// Adds a speaker without neighbours.
    pub fn add(&mut self, name: &str, config: Config) -> usize {
        let beginning = Beginning {
            config,
            seed: self.nodes.len() as u64,
            at: self.now,
        };
        let speaker = beginning.speaker();
        let name = name.to_owned();
        let record = self.recording.then(|| Record {
            beginning,
            inputs: Vec::new(),
            said: Vec::new(),
        });
        self.due.push(None);
        self.nodes.push(Node {
            record,
            name,
            speaker,
            fib: BTreeMap::new(),
            changes: 0,
        });
        let number = self.nodes.len() - 1;
        self.reckon(number);
        number
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
        let mut change = Some(change);
        let made = self.links_with(&[(a, b)], |_, first, second| {
            if let Some(change) = change.take() {
                change(first, second);
            }
        });
        made[0]
    }

    /// The same for many at once, each node being configured once: their numbers.
    pub fn links_with(
        &mut self,
        all: &[(usize, usize)],
        mut change: impl FnMut((usize, usize), &mut Neighbor, &mut Neighbor),
    ) -> Vec<usize> {
        let mut configs: BTreeMap<usize, Config> = BTreeMap::new();
        let first = self.links.len();
        for (a, b) in all.iter().copied() {
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
            change((a, b), &mut a_at_b, &mut b_at_a);
            self.links.push(Link { ends, up: true });
            for (node, neighbor) in [(a, b_at_a), (b, a_at_b)] {
                let speaker = &self.nodes[node].speaker;
                let config = configs
                    .entry(node)
                    .or_insert_with(|| speaker.config().clone());
                config.neighbors.push(neighbor);
            }
        }
        for (node, config) in configs {
            self.handle(node, Input::Configure(Box::new(config)));
        }
        (first..self.links.len()).collect()
    }

    /// The address of a node on a link of its.
    ///
    /// # Panics
    /// If it is not on the link.
    pub fn address(&self, link: usize, node: usize) -> IpAddr {
        let ends = self.links[link].ends.iter();
        let end = ends.copied().find(|(at, _)| *at == node);
        end.expect("a node of the link").1
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

    /// Has a node originate a prefix.
    ///
    /// # Panics
    /// If it is none.
    pub fn announce(&mut self, node: usize, prefix: &str) {
        let prefixes = vec![prefix.parse().expect("a prefix")];
        self.handle(
            node,
            Input::Announce {
                prefixes,
                attributes: Default::default(),
            },
        );
    }

    /// Has a node originate a prefix no longer.
    ///
    /// # Panics
    /// If it is none.
    pub fn withdraw(&mut self, node: usize, prefix: &str) {
        let prefixes = vec![prefix.parse().expect("a prefix")];
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

    /// Lets time pass until a condition holds. How long it took, in milliseconds.
    ///
    /// # Panics
    /// When it takes longer than `ms`.
    pub fn run_until(&mut self, ms: u64, what: &str, condition: impl Fn(&Net) -> bool) -> u64 {
        let start = self.now.0;
        while !condition(self) {
            assert!(self.now.0 - start < ms, "not within {ms} ms: {what}");
            // To the next event: between two of them nothing changes.
            let next = self.next_event().map_or(self.now.0 + ms, |(at, _)| at.0);
            self.run(next.saturating_sub(self.now.0).max(1));
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
        self.nodes[node].speaker.established_at(peer)
    }

    fn next_event(&self) -> Option<(Time, Next)> {
        let delivery = self
            .events
            .peek()
            .map(|Reverse((at, id))| (*at, Next::Delivery(*id)));
        let tick = self
            .ticks
            .first()
            .map(|(at, node)| (*at, Next::Tick(*node)));
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
        let recorded = Recorded {
            at: self.now,
            input,
        };
        let at_node = &mut self.nodes[node];
        if let Some(record) = &mut at_node.record {
            record.inputs.push(recorded.clone());
        }
        at_node.speaker.handle(recorded.input, self.now);
        let outputs: Vec<Output> = at_node.speaker.take_outputs().collect();
        if let Some(record) = &mut at_node.record {
            let shown = outputs.iter().map(|output| format!("{output:?}"));
            record.said.extend(shown);
        }
        for output in outputs {
            self.act(node, output);
        }
        self.reckon(node);
        let node = &mut self.nodes[node];
        for change in node.speaker.take_changes(usize::MAX) {
            node.changes += 1;
            match change.next_hops {
                None => node.fib.remove(&change.prefix),
                Some(hops) => node.fib.insert(change.prefix, hops),
            };
        }
    }

    /// Takes note of when a node's timers are due.
    fn reckon(&mut self, node: usize) {
        let due = self.nodes[node].speaker.deadline();
        let before = std::mem::replace(&mut self.due[node], due);
        if before != due {
            before.map(|at| self.ticks.remove(&(at, node)));
            due.map(|at| self.ticks.insert((at, node)));
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
            Output::Abandon { .. } | Output::Notice { .. } | Output::Resolve { .. } => {}
        }
    }

    fn connect(&mut self, node: usize, peer: PeerId, address: IpAddr) {
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
    pub fn tables(&self) -> BTreeMap<String, BTreeMap<IpNet, String>> {
        let shown = self.nodes.iter().map(|node| {
            let table = node.fib.iter().map(|(net, hops)| (*net, text(hops)));
            (node.name.clone(), table.collect())
        });
        shown.collect()
    }

    /// What each speaker says its forwarding table should be.
    pub fn wanted_tables(&self) -> BTreeMap<String, BTreeMap<IpNet, String>> {
        let shown = self.nodes.iter();
        shown
            .map(|node| (node.name.clone(), wanted_table(&node.speaker)))
            .collect()
    }
}

/// What a speaker says its forwarding table should be, as text.
pub fn wanted_table(speaker: &Speaker) -> BTreeMap<IpNet, String> {
    let families = Family::SUPPORTED.into_iter();
    let routes = families.flat_map(|family| speaker.forwarding(family));
    routes.map(|(prefix, hops)| (prefix, text(hops))).collect()
}

fn text(hops: &NextHops) -> String {
    let each: Vec<String> = hops.iter().map(ToString::to_string).collect();
    each.join(" ")
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
