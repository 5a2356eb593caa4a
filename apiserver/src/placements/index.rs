//! The index: 48 bytes of memory for each placement, which tell where it lies and, but for a
//! small chance, whether it can match what is asked for.
//!
//! Each value that can be asked for sets three of 128 bits; a placement whose bits do not cover
//! those of the question is not read.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::Timestamp;
use peapod_api::net::PlacementSpec;

use super::recorder::Kept;
use super::segment::{Line, Place};

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `metadata.namespace`
    Namespace,
    /// `spec.podName`
    PodName,
    /// `spec.podUid`
    PodUid,
    /// `spec.workload`
    Workload,
    /// `spec.node`
    Node,
    /// `spec.rack`
    Rack,
    /// `spec.ip`: any of the addresses.
    Ip,
    /// `spec.leaf`: any of the leaves.
    Leaf,
}

/// A placement, as far as memory holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    mask: u128,
    /// Its id.
    pub id: u32,
    /// Its newest change.
    pub seq: u32,
    /// Where it lies.
    pub place: Place,
    from: u32,
    /// Seconds; 0 while it has no end.
    to: u32,
}

/// The slots, by id.
#[derive(Debug, Default)]
pub struct Index {
    slots: Vec<Slot>,
}

/// What can match: fields with values, and a span of time in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sieve {
    mask: u128,
    since: u32,
    until: u32,
}

// === impl Field ===

impl Field {
    /// The field of a name in a selector.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("spec.").unwrap_or(name) {
            "metadata.namespace" => Self::Namespace,
            "podName" => Self::PodName,
            "podUid" => Self::PodUid,
            "workload" => Self::Workload,
            "node" => Self::Node,
            "rack" => Self::Rack,
            "ip" => Self::Ip,
            "leaf" => Self::Leaf,
            _ => return None,
        })
    }

    /// The values of a placement.
    pub fn values<'a>(self, namespace: &'a str, spec: &'a PlacementSpec) -> Vec<&'a str> {
        match self {
            Self::Namespace => vec![namespace],
            Self::PodName => vec![&spec.pod_name],
            Self::PodUid => vec![&spec.pod_uid],
            Self::Workload => vec![&spec.workload],
            Self::Node => vec![&spec.node],
            Self::Rack => spec.rack.iter().map(String::as_str).collect(),
            Self::Ip => spec.addresses.iter().map(String::as_str).collect(),
            Self::Leaf => spec.leaves.iter().map(|leaf| leaf.name.as_str()).collect(),
        }
    }

    const ALL: [Self; 8] = [
        Self::Namespace,
        Self::PodName,
        Self::PodUid,
        Self::Workload,
        Self::Node,
        Self::Rack,
        Self::Ip,
        Self::Leaf,
    ];

    fn bits(self, value: &str) -> u128 {
        // Its keys are constant, and nothing of it outlives the process.
        let mut hasher = DefaultHasher::new();
        (self, value).hash(&mut hasher);
        let hash = hasher.finish();
        let bit = |nth: u32| 1u128 << ((hash >> (7 * nth)) & 127);
        bit(0) | bit(1) | bit(2)
    }
}

/// Seconds since 1970; times out of range are its ends.
pub fn seconds(text: &str) -> u32 {
    let time = text.parse::<Timestamp>();
    time.map_or(0, |time| time.as_second().clamp(0, u32::MAX.into()) as u32)
}

// === impl Slot ===

impl Slot {
    /// The slot of a line.
    pub fn of(line: &Line, place: Place) -> Self {
        let Kept {
            id,
            namespace,
            spec,
            ..
        } = &line.kept;
        let values = Field::ALL.iter().flat_map(|field| {
            field
                .values(namespace, spec)
                .into_iter()
                .map(|v| field.bits(v))
        });
        Self {
            mask: values.fold(0, |all, bits| all | bits),
            id: *id,
            seq: line.seq,
            place,
            from: seconds(&spec.from),
            to: spec.to.as_deref().map_or(0, |to| seconds(to).max(1)),
        }
    }

    /// Whether it has an end, and before when.
    pub fn ended_before(&self, second: u32) -> bool {
        self.to != 0 && self.to < second
    }

    /// Whether it has an end.
    pub fn ended(&self) -> bool {
        self.to != 0
    }
}

// === impl Sieve ===

impl Sieve {
    /// Everything within a span; 0 and `u32::MAX` for no bound.
    pub fn new(since: u32, until: u32) -> Self {
        Self {
            mask: 0,
            since,
            until,
        }
    }

    /// Demands a value.
    pub fn demand(&mut self, field: Field, value: &str) {
        self.mask |= field.bits(value);
    }

    /// Whether a placement can match.
    pub fn passes(&self, slot: &Slot) -> bool {
        slot.mask & self.mask == self.mask
            && slot.from <= self.until
            && (slot.to == 0 || slot.to >= self.since)
    }
}

