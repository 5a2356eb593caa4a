//! Chance, from a seed given by the caller: jitter of timers, and a key for the prefix hash.

use std::time::Duration;

/// A small generator (splitmix64); good enough for jitter, not for secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A generator that repeats itself for the same seed.
    pub fn new(seed: u64) -> Self {
        Chance(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time between 75 and 100 percent of `period` (RFC 4271 section 10).
    pub fn jitter(&mut self, period: Duration) -> Duration {
        let quarter = period / 4;
        let part = u32::try_from(self.number() % 1001).unwrap_or(0);
        period - quarter * part / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_takes_at_most_a_quarter() {
        let mut chance = Chance::new(7);
        let period = Duration::from_secs(8);
        for _ in 0..1000 {
            let got = chance.jitter(period);
            assert!(got >= Duration::from_secs(6) && got <= period, "{got:?}");
        }
    }
}
