//! How far apart batches begin while commits come densely.
//!
//! A batch costs about as much for one transaction as for twenty: the database's pages, its threads, the
//! sync. Where the disk syncs fast, the writer would take transactions in ones and twos and pay that each
//! time. So while commits are dense a batch begins only some time after the one before it, and what comes in
//! between shares it. A commit without company never waits, and no commit does where a batch takes that long
//! by itself.

use std::time::{Duration, Instant};

/// The least time from the beginning of a batch to that of the next, while commits are dense.
const APART: Duration = Duration::from_millis(4);

/// Commits are dense when at least so many come within [`APART`].
const DENSE: u32 = 8;

/// When the last two batches began, and what the last one had.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// From the beginning of the batch before to that of the last: in it the last one's transactions came.
    span: Duration,
    transactions: u32,
}

// === impl Pace ===

impl Pace {
    /// Notes a batch of so many transactions that begins `now`.
    pub fn began(&mut self, now: Instant, transactions: usize) {
        self.span = self.last.map_or(Duration::MAX, |last| now - last);
        self.transactions = u32::try_from(transactions).unwrap_or(u32::MAX);
        self.last = Some(now);
    }

    /// How long, `now` that a transaction is at hand, the next batch should wait for others.
    pub fn pause(&self, now: Instant) -> Duration {
        match self.last {
            Some(last) if self.dense() => (last + APART).saturating_duration_since(now),
            _ => Duration::ZERO,
        }
    }

    /// One client that commits again and again is fast, but alone in each batch: it would wait in vain.
    fn dense(&self) -> bool {
        self.transactions > 1 && self.span / self.transactions <= APART / DENSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses of batches that have `sizes`, each `every` after the one before was over its pause.
    fn pauses(every: Duration, sizes: &[usize]) -> Vec<Duration> {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let mut begin = |&size: &usize| {
            let pause = pace.pause(now);
            pace.began(now + pause, size);
            now += pause + every;
            pause
        };
        sizes.iter().map(&mut begin).collect()
    }

    const fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_client_alone_never_waits() {
        assert_eq!(pauses(micros(100), &[1; 5]), [Duration::ZERO; 5]);
    }

    #[test]
    fn two_clients_at_once_do_not_wait_either() {
        assert_eq!(pauses(micros(1100), &[2; 5]), [Duration::ZERO; 5]);
    }

    #[test]
    fn many_wait_for_each_other_until_they_are_few_again() {
        let [none, pause] = [Duration::ZERO, micros(3700)];
        assert_eq!(
            pauses(micros(300), &[1, 3, 20, 12, 2, 1, 1]),
            [none, none, pause, pause, pause, none, none]
        );
    }

    #[test]
    fn nobody_waits_where_a_batch_takes_long_by_itself() {
        assert_eq!(pauses(micros(5000), &[40; 4]), [Duration::ZERO; 4]);
    }
}
