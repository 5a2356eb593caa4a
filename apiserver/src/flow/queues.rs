//! The queues of one priority level: who waits where, and whose turn it is. Pure; times come in
//! as seconds on a clock that only moves forward.
//!
//! A flow is dealt a hand of the queues by its number (shuffle sharding), and waits in the least
//! laden of them: a heavy flow fills its own hand, and few others' whole hands. Between queues
//! turns are taken by fair queuing: each has a virtual time at which its next request would
//! start if all queues were served at once, and the one that would finish first is served.

use std::collections::VecDeque;

/// How long a request is thought to take, in seconds, until it is known.
const GUESS: f64 = 0.003;

/// How requests of a level wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many queues there are; none where requests do not wait.
    pub queues: usize,
    /// How many of them a flow uses.
    pub hand: usize,
    /// Most requests that wait in one.
    pub length: usize,
}

/// The queues.
#[derive(Debug)]
pub struct Queues<T> {
    settings: Settings,
    queues: Vec<Queue<T>>,
    /// The virtual time, and the real one at which it was that.
    at: (f64, f64),
    next_id: u64,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Seats of its requests in work.
    seats: u32,
    /// The virtual time at which its next request starts.
    start: f64,
}

#[derive(Debug)]
struct Waiting<T> {
    id: u64,
    flow: u64,
    width: u32,
    ticket: T,
}

/// A request whose turn it is.
#[derive(Debug)]
pub struct Turn<T> {
    /// What it was given to wait with.
    pub ticket: T,
    /// Its seats.
    pub width: u32,
    /// Its queue, for [`Queues::finished`].
    pub queue: usize,
}

/// There is no room in any queue of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

// === impl Queues ===

impl<T> Queues<T> {
    /// Queues in which nobody waits.
    pub fn new(settings: Settings) -> Self {
        let mut queues = Self {
            settings: Settings {
                queues: 0,
                ..settings
            },
            queues: Vec::new(),
            at: (0.0, 0.0),
            next_id: 0,
        };
        queues.set(settings);
        queues
    }

