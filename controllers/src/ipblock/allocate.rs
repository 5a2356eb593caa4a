//! Which block a node gets. Pure.
//!
//! A range is cut into blocks of one size, numbered from 0. The nodes of a rack get blocks from
//! one contiguous run, so that the rack's leaf can announce one summary: a rack takes whole
//! *shelves*, aligned runs of blocks, and fills one before it takes the next. Nodes without a
//! rack share shelves of their own.

use std::collections::BTreeSet;

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
    let taken = Taken::of(range, held);
    let free_in = |number: u128| {
        let first = number.checked_mul(shelf)?;
        taken.first_free(first..first.saturating_add(shelf).min(count))
    };
    let own = || {
        let own = taken.runs.iter().filter(|run| run.rack == rack);
        // What covers several shelves leaves room in the outermost ones at most.
        let shelves = own.flat_map(|run| [run.first / shelf, run.last / shelf]);
        shelves
            .collect::<BTreeSet<_>>()
            .into_iter()
            .find_map(free_in)
    };
    let empty = || free_in(taken.first_empty_shelf(shelf));
    let index = own()
        .or_else(empty)
        .or_else(|| taken.first_free(0..count))?;
    block(range, index)
}

/// The blocks of a range that are held, whole or in part.
struct Taken<'a> {
    /// In their order.
    runs: Vec<Run<'a>>,
}

/// Blocks, by number, that one held block covers.
struct Run<'a> {
    first: u128,
    last: u128,
    rack: &'a str,
}

impl<'a> Taken<'a> {
    fn of(range: &BlockRange, held: &'a [Held]) -> Self {
        let mut runs: Vec<Run<'a>> = held.iter().filter_map(|one| covered(range, one)).collect();
        runs.sort_by_key(|run| (run.first, run.last));
        Self { runs }
    }

    fn first_free(&self, among: std::ops::Range<u128>) -> Option<u128> {
        let mut index = among.start;
        for run in &self.runs {
            if run.first > index {
                break;
            }
            index = index.max(run.last.saturating_add(1));
        }
        (index < among.end).then_some(index)
    }

    /// The number of the first shelf of which nothing is held; it may lie behind the range.
    fn first_empty_shelf(&self, shelf: u128) -> u128 {
        let mut number = 0;
        for run in &self.runs {
            if run.first / shelf > number {
                break;
            }
            number = number.max((run.last / shelf).saturating_add(1));
        }
        number
    }
}

/// The number of blocks in a range.
pub fn block_count(range: &BlockRange) -> u128 {
    let bits = range.block_prefix.saturating_sub(range.cidr.prefix_len());
    1u128.checked_shl(u32::from(bits)).unwrap_or(u128::MAX)
}

/// A sixteenth of the range, so that there is room for racks in small ranges too.
fn shelf_size(count: u128) -> u128 {
    (count / 16).clamp(1, SHELF_MAX)
}

/// The numbers of the blocks of a range that a held block covers.
fn covered<'a>(range: &BlockRange, held: &'a Held) -> Option<Run<'a>> {
    let cidr = held.cidr;
    let same_family = range.cidr.addr().is_ipv4() == cidr.addr().is_ipv4();
    if !same_family || !(range.cidr.contains(&cidr) || cidr.contains(&range.cidr)) {
        return None;
    }
    let host_bits = u32::from(range.cidr.max_prefix_len() - range.block_prefix);
    let (base, first) = (number(range.cidr.network()), number(cidr.network()));
    let (end, last) = (number(range.cidr.broadcast()), number(cidr.broadcast()));
    Some(Run {
        first: (first.max(base) - base).checked_shr(host_bits).unwrap_or(0),
        last: (last.min(end) - base).checked_shr(host_bits).unwrap_or(0),
        rack: &held.rack,
    })
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

    #[test]
    fn what_covers_many_blocks_costs_nothing() {
        let held = |cidr: &str| Held {
            cidr: cidr.parse().unwrap(),
            rack: String::new(),
        };
        let range = range("fd00::/32", 64);
        let next = |held: &[Held]| next_block(&range, held, "").map(|cidr| cidr.to_string());
        assert_eq!(
            next(&[held("fd00::/33")]).as_deref(),
            Some("fd00:0:8000::/64")
        );
        assert_eq!(next(&[held("fd00::/16")]), None);
    }

    proptest! {
        /// Blocks come and go, of several sizes: what is held never overlaps, and a range is full
        /// only when it is.
        #[test]
        fn never_the_same_twice(steps in prop::collection::vec((0_u8..4, 0_usize..3, any::<prop::sample::Index>()), 0..120)) {
            let sizes = [range("10.1.0.0/22", 26), range("10.1.0.0/22", 27), range("10.1.2.0/24", 28)];
            let mut held: Vec<Held> = Vec::new();
            for (what, size, which) in steps {
                if what == 0 && !held.is_empty() {
                    held.swap_remove(which.index(held.len()));
                    continue;
                }
                let range = &sizes[size];
                let rack = ["", "a", "b"][usize::from(what) % 3];
                let overlaps = |cidr: &IpNet| {
                    held.iter().any(|held| held.cidr.contains(cidr) || cidr.contains(&held.cidr))
                };
                match next_block(range, &held, rack) {
                    Some(cidr) => {
                        prop_assert!(!overlaps(&cidr) && range.cidr.contains(&cidr));
                        prop_assert_eq!(cidr.prefix_len(), range.block_prefix);
                        held.push(Held { cidr, rack: rack.to_owned() });
                    }
                    None => {
                        let all = (0..block_count(range)).filter_map(|n| block(range, n));
                        prop_assert!(all.into_iter().all(|cidr| overlaps(&cidr)));
                    }
                }
            }
        }

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
