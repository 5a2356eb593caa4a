//! How long between packets, and how long without one (RFC 5880 §6.8.2 - §6.8.4, §6.8.7).

use std::time::Duration;

/// The fastest rate of a session that is not Up (RFC 5880 §6.8.3).
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// What to wait until the next packet: the interval less up to a quarter of it, so that sessions
/// do not fall in step; with a multiplier of one, at least a tenth less, so that a packet arrives
/// within the detection time. `random` is any number.
pub(crate) fn jittered(interval: Duration, detect_multiplier: u8, random: u32) -> Duration {
    // In hundred-thousandths of the interval.
    let (least, most) = if detect_multiplier == 1 {
        (75_000, 90_000)
    } else {
        (75_000, 100_000)
    };
    let share = least + ((u64::from(random) * (most - least + 1)) >> 32);
    let micros = u64::try_from(interval.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(micros.saturating_mul(share) / 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_three_quarters_and_the_whole() {
        let interval = Duration::from_millis(100);
        let jittered = |multiplier, random| jittered(interval, multiplier, random).as_micros();
        assert_eq!((jittered(3, 0), jittered(3, u32::MAX)), (75_000, 100_000));
        assert_eq!((jittered(1, 0), jittered(1, u32::MAX)), (75_000, 90_000));
        assert_eq!(jittered(3, u32::MAX / 2), 87_500);
    }
}
