//! In which order the items of a range are tried. Pure.
//!
//! The lower part of a range is left for those who ask for a certain item: what is given freely
//! comes from it only when the upper part is full.
//!
//! <https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/>

use std::ops::Range;

/// How many items of a range are scanned at most.
const SCAN_MAX: u64 = 1 << 16;

/// The items of a range, by their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    size: u64,
    reserved: u64,
}

// === impl Band ===

impl Band {
    /// Service addresses: a sixteenth of them, 16 to 256, are left for those who ask.
    pub fn of_addresses(size: u64) -> Self {
        Self::new(size, 16, 16..256)
    }

    /// Node ports: a 32nd of them, 16 to 128, are left for those who ask.
    pub fn of_ports(size: u64) -> Self {
        Self::new(size, 32, 16..128)
    }

    fn new(size: u64, part: u64, bounds: Range<u64>) -> Self {
        let reserved = match size < bounds.start {
            true => 0,
            false => (size / part).clamp(bounds.start, bounds.end),
        };
        Self { size, reserved }
    }

    /// An offset above what is reserved, by `random`, which gives a number below its argument. Of
    /// a range that is reserved as a whole, any.
    pub fn random(self, random: impl FnOnce(u64) -> u64) -> u64 {
        match self.size.saturating_sub(self.reserved) {
            0 => random(self.size.max(1)),
            free => self.reserved + random(free),
        }
    }

    /// The offsets above what is reserved, in order, as far as they are scanned.
    pub fn upper(self) -> Range<u64> {
        self.reserved..self.size.min(SCAN_MAX)
    }

    /// Those that are reserved.
    pub fn lower(self) -> Range<u64> {
        0..self.reserved.min(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_part_is_left_for_those_who_ask() {
        for (size, addresses, ports) in [
            (8, 0, 0),
            (16, 16, 16),
            (256, 16, 16),
            (2768, 173, 86),
            (65_536, 256, 128),
        ] {
            assert_eq!(Band::of_addresses(size).lower(), 0..addresses, "{size}");
            assert_eq!(Band::of_ports(size).lower(), 0..ports, "{size}");
            assert_eq!(Band::of_ports(size).upper(), ports..size, "{size}");
        }
        assert_eq!(Band::of_addresses(1 << 63).upper(), 256..SCAN_MAX);
    }

    #[test]
    fn random_ones_are_above_it() {
        let band = Band::of_addresses(256);
        assert_eq!(band.random(|_| 0), 16);
        assert_eq!(band.random(|below| below - 1), 255);
        assert_eq!(Band::of_addresses(16).random(|below| below - 1), 15);
        assert_eq!(Band::of_addresses(0).random(|_| 0), 0);
    }
}
