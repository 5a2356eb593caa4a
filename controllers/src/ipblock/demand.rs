//! How many blocks of a family a node needs. Pure.
//!
//! A node has room when its blocks have an address for each of its pods and for an eighth of a
//! block's more, one at least: so the next pod's address is there before the pod is. Pods are
//! counted when they are bound, before they have an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Blocks of one family that a node may hold: each is a route in the fabric's tables.
pub const BLOCKS_MAX: usize = 64;

/// A block that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The block.
    pub cidr: IpNet,
    /// Whether it came after the first: it may be given back.
    pub further: bool,
}

/// Addresses of a block that pods can have: all but the network's own and, in IPv4, the broadcast
/// address; of a block of two, both.
pub fn usable(cidr: IpNet) -> u64 {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let size = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    match (cidr.addr().is_ipv4(), size) {
        (_, 0..=2) => size,
        (true, _) => size - 2,
        (false, _) => size - 1,
    }
}

/// Whether the node needs a further block.
pub fn is_short(own: &[Own], pods: u64) -> bool {
    let largest = own.iter().map(|own| usable(own.cidr)).max();
    let Some(largest) = largest else { return true };
    let reserve = (largest / 8).max(1);
    capacity(own) < pods.saturating_add(reserve)
}

/// The block that the node can do without, if there is one: no pod has an address of it, and the
/// node has room without it.
pub fn spare(own: &[Own], pods: u64, in_use: &[IpAddr]) -> Option<IpNet> {
    let empty = |own: &&Own| own.further && !in_use.iter().any(|ip| own.cidr.contains(ip));
    let last = own.iter().rfind(empty)?;
    let others: Vec<Own> = own.iter().filter(|one| *one != last).cloned().collect();
    (!is_short(&others, pods)).then_some(last.cidr)
}

fn capacity(own: &[Own]) -> u64 {
    let usable = own.iter().map(|own| usable(own.cidr));
    usable.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(blocks: &[&str]) -> Vec<Own> {
        let own = |(n, block): (usize, &&str)| Own {
            cidr: block.parse().unwrap(),
            further: n > 0,
        };
        blocks.iter().enumerate().map(own).collect()
    }

    #[test]
    fn a_spare_address_is_always_there() {
        let tiny = own(&["10.0.0.0/30"]);
        assert_eq!(
            [0, 1, 2, 3].map(|pods| is_short(&tiny, pods)),
            [false, false, true, true]
        );
        let two = own(&["10.0.0.0/30", "10.0.0.4/30"]);
        assert_eq!([3, 4].map(|pods| is_short(&two, pods)), [false, true]);
        let usual = own(&["10.0.0.0/24"]);
        assert_eq!([223, 224].map(|pods| is_short(&usual, pods)), [false, true]);
        assert!(!is_short(&own(&["fd00::/64"]), 100_000));
        assert!(is_short(&[], 0));
    }

    #[test]
    fn only_a_further_empty_block_is_spare() {
        let two = own(&["10.0.0.0/30", "10.0.0.4/30"]);
        let spare = |pods, in_use: &[&str]| {
            let in_use: Vec<IpAddr> = in_use.iter().map(|ip| ip.parse().unwrap()).collect();
            spare(&two, pods, &in_use).map(|cidr| cidr.to_string())
        };
        assert_eq!(spare(1, &["10.0.0.1"]).as_deref(), Some("10.0.0.4/30"));
        assert_eq!(spare(1, &["10.0.0.5"]), None, "a pod is in it");
        assert_eq!(spare(2, &["10.0.0.1"]), None, "it is needed soon");
        assert_eq!(
            super::spare(&own(&["10.0.0.0/30"]), 0, &[]),
            None,
            "the first stays"
        );
    }

    #[test]
    fn sizes() {
        let size = |cidr: &str| usable(cidr.parse().unwrap());
        assert_eq!(
            ["10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/30", "10.0.0.0/24"].map(size),
            [1, 2, 2, 254]
        );
        assert_eq!(size("fd00::/127"), 2);
        assert_eq!(size("::/0"), u64::MAX - 1);
    }

    proptest! {
        /// What is given back is not asked for at once: no block goes to and fro.
        #[test]
        fn nothing_goes_to_and_fro(count in 1_usize..9, prefix in 24_u8..=32, pods in 0_u64..600) {
            let block = |n: usize| Own {
                cidr: format!("10.0.{n}.0/{prefix}").parse().unwrap(),
                further: n > 0,
            };
            let mut own: Vec<Own> = (0..count).map(block).collect();
            while let Some(cidr) = spare(&own, pods, &[]) {
                own.retain(|one| one.cidr != cidr);
                prop_assert!(!is_short(&own, pods));
            }
            prop_assert!(!own.is_empty());
        }
    }
}
