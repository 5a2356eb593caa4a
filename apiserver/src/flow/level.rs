//! A priority level at work: its seats, taken and given back, and the requests that wait.
//!
//! While seats are free and nobody waits, a request takes its seats by one atomic exchange. Only
//! when that fails it looks for seats to borrow, and then waits in the level's queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::meters::LevelMeters;
use super::queues::{Queues, Settings};
use super::shares::{self, Bounds, Holding};

/// One who waits, in the level's word.
const ONE_WAITS: u64 = 1 << 32;

/// A level.
pub struct Level {
    /// Its name.
    pub name: String,
    exempt: AtomicBool,
    /// In the low half the seats in use, in the high half how many wait.
    word: AtomicU64,
    limit: AtomicU32,
    bounds: Mutex<Bounds>,
    nominal: AtomicU32,
    queues: Mutex<Queues<oneshot::Sender<Seats>>>,
    began: Instant,
    meters: LevelMeters,
}

/// All levels, between which seats move.
#[derive(Default)]
pub struct Ledger(Mutex<Vec<Arc<Level>>>);

/// Seats that a request has; dropping them gives them back.
pub struct Seats {
    level: Arc<Level>,
    ledger: Arc<Ledger>,
    width: u32,
    queue: Option<usize>,
    since: Instant,
}

/// Why a request gets no seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are none, and nobody waits at this level.
    Limit,
    /// There is no room in the queues.
    Full,
    /// It has waited too long.
    TimedOut,
}

/// How a level is set up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setup {
    /// Whether nothing waits here and nothing is counted.
    pub exempt: bool,
    /// Its seats.
    pub bounds: Bounds,
    /// Its queues.
    pub settings: Settings,
}

// === impl Refused ===

impl Refused {
    /// The reason, as metrics name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Limit => "concurrency-limit",
            Self::Full => "queue-full",
            Self::TimedOut => "time-out",
        }
    }
}

// === impl Level ===

impl Level {
    /// A level in which nothing is in work.
    pub fn new(name: &str, setup: Setup, meters: LevelMeters) -> Self {
        let level = Self {
            name: name.to_owned(),
            exempt: AtomicBool::new(setup.exempt),
            word: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            bounds: Mutex::default(),
            nominal: AtomicU32::new(0),
            queues: Mutex::new(Queues::new(setup.settings)),
            began: Instant::now(),
            meters,
        };
        level.set(setup);
        level
    }

    /// Sets it up anew; its seats are its nominal ones again.
    pub fn set(&self, setup: Setup) {
        self.exempt.store(setup.exempt, Ordering::Relaxed);
        self.nominal.store(setup.bounds.nominal, Ordering::Relaxed);
        *self.bounds.lock() = setup.bounds;
        self.set_limit(setup.bounds.nominal);
        self.meters.bounds(setup.bounds);
        self.queues.lock().set(setup.settings);
    }

    /// The seats that are its own.
    pub fn nominal(&self) -> u32 {
        self.nominal.load(Ordering::Relaxed)
    }

    /// Takes seats, waiting for them if it must, but not longer than `patience`.
    pub async fn enter(
        self: &Arc<Self>,
        ledger: &Arc<Ledger>,
        (flow, width): (u64, u32),
        patience: Duration,
    ) -> Result<Seats, Refused> {
        let seats = |queue| Seats {
            level: self.clone(),
            ledger: ledger.clone(),
            width,
            queue,
            since: Instant::now(),
        };
        if self.exempt.load(Ordering::Relaxed) {
            self.word.fetch_add(u64::from(width), Ordering::AcqRel);
            return Ok(seats(None));
        }
        if self.try_take(width) {
            return Ok(seats(None));
        }
        ledger.borrow(self, width);
        if self.try_take(width) {
            return Ok(seats(None));
        }
        let (ticket, turn) = oneshot::channel();
        let id = self.enqueue(flow, width, ticket)?;
        let mut waiter = Waiter {
            level: self,
            ledger,
            id: Some(id),
        };
        self.dispatch(ledger);
        match tokio::time::timeout(patience, turn).await {
            Ok(Ok(seats)) => {
                // It does not wait any more: there is nothing to give up.
                waiter.id = None;
                Ok(seats)
            }
            Ok(Err(_)) | Err(_) => Err(Refused::TimedOut),
        }
    }