// === impl Index ===

impl Index {
    /// How many placements there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Takes in a slot that is new, or replaces one.
    pub fn put(&mut self, slot: Slot) {
        match self.slots.last() {
            Some(last) if last.id >= slot.id => {
                match self.slots.binary_search_by_key(&slot.id, |one| one.id) {
                    Ok(at) if self.slots[at].seq <= slot.seq => self.slots[at] = slot,
                    Ok(_) => {}
                    Err(at) => self.slots.insert(at, slot),
                }
            }
            _ => self.slots.push(slot),
        }
    }

    /// The placement of an id.
    pub fn find(&self, id: u32) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&id, |one| one.id).ok()?;
        Some(&self.slots[at])
    }

    /// Up to `most` placements after an id that can match, and whether there are more to look at.
    pub fn select(&self, sieve: &Sieve, after: u32, most: usize) -> Vec<Slot> {
        let start = self.slots.partition_point(|one| one.id <= after);
        let candidates = self.slots[start..].iter().filter(|one| sieve.passes(one));
        candidates.take(most).copied().collect()
    }

    /// The placements that changed after `seq`, in the order of their changes.
    pub fn changed(&self, sieve: &Sieve, seq: u32) -> Vec<Slot> {
        let changed = self.slots.iter().filter(|one| one.seq > seq);
        let mut found: Vec<Slot> = changed.filter(|one| sieve.passes(one)).copied().collect();
        found.sort_unstable_by_key(|one| one.seq);
        found
    }

    /// Forgets what ended before a time, and the oldest of what ended beyond a number.
    pub fn retire(&mut self, before: u32, most: usize) {
        self.slots.retain(|one| !one.ended_before(before));
        let mut beyond = self.slots.len().saturating_sub(most);
        self.slots.retain(|one| {
            let goes = beyond > 0 && one.ended();
            beyond -= usize::from(goes);
            !goes
        });
        if self.slots.capacity() > 2 * self.slots.len() + 1024 {
            self.slots.shrink_to(self.slots.len() + 512);
        }
    }

    /// The placements whose newest line lies in a segment.
    pub fn in_segment(&self, segment: u32) -> Vec<Slot> {
        let inside = self.slots.iter().filter(|one| one.place.segment == segment);
        inside.copied().collect()
    }

    /// The placements without an end.
    pub fn open(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|one| !one.ended())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_48_bytes() {
        assert_eq!(size_of::<Slot>(), 48);
    }

    fn slot(id: u32, node: &str, to: Option<&str>) -> Slot {
        let spec = PlacementSpec {
            pod_name: format!("pod-{id}"),
            node: node.into(),
            from: "2026-01-01T00:00:00Z".into(),
            to: to.map(str::to_owned),
            ..Default::default()
        };
        let kept = Kept {
            id,
            namespace: "default".into(),
            boot: String::new(),
            controller: String::new(),
            spec,
        };
        let line = Line {
            seq: id,
            born: id,
            revision: 1,
            kept,
        };
        Slot::of(&line, Place::default())
    }

    #[test]
    fn few_are_read_in_vain() {
        let mut index = Index::default();
        for id in 1..=20_000 {
            index.put(slot(id, &format!("n{}", id % 100), None));
        }
        let mut sieve = Sieve::new(0, u32::MAX);
        sieve.demand(Field::Node, "n7");
        let found = index.select(&sieve, 0, usize::MAX);
        let right = found.iter().filter(|one| one.id % 100 == 7).count();
        assert_eq!(right, 200, "none is missed");
        assert!(
            found.len() < 200 + 400,
            "{} read in vain",
            found.len() - 200
        );
    }

    #[test]
    fn old_ones_retire_and_open_ones_stay() {
        let mut index = Index::default();
        index.put(slot(1, "n", None));
        for id in 2..=10 {
            index.put(slot(
                id,
                "n",
                Some(&format!("2026-01-0{}T00:00:00Z", id.min(9))),
            ));
        }
        index.retire(seconds("2026-01-04T00:00:00Z"), 4);
        let ids: Vec<u32> = index.slots.iter().map(|one| one.id).collect();
        assert_eq!(ids, [1, 8, 9, 10]);
    }

    #[test]
    fn a_span_keeps_what_was_there() {
        let sieve = Sieve::new(
            seconds("2026-01-02T00:00:00Z"),
            seconds("2026-01-03T00:00:00Z"),
        );
        assert!(sieve.passes(&slot(1, "n", None)));
        assert!(!sieve.passes(&slot(1, "n", Some("2026-01-01T12:00:00Z"))));
        assert!(sieve.passes(&slot(1, "n", Some("2026-01-02T12:00:00Z"))));
    }
}
