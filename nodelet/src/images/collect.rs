//! Which images go when nobody uses them: by the room on the disk and by their age. Pure.
//!
//! When an image was last used is known as long as this agent has been looking; after a restart the
//! minimum age begins anew.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use crate::kubelet_config::KubeletConfiguration;
use crate::runtime::Image;

/// The file system that images are on.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes.
    pub size: u64,
    /// Bytes.
    pub free: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Timestamp,
    last_used: Timestamp,
}

/// Remembers when each image was used.
#[derive(Debug, Default)]
pub struct Collector {
    seen: HashMap<String, Seen>,
}

// === impl Collector ===

impl Collector {
    /// Takes in what there is and what is used, and gives the IDs of the images to remove.
    pub fn choose(
        &mut self,
        images: &[Image],
        used: &BTreeSet<String>,
        disk: Disk,
        config: &KubeletConfiguration,
        now: Timestamp,
    ) -> Vec<String> {
        let ids: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.seen.retain(|id, _| ids.contains(id.as_str()));
        for image in images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen {
                first: now,
                last_used: now,
            });
            if used.contains(&image.id) {
                seen.last_used = now;
            }
        }
        let mut unused: Vec<(&Image, Seen)> = images
            .iter()
            .filter(|image| !used.contains(&image.id))
            .filter_map(|image| Some((image, *self.seen.get(&image.id)?)))
            .filter(|(_, seen)| is_past(seen.first, now, config.image_minimum_gc_age.0))
            .collect();
        unused.sort_by_key(|(image, seen)| (seen.last_used, seen.first, image.id.clone()));
        let mut excess = excess(disk, config);
        let longest = config.image_maximum_gc_age.0;
        let mut chosen = Vec::new();
        for (image, seen) in unused {
            let old = !longest.is_zero() && is_past(seen.last_used, now, longest);
            if excess == 0 && !old {
                continue;
            }
            excess = excess.saturating_sub(image.size_bytes.max(1));
            chosen.push(image.id.clone());
        }
        chosen
    }
}

fn is_past(since: Timestamp, now: Timestamp, age: std::time::Duration) -> bool {
    let passed = std::time::Duration::try_from(now.duration_since(since));
    passed.is_ok_and(|passed| passed >= age)
}

/// Bytes to be freed.
fn excess(disk: Disk, config: &KubeletConfiguration) -> u64 {
    let percent = |percent: u8| {
        let bytes = u128::from(disk.size) * u128::from(percent) / 100;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    };
    let used = disk.size.saturating_sub(disk.free);
    match used >= percent(config.image_gc_high_threshold_percent.0) && used > 0 {
        true => used.saturating_sub(percent(config.image_gc_low_threshold_percent.0)),
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn image(id: &str, size_bytes: u64) -> Image {
        Image {
            id: id.to_owned(),
            size_bytes,
            ..Image::default()
        }
    }

    fn used(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    const ROOMY: Disk = Disk {
        size: 100,
        free: 50,
    };
    const FULL: Disk = Disk { size: 100, free: 5 };

    #[test]
    fn the_least_recently_used_go_until_there_is_room() {
        let config = KubeletConfiguration::default();
        let images = [image("a", 10), image("b", 10), image("c", 10)];
        let mut collector = Collector::default();
        let mut choose =
            |used, disk, minute| collector.choose(&images, used, disk, &config, at(minute));
        let (all, only_b, none) = (used(&["a", "b", "c"]), used(&["b"]), used(&[]));
        assert!(choose(&all, FULL, 0).is_empty(), "all are used");
        let (a, ab) = (used(&["a"]), used(&["a", "b"]));
        assert!(choose(&ab, ROOMY, 10).is_empty(), "there is room");
        assert!(choose(&a, ROOMY, 20).is_empty(), "there is room");
        // 95 of 100 are used, 80 may be.
        assert_eq!(choose(&none, FULL, 30), ["c", "b"]);
        assert_eq!(choose(&only_b, FULL, 31), ["c", "a"]);
    }

    #[test]
    fn the_young_stay_and_the_old_go_in_any_case() {
        let mut config = KubeletConfiguration::default();
        let images = [image("a", 10)];
        let mut collector = Collector::default();
        let none = used(&[]);
        assert!(
            collector
                .choose(&images, &none, FULL, &config, at(0))
                .is_empty(),
            "it has just come"
        );
        assert_eq!(
            collector.choose(&images, &none, FULL, &config, at(2)),
            ["a"]
        );
        config.image_maximum_gc_age.0 = std::time::Duration::from_secs(3600);
        assert!(
            collector
                .choose(&images, &none, ROOMY, &config, at(59))
                .is_empty()
        );
        assert_eq!(
            collector.choose(&images, &none, ROOMY, &config, at(60)),
            ["a"]
        );
    }
}
