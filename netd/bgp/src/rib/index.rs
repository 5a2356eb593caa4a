//! Prefixes of one address family, each with a small dense number (its *slot*) for as long as
//! anything is known about it. All other tables are arrays by slot.
//!
//! An IPv4 prefix takes 5 bytes for itself and about 10 in the hash table, an IPv6 one 17 and 10.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::chunked::Chunked;

/// The number of a prefix in its family's tables.
pub type Slot = u32;

/// The prefixes of one family and their slots.
#[derive(Debug)]
pub struct PrefixIndex {
    keys: Keys,
    lengths: Chunked<u8>,
    table: HashTable<Slot>,
    free: Vec<Slot>,
    next: Slot,
    seed: u64,
}

#[derive(Debug)]
enum Keys {
    V4(Chunked<u32>),
    V6(Chunked<u128>),
}

/// A length that no prefix has: the slot is free.
const FREE: u8 = u8::MAX;

// === impl PrefixIndex ===

impl PrefixIndex {
    /// An empty index. `seed` keeps peers from choosing prefixes that collide.
    pub fn new(ipv6: bool, seed: u64) -> Self {
        PrefixIndex {
            keys: if ipv6 {
                Keys::V6(Chunked::new())
            } else {
                Keys::V4(Chunked::new())
            },
            lengths: Chunked::new(),
            table: HashTable::new(),
            free: Vec::new(),
            next: 0,
            seed,
        }
    }

    /// The slot of a prefix that has one.
    pub fn find(&self, prefix: &IpNet) -> Option<Slot> {
        let hash = self.hash(bits(prefix.network()), prefix.prefix_len());
        let same = |slot: &Slot| self.prefix(*slot) == Some(*prefix);
        self.table.find(hash, same).copied()
    }

    /// The slot of a prefix, a new one if it has none. The prefix must be of this family.
    pub fn insert(&mut self, prefix: &IpNet) -> Slot {
        if let Some(slot) = self.find(prefix) {
            return slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        match (&mut self.keys, prefix.network()) {
            (Keys::V4(keys), IpAddr::V4(network)) => *keys.grow(slot) = network.to_bits(),
            (Keys::V6(keys), IpAddr::V6(network)) => *keys.grow(slot) = network.to_bits(),
            _ => debug_assert!(false, "a prefix of the other family"),
        }
        *self.lengths.grow(slot) = prefix.prefix_len();
        let hash = self.hash(bits(prefix.network()), prefix.prefix_len());
        let (keys, lengths, seed) = (&self.keys, &self.lengths, self.seed);
        let rehash = |slot: &Slot| {
            mix(
                seed,
                keys.bits(*slot),
                lengths.get(*slot).copied().unwrap_or(FREE),
            )
        };
        self.table.insert_unique(hash, slot, rehash);
        slot
    }

    /// Forgets a slot; its number may be given to another prefix.
    pub fn remove(&mut self, slot: Slot) {
        let Some(prefix) = self.prefix(slot) else {
            return;
        };
        let hash = self.hash(bits(prefix.network()), prefix.prefix_len());
        if let Ok(entry) = self.table.find_entry(hash, |have| *have == slot) {
            entry.remove();
        }
        *self.lengths.grow(slot) = FREE;
        self.free.push(slot);
        if self.table.is_empty() {
            *self = PrefixIndex::new(matches!(self.keys, Keys::V6(_)), self.seed);
        }
    }

    /// The prefix of a slot.
    pub fn prefix(&self, slot: Slot) -> Option<IpNet> {
        let length = *self.lengths.get(slot)?;
        if length == FREE || slot >= self.next {
            return None;
        }
        let bits = self.keys.bits(slot);
        match &self.keys {
            Keys::V4(_) => {
                let address = Ipv4Addr::from_bits(bits as u32);
                Ipv4Net::new(address, length).ok().map(IpNet::V4)
            }
            Keys::V6(_) => {
                let address = Ipv6Addr::from_bits(bits);
                Ipv6Net::new(address, length).ok().map(IpNet::V6)
            }
        }
    }

    /// All slots in use.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.next).filter(|slot| {
            self.lengths
                .get(*slot)
                .is_some_and(|length| *length != FREE)
        })
    }

    /// One more than the highest slot ever given.
    pub fn bound(&self) -> Slot {
        self.next
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    fn hash(&self, bits: u128, length: u8) -> u64 {
        mix(self.seed, bits, length)
    }
}

// === impl Keys ===

impl Keys {
    fn bits(&self, slot: Slot) -> u128 {
        match self {
            Keys::V4(keys) => keys.get(slot).copied().unwrap_or_default().into(),
            Keys::V6(keys) => keys.get(slot).copied().unwrap_or_default(),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Two rounds of multiply-and-fold, keyed.
fn mix(seed: u64, bits: u128, length: u8) -> u64 {
    let low = fold(
        bits as u64 ^ seed,
        0x9e37_79b9_7f4a_7c15 ^ u64::from(length),
    );
    fold(low ^ (bits >> 64) as u64, seed | 1)
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_dense_and_used_again() {
        let mut index = PrefixIndex::new(false, 42);
        let prefixes: Vec<IpNet> = (0..10_000u32)
            .map(|n| IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(n << 8), 24).unwrap()))
            .collect();
        for (n, prefix) in prefixes.iter().enumerate() {
            assert_eq!(index.insert(prefix), n as u32);
        }
        assert_eq!(index.insert(&prefixes[17]), 17);
        assert_eq!(index.len(), 10_000);
        index.remove(17);
        assert_eq!(index.find(&prefixes[17]), None);
        assert_eq!(index.prefix(17), None);
        assert_eq!(index.slots().count(), 9_999);
        assert_eq!(index.insert(&"10.0.0.0/8".parse().unwrap()), 17);
        assert_eq!(index.prefix(17), Some("10.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn a_prefix_and_its_longer_neighbour_are_two() {
        let mut index = PrefixIndex::new(true, 1);
        let short = index.insert(&"fd00::/48".parse().unwrap());
        let long = index.insert(&"fd00::/64".parse().unwrap());
        assert_ne!(short, long);
        assert_eq!(index.prefix(long), Some("fd00::/64".parse().unwrap()));
    }
}
