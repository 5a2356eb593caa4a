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
mod run;
mod tables;
mod wire;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::run::Delivery;
pub use self::tables::wanted_table;
use self::wire::Far;
use crate::config::{Neighbor, RemoteAs};
use crate::fsm::ConnectionId;
use crate::rib::NextHops;
use crate::speaker::{Beginning, Input, Recorded};
use crate::{Config, Speaker, Time};

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
}

/// A configuration of an AS, with a router id made of its number, and multipath.
pub fn config(asn: u32, router_id: u32) -> Config {
    let mut config = Config::new(asn, router_id.into());
    config.selection.multipath = 8;
    config.selection.multipath_relax = true;
    config
}