    /// (in use, all).
    fn seats(&self) -> (u32, u32) {
        let word = self.word.load(Ordering::Acquire);
        (in_use(word), self.limit.load(Ordering::Acquire))
    }

    fn try_take(&self, width: u32) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        let taken = |word: u64| {
            let used = in_use(word);
            let fits = used == 0 || used.saturating_add(width) <= limit;
            (waiting(word) == 0 && fits).then(|| word + u64::from(width))
        };
        let exchanged = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, taken);
        exchanged.is_ok()
    }

    fn enqueue(
        &self,
        flow: u64,
        width: u32,
        ticket: oneshot::Sender<Seats>,
    ) -> Result<u64, Refused> {
        let mut queues = self.queues.lock();
        if !queues.any() {
            return Err(Refused::Limit);
        }
        // Said before it waits: who gives seats back from now on looks into the queues.
        self.word.fetch_add(ONE_WAITS, Ordering::AcqRel);
        let queued = queues.enqueue(self.now(), (flow, width), self.seats(), ticket);
        queued.map_err(|_| {
            self.word.fetch_sub(ONE_WAITS, Ordering::AcqRel);
            Refused::Full
        })
    }

    /// Gives seats to those whose turn it is, as long as there are some.
    fn dispatch(self: &Arc<Self>, ledger: &Arc<Ledger>) {
        loop {
            let turn = {
                let mut queues = self.queues.lock();
                let Some(turn) = queues.next(self.now(), self.seats()) else {
                    return;
                };
                self.word.fetch_add(u64::from(turn.width), Ordering::AcqRel);
                self.word.fetch_sub(ONE_WAITS, Ordering::AcqRel);
                turn
            };
            let seats = Seats {
                level: self.clone(),
                ledger: ledger.clone(),
                width: turn.width,
                queue: Some(turn.queue),
                since: Instant::now(),
            };
            // Who has gone meanwhile gives the seats back by dropping them.
            drop(turn.ticket.send(seats));
        }
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
        self.meters.limit(limit);
    }

    fn holding(&self) -> Holding {
        let word = self.word.load(Ordering::Acquire);
        Holding {
            bounds: *self.bounds.lock(),
            limit: self.limit.load(Ordering::Acquire),
            in_use: in_use(word),
            waits: waiting(word) > 0,
        }
    }
}

fn in_use(word: u64) -> u32 {
    // The low half.
    (word & u64::from(u32::MAX)) as u32
}

fn waiting(word: u64) -> u64 {
    word >> 32
}

// === impl Ledger ===

impl Ledger {
    /// The levels from now on.
    pub fn set(&self, levels: Vec<Arc<Level>>) {
        *self.0.lock() = levels;
    }

    /// Finds seats for a level that is short of them: those that are missing for `width`.
    fn borrow(&self, who: &Arc<Level>, width: u32) {
        let levels = self.0.lock();
        let Some(index) = levels.iter().position(|one| Arc::ptr_eq(one, who)) else {
            return;
        };
        let holdings: Vec<Holding> = levels.iter().map(|level| level.holding()).collect();
        let Some(own) = holdings.get(index) else {
            return;
        };
        let missing = own.in_use.saturating_add(width).saturating_sub(own.limit);
        for (index, limit) in shares::borrow(&holdings, index, missing).unwrap_or_default() {
            if let Some(level) = levels.get(index) {
                level.set_limit(limit);
            }
        }
    }
}

/// One who waits: who goes away takes the request out of its queue.
struct Waiter<'a> {
    level: &'a Arc<Level>,
    ledger: &'a Arc<Ledger>,
    id: Option<u64>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        if self.level.queues.lock().give_up(id) {
            self.level.word.fetch_sub(ONE_WAITS, Ordering::AcqRel);
            // It may have stood before a narrower one.
            self.level.dispatch(self.ledger);
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let level = &self.level;
        let word = level
            .word
            .fetch_sub(u64::from(self.width), Ordering::AcqRel);
        if let Some(queue) = self.queue {
            let took = self.since.elapsed().as_secs_f64();
            let mut queues = level.queues.lock();
            queues.finished(level.now(), (queue, self.width), took, level.seats());
        }
        if waiting(word) > 0 {
            self.level.dispatch(&self.ledger);
            if waiting(level.word.load(Ordering::Acquire)) > 0 {
                self.ledger.borrow(level, 1);
                level.dispatch(&self.ledger);
            }
        }
    }
}
