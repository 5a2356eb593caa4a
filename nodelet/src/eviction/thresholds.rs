//! How much of the node must be left, by upstream's names (`evictionHard`, `evictionSoft` ...), and how
//! it stands with that over time. Pure.
//!
//! Without configuration these are upstream's defaults, but for disks: a tenth of a developer's large disk
//! is room enough, so never more than [`DISK_LOW_BYTES`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use peapod_api::quantity::Quantity;

use super::pressure::Shortage;
use crate::kubelet_config::{KubeletConfiguration, PRESSURE_TRANSITION};
use crate::node::facts::{Left, Room};

const DISK_LOW_BYTES: u64 = 1 << 30;
/// Where nothing is configured.
const DEFAULTS: [(&str, &str); 6] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
    ("pid.available", "500"),
];

/// What is looked at, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`: the disk of the data directory.
    NodeDisk,
    /// `imagefs.available`: the disk of images and containers' own layers.
    ImageDisk,
    /// `nodefs.inodesFree`
    NodeInodes,
    /// `imagefs.inodesFree`
    ImageInodes,
    /// `pid.available`
    Pids,
}

/// What the node's conditions say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// `MemoryPressure`
    pub memory: bool,
    /// `DiskPressure`
    pub disk: bool,
    /// `PIDPressure`
    pub pids: bool,
}

/// How the node stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What the conditions say.
    pub pressure: Pressure,
    /// What pods must go for, and whether they may take their time.
    pub short: Option<(Shortage, Pace)>,
}

/// How fast a pod must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A hard threshold.
    AtOnce,
    /// A soft one: the longest time that its processes have to end, seconds.
    Within(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Amount {
    Absolute(u64),
    Percent(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Threshold {
    signal: Signal,
    least: Amount,
    /// Never more than this.
    most: u64,
    /// Of a soft one: how long it may be so.
    grace: Option<Duration>,
    /// What must be left beyond it before it counts as over.
    reclaim: Amount,
}

/// What must be left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    all: Vec<Threshold>,
    hold: Duration,
    soft_grace_s: i64,
}

/// Follows how it stands.
#[derive(Debug)]
pub struct Watch {
    thresholds: Thresholds,
    /// Of each threshold, since when there is less.
    since: Vec<Option<Timestamp>>,
    /// Of those that counted at the last look.
    counted: Vec<bool>,
    last: BTreeMap<Signal, Timestamp>,
}

// === impl Signal ===

impl Signal {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Memory, "memory.available"),
        (Self::NodeDisk, "nodefs.available"),
        (Self::ImageDisk, "imagefs.available"),
        (Self::NodeInodes, "nodefs.inodesFree"),
        (Self::ImageInodes, "imagefs.inodesFree"),
        (Self::Pids, "pid.available"),
    ];

    fn named(name: &str) -> Result<Self, String> {
        let mut all = Self::ALL.iter();
        let found = all.find(|(_, own)| *own == name).map(|(signal, _)| *signal);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("{name:?} is no eviction signal of this node; it has {names}")
        })
    }

    fn room(self, left: &Left) -> Room {
        match self {
            Self::Memory => left.memory,
            Self::NodeDisk => left.disk,
            Self::ImageDisk => left.image_disk,
            Self::NodeInodes => left.inodes,
            Self::ImageInodes => left.image_inodes,
            Self::Pids => left.pids,
        }
    }

    fn shortage(self, least: u64, left: u64) -> Shortage {
        match self {
            Self::Memory => Shortage::Memory { least, left },
            Self::NodeDisk | Self::ImageDisk => Shortage::Disk { least, left },
            Self::NodeInodes | Self::ImageInodes => Shortage::Inodes { least, left },
            Self::Pids => Shortage::Pids { least, left },
        }
    }
}

// === impl Amount ===

