//! The course of time: what is under way arrives, timers run out, speakers are told.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::Net;
use crate::Time;
use crate::speaker::{Input, Output, Recorded};

/// Time from one end of a link to the other.
const DELAY_MS: u64 = 1;

/// What arrives at a node.
#[derive(Debug)]
pub(super) struct Delivery {
    node: usize,
    input: Input,
    /// Only if this link is up then.
    link: Option<usize>,
}

/// What happens next.
enum Next {
    Delivery(u64),
    Tick(usize),
}

impl Net {
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

    /// Has something arrive at a node after the delay, over a link if one is given.
    pub(super) fn later(&mut self, node: usize, link: Option<usize>, input: Input) {
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
    pub(super) fn reckon(&mut self, node: usize) {
        let due = self.nodes[node].speaker.deadline();
        let before = std::mem::replace(&mut self.due[node], due);
        if before != due {
            before.map(|at| self.ticks.remove(&(at, node)));
            due.map(|at| self.ticks.insert((at, node)));
        }
    }
}