    /// Whether requests wait here at all.
    pub fn any(&self) -> bool {
        self.settings.queues > 0
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.waiting.len()).sum()
    }

    /// Changes how requests wait. Those that do are dealt into the new queues, or, where there
    /// are none any more, wait on in one.
    pub fn set(&mut self, settings: Settings) {
        if settings == self.settings {
            return;
        }
        self.settings = settings;
        let (virtual_now, _) = self.at;
        let fresh = || Queue {
            waiting: VecDeque::new(),
            seats: 0,
            start: virtual_now,
        };
        let mut all: Vec<Waiting<T>> = Vec::new();
        for queue in std::mem::take(&mut self.queues) {
            all.extend(queue.waiting);
        }
        // Their order is the order in which they came.
        all.sort_by_key(|one| one.id);
        self.queues = std::iter::repeat_with(fresh)
            .take(settings.queues.max(1))
            .collect();
        for one in all {
            let index = self.choose(one.flow);
            if let Some(queue) = self.queues.get_mut(index) {
                queue.waiting.push_back(one);
            }
        }
    }

    /// Lets a request wait; the number by which it can give up.
    pub fn enqueue(
        &mut self,
        now: f64,
        (flow, width): (u64, u32),
        seats: (u32, u32),
        ticket: T,
    ) -> Result<u64, Full> {
        self.advance(now, seats);
        let index = self.choose(flow);
        let (virtual_now, _) = self.at;
        let length = self.settings.length;
        let queue = self.queues.get_mut(index).ok_or(Full)?;
        if queue.waiting.len() >= length {
            return Err(Full);
        }
        if queue.waiting.is_empty() && queue.seats == 0 {
            // Who was idle has saved nothing up.
            queue.start = virtual_now;
        }
        let id = self.next_id;
        self.next_id += 1;
        queue.waiting.push_back(Waiting {
            id,
            flow,
            width,
            ticket,
        });
        Ok(id)
    }

    /// Takes out a request that gives up; false when it does not wait any more.
    pub fn give_up(&mut self, id: u64) -> bool {
        for queue in &mut self.queues {
            if let Some(index) = queue.waiting.iter().position(|one| one.id == id) {
                queue.waiting.remove(index);
                return true;
            }
        }
        false
    }

    /// The request whose turn it is, when it fits into the seats: (in use, all there are). One
    /// that is wider than the level goes when nothing else is in work.
    pub fn next(&mut self, now: f64, seats: (u32, u32)) -> Option<Turn<T>> {
        self.advance(now, seats);
        let finish = |queue: &Queue<T>| {
            let width = queue.waiting.front()?.width;
            Some(queue.start + f64::from(width) * GUESS)
        };
        let all = self.queues.iter().enumerate();
        let candidates = all.filter_map(|(index, queue)| Some((index, finish(queue)?)));
        let (index, _) = candidates.min_by(|(_, a), (_, b)| a.total_cmp(b))?;
        let queue = self.queues.get_mut(index)?;
        let (in_use, limit) = seats;
        let width = queue.waiting.front()?.width;
        if in_use > 0 && in_use.saturating_add(width) > limit {
            return None;
        }
        let first = queue.waiting.pop_front()?;
        queue.seats += width;
        queue.start += f64::from(width) * GUESS;
        Some(Turn {
            ticket: first.ticket,
            width,
            queue: index,
        })
    }

    /// Notes how long a request took that had its turn from a queue.
    pub fn finished(&mut self, now: f64, turn: (usize, u32), took: f64, seats: (u32, u32)) {
        self.advance(now, seats);
        let (index, width) = turn;
        let (virtual_now, _) = self.at;
        if let Some(queue) = self.queues.get_mut(index) {
            queue.seats = queue.seats.saturating_sub(width);
            queue.start += f64::from(width) * (took - GUESS);
            if queue.waiting.is_empty() && queue.seats == 0 {
                queue.start = queue.start.max(virtual_now);
            }
        }
    }

    /// Moves the virtual time on: by what each queue that has something to do was served.
    fn advance(&mut self, now: f64, (in_use, limit): (u32, u32)) {
        let (virtual_now, since) = self.at;
        let passed = (now - since).max(0.0);
        let busy = |queue: &&Queue<T>| !queue.waiting.is_empty() || queue.seats > 0;
        let active = self.queues.iter().filter(busy).count();
        let waiting = self.queues.iter().flat_map(|queue| &queue.waiting);
        let wanted = waiting.fold(in_use, |sum, one| sum.saturating_add(one.width));
        let served = match active {
            0 => 0.0,
            active => passed * f64::from(wanted.min(limit)) / active as f64,
        };
        self.at = (virtual_now + served, now);
    }

    /// The least laden queue of a flow's hand.
    fn choose(&self, flow: u64) -> usize {
        let load = |index: usize| {
            self.queues.get(index).map_or(u64::MAX, |queue| {
                let waiting = queue.waiting.iter().map(|one| u64::from(one.width));
                waiting.sum::<u64>() + u64::from(queue.seats)
            })
        };
        hand(flow, self.queues.len(), self.settings.hand)
            .into_iter()
            .min_by_key(|index| load(*index))
            .unwrap_or(0)
    }
}

/// The hand of a flow: `size` different cards of a deck, by the digits of its number.
pub fn hand(flow: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut rest = flow;
    let mut dealt: Vec<usize> = Vec::new();
    for turn in 0..size.min(deck) {
        let left = (deck - turn) as u64;
        // Below the size of the deck.
        let mut card = (rest % left) as usize;
        rest /= left;
        // Counted among the cards that are not dealt yet.
        let mut before = dealt.clone();
        before.sort_unstable();
        for earlier in before {
            if card >= earlier {
                card += 1;
            }
        }
        dealt.push(card);
    }
    dealt
}
