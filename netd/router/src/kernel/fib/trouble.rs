//! How long to wait before what may be in vain is done again.

use std::time::{Duration, Instant};

/// First and longest wait before routes are repaired that somebody else touches, or tried again
/// that the kernel refuses.
pub(super) const PATIENCE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(30)];
/// Without trouble for so long, the first wait holds again.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// How long to wait before doing something again that may be in vain.
#[derive(Debug)]
pub(super) struct Trouble {
    wait: Duration,
    last: Option<Instant>,
}

impl Default for Trouble {
    fn default() -> Self {
        Trouble {
            wait: PATIENCE[0],
            last: None,
        }
    }
}

// === impl Trouble ===

impl Trouble {
    /// There is trouble again.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let calm = self.last.is_none_or(|last| now - last > FORGIVEN_AFTER);
        self.wait = if calm {
            PATIENCE[0]
        } else {
            (self.wait * 2).min(PATIENCE[1])
        };
        self.last = Some(now);
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_trouble_and_calm_forgives() {
        let (start, mut trouble) = (Instant::now(), Trouble::default());
        let waits: Vec<u128> = (0..12).map(|_| trouble.next(start).as_millis()).collect();
        assert_eq!(waits[..4], [50, 100, 200, 400]);
        assert_eq!(waits[11], 30_000);
        assert_eq!(trouble.next(start + FORGIVEN_AFTER * 2), PATIENCE[0]);
    }
}
