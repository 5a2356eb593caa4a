//! Which pod gets which address, from the blocks that this node holds.
//!
//! Addresses are handed out in rising order and round again, and a released one rests for a
//! while, so that a packet or a cached answer meant for a pod that is gone does not reach its
//! successor. Nothing is stored: after a restart the addresses in use are read from the links.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;

/// How long a released address rests, unless no other is left.
pub const REST: Duration = Duration::from_secs(60);

/// No address to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node holds no block at all.
    #[error(
        "this node holds no address block yet; the controllers give it one (is it registered?)"
    )]
    NoBlock,
    /// Every address of a family is in use.
    #[error(
        "all {in_use} addresses of {blocks} are in use; delete pods, or give this node a further block"
    )]
    Exhausted {
        /// How many.
        in_use: usize,
        /// The blocks.
        blocks: String,
    },
}

/// Whether a block can be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A pod has an address of it.
    InUse,
    /// An address of it rests until then.
    Until(Duration),
    /// Nothing.
    Free,
}

/// Addresses of one node. Times are counted from any fixed moment.
#[derive(Debug, Default)]
pub struct Ipam {
    /// In the order of the families that pods prefer.
    blocks: Vec<IpNet>,
    /// Blocks of which nothing more is handed out; one stays here until it is gone from `blocks`.
    leaving: BTreeSet<IpNet>,
    used: BTreeSet<IpAddr>,
    /// Released, oldest first, with when they may be used again.
    resting: VecDeque<(IpAddr, Duration)>,
    /// Where the search in a block goes on.
    next: BTreeMap<IpNet, u128>,
}

impl Ipam {
    /// The blocks to allocate from, now. Addresses in use outside of them stay in use.
    pub fn set_blocks(&mut self, mut blocks: Vec<IpNet>) {
        blocks.iter_mut().for_each(|block| *block = block.trunc());
        self.next.retain(|block, _| blocks.contains(block));
        let before = &self.blocks;
        self.leaving
            .retain(|block| blocks.contains(block) || !before.contains(block));
        self.blocks = blocks;
    }

    /// The blocks to allocate from.
    pub fn blocks(&self) -> &[IpNet] {
        &self.blocks
    }

    /// From now on nothing more of a block is handed out, though it is one of [`Self::blocks`]; until
    /// it has gone from there and come again, or [`Self::stay`] says so.
    pub fn leave(&mut self, block: IpNet) {
        self.leaving.insert(block);
    }

    /// A block is not to be given back.
    pub fn stay(&mut self, block: &IpNet) {
        self.leaving.remove(block);
    }

    /// What keeps a block of which nothing more is handed out. In the time of a rest after the start
    /// something always does: which addresses rested before that is not known.
    pub fn hold(&self, block: &IpNet, now: Duration) -> Hold {
        if self.used.iter().any(|ip| block.contains(ip)) {
            return Hold::InUse;
        }
        let resting = self.resting.iter().filter(|(ip, _)| block.contains(ip));
        let until = resting.map(|(_, until)| *until).chain([REST]).max();
        match until.filter(|until| *until > now) {
            Some(until) => Hold::Until(until),
            None => Hold::Free,
        }
    }

    /// Marks an address as in use: found on a link after a restart.
    pub fn claim(&mut self, ip: IpAddr) {
        self.used.insert(ip);
        let block = self.blocks.iter().find(|block| block.contains(&ip));
        if let Some(block) = block {
            let behind = offset(block, ip) + 1;
            let next = self.next.entry(*block).or_default();
            *next = behind.max(*next);
        }
    }

    /// One address of each family that the node holds blocks of, or none at all.
    pub fn allocate(&mut self, now: Duration) -> Result<Vec<IpAddr>, Error> {
        let mut families: Vec<bool> = Vec::new();
        for block in &self.blocks {
            if !families.contains(&block.addr().is_ipv4()) {
                families.push(block.addr().is_ipv4());
            }
        }
        if families.is_empty() {
            return Err(Error::NoBlock);
        }
        let mut ips = Vec::with_capacity(families.len());
        for v4 in families {
            match self.allocate_one(v4, now) {
                Ok(ip) => ips.push(ip),
                Err(error) => {
                    ips.iter().for_each(|ip| {
                        self.used.remove(ip);
                    });
                    return Err(error);
                }
            }
        }
        Ok(ips)
    }

