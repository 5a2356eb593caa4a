//! Which block a node gets. Pure.
//!
//! A range is cut into blocks of one size, numbered from 0. The nodes of a rack get blocks from
//! one contiguous run, so that the rack's leaf can announce one summary: a rack takes whole
//! *shelves*, aligned runs of blocks, and fills one before it takes the next. Nodes without a
//! rack share shelves of their own.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::BlockRange;

/// Blocks of a shelf, at most: 16 racks' worth in a /16 of /24s.
const SHELF_MAX: u128 = 16;

/// A block that a node holds already.
#[derive(Clone, Debug)]
pub struct Held {
    /// The block.
    pub cidr: IpNet,
    /// The rack of its node, empty for none.
    pub rack: String,
}

/// The next block of a range for a node of `rack`; `None` when the range is full.
///
/// First the free blocks of the rack's own shelves, then the first empty shelf, and when there
/// is none left any free block: an address in the wrong place is better than none.
pub fn next_block(range: &BlockRange, held: &[Held], rack: &str) -> Option<IpNet> {
    let count = block_count(range);
    let shelf = shelf_size(count);
    let taken: BTreeSet<u128> = held
        .iter()
        .flat_map(|held| covered(range, held.cidr))
        .collect();
    let mut shelves: BTreeMap<u128, BTreeSet<&str>> = BTreeMap::new();
    for held in held {
        for index in covered(range, held.cidr) {
            shelves.entry(index / shelf).or_default().insert(&held.rack);
        }
    }
    let free_in = |shelf_number: u128| {
        let first = shelf_number * shelf;
        (first..(first + shelf).min(count)).find(|index| !taken.contains(index))
    };
    let own = shelves
        .iter()
        .filter(|(_, racks)| racks.contains(rack))
        .find_map(|(&number, _)| free_in(number));
    let empty = || {
        let number = (0..count.div_ceil(shelf)).find(|number| !shelves.contains_key(number))?;
        free_in(number)
    };
    // At most one more than is taken needs to be looked at.
    let any = || (0..count).find(|index| !taken.contains(index));
    let index = own.or_else(empty).or_else(any)?;
    block(range, index)
}

/// The number of blocks in a range.
fn block_count(range: &BlockRange) -> u128 {
    let bits = range.block_prefix.saturating_sub(range.cidr.prefix_len());
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
}

/// A sixteenth of the range, so that there is room for racks in small ranges too.
fn shelf_size(count: u128) -> u128 {
    (count / 16).clamp(1, SHELF_MAX)
}

/// The numbers of the blocks of a range that a held block covers.
fn covered(range: &BlockRange, cidr: IpNet) -> std::ops::Range<u128> {
    let same_family = range.cidr.addr().is_ipv4() == cidr.addr().is_ipv4();
    if !same_family || !(range.cidr.contains(&cidr) || cidr.contains(&range.cidr)) {
        return 0..0;
    }
    let host_bits = u32::from(range.cidr.max_prefix_len() - range.block_prefix);
    let (base, first) = (number(range.cidr.network()), number(cidr.network()));
    let (end, last) = (number(range.cidr.broadcast()), number(cidr.broadcast()));
    let from = (first.max(base) - base).checked_shr(host_bits).unwrap_or(0);
    let to = (last.min(end) - base).checked_shr(host_bits).unwrap_or(0);
    from..to + 1
}

fn number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        std::net::IpAddr::V6(address) => address.to_bits(),
    }
}

fn block(range: &BlockRange, index: u128) -> Option<IpNet> {
    let host_bits = u32::from(range.cidr.max_prefix_len() - range.block_prefix);
    let offset = index.checked_shl(host_bits)?;
    let address = number(range.cidr.network()).checked_add(offset)?;
    let prefix = range.block_prefix;
    match range.cidr {
        IpNet::V4(_) => {
            let address = u32::try_from(address).ok()?;
            Ipv4Net::new(address.into(), prefix).ok().map(IpNet::V4)
        }
        IpNet::V6(_) => Ipv6Net::new(address.into(), prefix).ok().map(IpNet::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(cidr: &str, block_prefix: u8) -> BlockRange {
        BlockRange {
            cidr: cidr.parse().unwrap(),
            block_prefix,
        }
    }

    /// Gives a block to a node of each rack in turn, and says which.
    fn deal(range: &BlockRange, racks: &[&str]) -> Vec<String> {
        let mut held = Vec::new();
        racks
            .iter()
            .map(|rack| match next_block(range, &held, rack) {
                Some(cidr) => {
                    let rack = (*rack).to_owned();
                    held.push(Held { cidr, rack });
                    cidr.to_string()
                }
                None => "none".to_owned(),
            })
            .collect()
    }

    #[test]
    fn one_after_the_other() {
        let v4 = deal(&range("10.244.0.0/16", 24), &["", "", ""]);
        assert_eq!(v4, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"]);
        let v6 = deal(&range("fd00:10:244::/56", 64), &["", ""]);
        assert_eq!(v6, ["fd00:10:244::/64", "fd00:10:244:1::/64"]);
    }

    #[test]
    fn a_rack_is_contiguous() {
        let dealt = deal(&range("10.244.0.0/16", 24), &["a", "b", "a", "b", "", "a"]);
        let expected = ["0", "16", "1", "17", "32", "2"].map(|n| format!("10.244.{n}.0/24"));
        assert_eq!(dealt, expected);
    }

    #[test]
    fn a_full_range_gives_nothing_and_racks_share_before_that() {
        let dealt = deal(&range("10.0.0.0/30", 32), &["a", "b", "c", "a", "a"]);
        let expected = [
            "10.0.0.0/32",
            "10.0.0.1/32",
            "10.0.0.2/32",
            "10.0.0.3/32",
            "none",
        ];
        assert_eq!(dealt, expected);
        assert_eq!(
            deal(&range("10.0.0.0/24", 24), &["", ""]),
            ["10.0.0.0/24", "none"]
        );
    }

    #[test]
    fn blocks_of_another_size_or_range_are_stepped_around() {
        let held = |cidr: &str| Held {
            cidr: cidr.parse().unwrap(),
            rack: String::new(),
        };
        let held = [
            held("10.244.0.0/23"),
            held("10.244.2.128/26"),
            held("10.9.0.0/24"),
        ];
        let next = next_block(&range("10.244.0.0/16", 24), &held, "").unwrap();
        assert_eq!(next.to_string(), "10.244.3.0/24");
    }

    proptest! {
        #[test]
        fn never_overlapping_never_outside(racks in prop::collection::vec("[abc]?", 0..70)) {
            let range = range("10.1.0.0/20", 26);
            let racks: Vec<&str> = racks.iter().map(String::as_str).collect();
            let dealt = deal(&range, &racks);
            let blocks: Vec<IpNet> = dealt.iter().filter_map(|text| text.parse().ok()).collect();
            prop_assert_eq!(blocks.len(), racks.len().min(64));
            let distinct: BTreeSet<_> = blocks.iter().collect();
            prop_assert_eq!(distinct.len(), blocks.len());
            prop_assert!(blocks.iter().all(|block| range.cidr.contains(block)));
        }
    }
}