impl Amount {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is neither an amount such as 100Mi nor a percentage such as 10%");
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.parse().map_err(|_| wrong())?;
            return match (0.0..=100.0).contains(&percent) {
                true => Ok(Self::Percent(percent)),
                false => Err(wrong()),
            };
        }
        let quantity: Quantity = text.parse().map_err(|_| wrong())?;
        u64::try_from(quantity.units())
            .map(Self::Absolute)
            .map_err(|_| wrong())
    }

    /// Nothing or all: upstream's way to say that there is no threshold.
    fn is_off(self) -> bool {
        self == Self::Percent(0.0) || self == Self::Percent(100.0)
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    fn of(self, whole: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

// === impl Thresholds ===

impl Thresholds {
    /// Those of a configuration.
    pub fn of(config: &KubeletConfiguration) -> Result<Self, String> {
        let reclaim = amounts("evictionMinimumReclaim", &config.eviction_minimum_reclaim)?;
        let reclaim = |signal| {
            let found = reclaim.iter().find(|(own, _)| *own == signal);
            found.map_or(Amount::Absolute(0), |(_, amount)| *amount)
        };
        let mut all = Vec::new();
        for (signal, least, most) in hard(config)? {
            all.push(Threshold {
                signal,
                least,
                most,
                grace: None,
                reclaim: reclaim(signal),
            });
        }
        for (signal, least) in amounts("evictionSoft", &config.eviction_soft)? {
            let (_, name) = Signal::ALL[signal as usize];
            let grace = config.eviction_soft_grace_period.get(name);
            let grace = grace.ok_or_else(|| {
                format!("evictionSoft has {name}, evictionSoftGracePeriod must say for how long")
            })?;
            all.push(Threshold {
                signal,
                least,
                most: u64::MAX,
                grace: Some(grace.0),
                reclaim: reclaim(signal),
            });
        }
        for name in config.eviction_soft_grace_period.keys() {
            Signal::named(name).map_err(|why| format!("evictionSoftGracePeriod: {why}"))?;
        }
        all.retain(|threshold| !threshold.least.is_off());
        // Of one signal the hard one counts first.
        all.sort_by_key(|threshold| (threshold.signal, threshold.grace.is_some()));
        Ok(Self {
            all,
            hold: match config.eviction_pressure_transition_period.0 {
                Duration::ZERO => PRESSURE_TRANSITION,
                hold => hold,
            },
            soft_grace_s: match config.eviction_max_pod_grace_period {
                // As long as the pod itself says.
                ..0 => i64::MAX,
                most => most.into(),
            },
        })
    }
}

/// As configured: then what is not named has no threshold, unless the defaults are to be merged.
fn hard(config: &KubeletConfiguration) -> Result<Vec<(Signal, Amount, u64)>, String> {
    let own = config.eviction_hard.clone();
    let mut all = Vec::new();
    if own.is_none() || config.merge_default_eviction_settings {
        for (name, text) in DEFAULTS {
            let signal = Signal::named(name)?;
            let most = match signal {
                Signal::NodeDisk | Signal::ImageDisk => DISK_LOW_BYTES,
                _ => u64::MAX,
            };
            all.push((signal, Amount::parse(text)?, most));
        }
    }
    for (signal, amount) in amounts("evictionHard", &own.unwrap_or_default())? {
        all.retain(|(other, ..)| *other != signal);
        all.push((signal, amount, u64::MAX));
    }
    Ok(all)
}

fn amounts(field: &str, of: &BTreeMap<String, String>) -> Result<Vec<(Signal, Amount)>, String> {
    let each = of.iter().map(|(name, text)| {
        let signal = Signal::named(name).map_err(|why| format!("{field}: {why}"))?;
        let amount = Amount::parse(text).map_err(|why| format!("{field}: {name}: {why}"))?;
        Ok((signal, amount))
    });
    each.collect()
}

// === impl Watch ===

impl Watch {
    /// Nothing has been seen yet.
    pub fn new(thresholds: Thresholds) -> Self {
        let count = thresholds.all.len();
        Self {
            thresholds,
            since: vec![None; count],
            counted: vec![false; count],
            last: BTreeMap::new(),
        }
    }

    /// Takes in what is left now.
    pub fn look(&mut self, left: &Left, now: Timestamp) -> Found {
        let mut found = Found::default();
        let mut now_low = BTreeSet::new();
        for (index, threshold) in self.thresholds.all.iter().enumerate() {
            let Room { size, free } = threshold.signal.room(left);
            let least = threshold.least.of(size).min(threshold.most);
            // What was reached once is over only with some room beyond.
            let beyond = match self.counted[index] {
                true => threshold.reclaim.of(size),
                false => 0,
            };
            if free >= least.saturating_add(beyond) {
                (self.since[index], self.counted[index]) = (None, false);
                continue;
            }
            let since = *self.since[index].get_or_insert(now);
            self.last.insert(threshold.signal, now);
            now_low.insert(threshold.signal);
            let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            let counts = threshold.grace.is_none_or(|grace| passed >= grace);
            self.counted[index] = counts;
            if counts && found.short.is_none() {
                let pace = match threshold.grace {
                    None => Pace::AtOnce,
                    Some(_) => Pace::Within(self.thresholds.soft_grace_s),
                };
                found.short = Some((threshold.signal.shortage(least, free), pace));
            }
        }
        let hold = self.thresholds.hold;
        self.last.retain(|signal, last| {
            let passed = Duration::try_from(now.duration_since(*last)).unwrap_or_default();
            now_low.contains(signal) || passed < hold
        });
        for signal in self.last.keys() {
            match signal {
                Signal::Memory => found.pressure.memory = true,
                Signal::Pids => found.pressure.pids = true,
                _ => found.pressure.disk = true,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(text: &str) -> Result<Watch, String> {
        let config: KubeletConfiguration =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        Thresholds::of(&config).map(Watch::new)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn memory(free: u64) -> Left {
        Left {
            memory: Room { size: 1000, free },
            ..Left::plenty()
        }
    }

    #[test]
    fn defaults_are_upstreams_but_for_large_disks() {
        let mut watch = watch("{}").unwrap();
        let disk = |size: u64, free: u64| Left {
            disk: Room { size, free },
            ..Left::plenty()
        };
        assert_eq!(watch.look(&Left::plenty(), at(0)), Found::default());
        assert!(watch.look(&disk(100, 9), at(0)).pressure.disk);
        let room = disk(100 << 30, 2 << 30);
        assert!(watch.look(&room, at(299)).pressure.disk, "it was just so");
        assert!(!watch.look(&room, at(300)).pressure.disk);
        let short = watch.look(&disk(100 << 30, 1 << 29), at(301)).short;
        let (least, left) = (1 << 30, 1 << 29);
        assert_eq!(short, Some((Shortage::Disk { least, left }, Pace::AtOnce)));
    }

    #[test]
    fn a_soft_threshold_takes_its_time() {
        let text = "evictionHard: {memory.available: 5%}\nevictionSoft: {memory.available: '20%'}\n\
            evictionSoftGracePeriod: {memory.available: 1m30s}\nevictionMaxPodGracePeriod: 7\n\
            evictionMinimumReclaim: {memory.available: '100'}\nevictionPressureTransitionPeriod: 5m";
        let mut watch = watch(text).unwrap();
        let early = watch.look(&memory(150), at(0));
        assert!(early.pressure.memory && early.short.is_none(), "{early:?}");
        assert_eq!(watch.look(&memory(250), at(60)).short, None, "it was over");
        assert_eq!(watch.look(&memory(150), at(70)).short, None);
        let late = watch.look(&memory(150), at(160)).short;
        let shortage = Shortage::Memory {
            least: 200,
            left: 150,
        };
        assert_eq!(late, Some((shortage, Pace::Within(7))));
        assert!(
            watch.look(&memory(299), at(170)).short.is_some(),
            "too little was reclaimed"
        );
        let over = watch.look(&memory(300), at(180));
        assert!(over.short.is_none() && over.pressure.memory, "{over:?}");
        assert!(watch.look(&memory(300), at(460)).pressure.memory);
        assert!(!watch.look(&memory(300), at(480)).pressure.memory);
        let hard = watch.look(&memory(49), at(490)).short;
        assert_eq!(hard.unwrap().1, Pace::AtOnce, "the hard one counts first");
    }

    #[test]
    fn what_is_configured_stands_alone_unless_merged() {
        let none = Left {
            disk: Room { size: 100, free: 0 },
            ..Left::plenty()
        };
        let own = "evictionHard: {memory.available: 5%}";
        assert_eq!(watch(own).unwrap().look(&none, at(0)).short, None);
        let merged = format!("{own}\nmergeDefaultEvictionSettings: true");
        assert!(watch(&merged).unwrap().look(&none, at(0)).short.is_some());
        let off = "evictionHard: {nodefs.available: 0%, pid.available: '10'}";
        assert_eq!(watch(off).unwrap().look(&none, at(0)).short, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("evictionHard: {disk.available: 5%}", "no eviction signal"),
            (
                "evictionHard: {memory.available: much}",
                "neither an amount",
            ),
            (
                "evictionHard: {memory.available: 101%}",
                "neither an amount",
            ),
            (
                "evictionHard: {memory.available: '-5'}",
                "neither an amount",
            ),
            (
                "evictionSoft: {memory.available: 5%}",
                "evictionSoftGracePeriod must say",
            ),
            ("evictionSoftGracePeriod: {x: 5s}", "no eviction signal"),
        ] {
            let error = watch(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