    fn allocate_one(&mut self, v4: bool, now: Duration) -> Result<IpAddr, Error> {
        while self.resting.front().is_some_and(|(_, until)| *until <= now) {
            self.resting.pop_front();
        }
        let of_family =
            |block: &&IpNet| block.addr().is_ipv4() == v4 && !self.leaving.contains(block);
        let blocks: Vec<IpNet> = self.blocks.iter().filter(of_family).copied().collect();
        let fresh = blocks.iter().find_map(|block| self.search(block));
        let ip = match fresh {
            Some(ip) => ip,
            None => self
                .longest_rested(&blocks)
                .ok_or_else(|| Error::Exhausted {
                    in_use: self.used.iter().filter(|ip| ip.is_ipv4() == v4).count(),
                    blocks: join(&blocks),
                })?,
        };
        self.used.insert(ip);
        Ok(ip)
    }

    /// The next address that is neither in use nor resting.
    fn search(&mut self, block: &IpNet) -> Option<IpAddr> {
        let (first, last) = usable(block)?;
        let start = self.next.get(block).copied().unwrap_or(first);
        let mut at = start.clamp(first, last);
        // Among one more addresses than are taken, one is free.
        let tries = (self.used.len() + self.resting.len() + 1) as u128;
        for _ in 0..tries.min(last - first + 1) {
            let ip = address(block, at);
            let following = if at == last { first } else { at + 1 };
            if !self.used.contains(&ip) && !self.resting.iter().any(|(resting, _)| *resting == ip) {
                self.next.insert(*block, following);
                return Some(ip);
            }
            at = following;
        }
        None
    }

    fn longest_rested(&mut self, blocks: &[IpNet]) -> Option<IpAddr> {
        let fits = |(ip, _): &(IpAddr, Duration)| blocks.iter().any(|block| block.contains(ip));
        let at = self.resting.iter().position(fits)?;
        self.resting.remove(at).map(|(ip, _)| ip)
    }

    /// Gives an address back.
    pub fn release(&mut self, ip: IpAddr, now: Duration) {
        if self.used.remove(&ip) {
            self.resting.push_back((ip, now + REST));
        }
    }
}

fn join(blocks: &[IpNet]) -> String {
    let blocks: Vec<String> = blocks.iter().map(IpNet::to_string).collect();
    blocks.join(", ")
}

/// The first and last usable offsets: without the network's own address and, in IPv4, the
/// broadcast address.
fn usable(block: &IpNet) -> Option<(u128, u128)> {
    let bits = u32::from(block.max_prefix_len() - block.prefix_len());
    let size = 1u128.checked_shl(bits)?;
    match (block.addr().is_ipv4(), size) {
        (_, 0..=2) => Some((0, size.checked_sub(1)?)),
        (true, _) => Some((1, size - 2)),
        (false, _) => Some((1, size - 1)),
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn offset(block: &IpNet, ip: IpAddr) -> u128 {
    number(ip) - number(block.network())
}

fn address(block: &IpNet, offset: u128) -> IpAddr {
    match block.network() {
        // An offset lies within its block, so that neither the sum nor the cast can overflow.
        IpAddr::V4(network) => Ipv4Addr::from(u32::from(network) + offset as u32).into(),
        IpAddr::V6(network) => Ipv6Addr::from(u128::from(network) + offset).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipam(blocks: &[&str]) -> Ipam {
        let mut ipam = Ipam::default();
        ipam.set_blocks(blocks.iter().map(|block| block.parse().unwrap()).collect());
        ipam
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const START: Duration = Duration::ZERO;

    #[test]
    fn one_of_each_family_in_rising_order() {
        let mut ipam = ipam(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        let first = ipam.allocate(START).unwrap();
        assert_eq!(first, [ip("10.244.1.1"), ip("fd00:10:244:1::1")]);
        let second = ipam.allocate(START).unwrap();
        assert_eq!(second, [ip("10.244.1.2"), ip("fd00:10:244:1::2")]);
    }

    #[test]
    fn a_released_address_rests_and_comes_round() {
        let mut ipam = ipam(&["10.0.0.0/29"]);
        let first = ipam.allocate(START).unwrap()[0];
        ipam.release(first, START);
        let others: Vec<IpAddr> = (0..5).map(|_| ipam.allocate(START).unwrap()[0]).collect();
        assert!(!others.contains(&first));
        assert_eq!(ipam.allocate(REST).unwrap(), [first]);
    }

    #[test]
    fn a_resting_address_is_better_than_none() {
        let mut ipam = ipam(&["10.0.0.0/30"]);
        ipam.allocate(START).unwrap();
        ipam.allocate(START).unwrap();
        assert!(matches!(
            ipam.allocate(START),
            Err(Error::Exhausted { in_use: 2, .. })
        ));
        ipam.release(ip("10.0.0.2"), START);
        assert_eq!(ipam.allocate(START).unwrap(), [ip("10.0.0.2")]);
    }

    #[test]
    fn nothing_is_taken_when_one_family_is_out() {
        let mut ipam = ipam(&["10.0.0.0/24", "fd00::/127"]);
        ipam.allocate(START).unwrap();
        ipam.allocate(START).unwrap();
        assert!(ipam.allocate(START).is_err());
        ipam.release(ip("fd00::"), START);
        assert_eq!(ipam.allocate(START).unwrap()[1], ip("fd00::"));
    }

    #[test]
    fn a_claimed_address_is_not_given_again() {
        let mut ipam = ipam(&["10.0.0.0/24"]);
        ipam.claim(ip("10.0.0.7"));
        assert_eq!(ipam.allocate(START).unwrap(), [ip("10.0.0.8")]);
        for _ in 0..252 {
            assert_ne!(ipam.allocate(START).unwrap(), [ip("10.0.0.7")]);
        }
        assert!(ipam.allocate(START).is_err());
    }

    #[test]
    fn no_block_no_address() {
        assert_eq!(Ipam::default().allocate(START), Err(Error::NoBlock));
        // A block as wide as an address family cannot be counted, and is no block.
        assert!(ipam(&["::/0"]).allocate(START).is_err());
    }

    #[test]
    fn a_leaving_block_gives_nothing_and_is_held_while_it_is_used_or_rests() {
        let mut ipam = ipam(&["10.0.0.0/24", "10.0.9.0/30"]);
        let leaving: IpNet = "10.0.9.0/30".parse().unwrap();
        ipam.claim(ip("10.0.9.1"));
        ipam.leave(leaving);
        for _ in 0..254 {
            assert!(!leaving.contains(&ipam.allocate(START).unwrap()[0]));
        }
        assert!(ipam.allocate(START).is_err());
        assert_eq!(ipam.hold(&leaving, REST), Hold::InUse);
        ipam.release(ip("10.0.9.1"), REST);
        assert_eq!(ipam.hold(&leaving, REST), Hold::Until(2 * REST));
        assert!(ipam.allocate(REST).is_err(), "not even a resting one");
        assert_eq!(ipam.hold(&leaving, 2 * REST), Hold::Free);
        // It is handed out neither before its end is known, nor after; but when it comes again.
        let first: IpNet = "10.0.0.0/24".parse().unwrap();
        ipam.set_blocks(vec![first, leaving]);
        assert!(ipam.allocate(2 * REST).is_err());
        ipam.set_blocks(vec![first]);
        ipam.set_blocks(vec![first, leaving]);
        assert_eq!(ipam.allocate(2 * REST).unwrap(), [ip("10.0.9.1")]);
        let other: IpNet = "10.0.7.0/30".parse().unwrap();
        assert_eq!(ipam.hold(&other, START), Hold::Until(REST), "just started");
    }

    #[test]
    fn a_further_block_is_used_when_the_first_is_full() {
        let mut ipam = ipam(&["10.0.0.0/30", "10.0.9.0/30"]);
        let ips: Vec<IpAddr> = (0..4).map(|_| ipam.allocate(START).unwrap()[0]).collect();
        assert_eq!(ips[2..], [ip("10.0.9.1"), ip("10.0.9.2")]);
    }
}
