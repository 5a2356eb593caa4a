//! What the machine is and how much it has, read from the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// What does not change while the machine runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// CPUs that are on line.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Huge pages reserved, by size as resources call it (`2Mi`), bytes.
    pub hugepages: BTreeMap<String, u64>,
    /// Size of the disk that the data directory is on, bytes.
    pub disk_bytes: u64,
    /// Processes and threads that the kernel allows.
    pub pids_max: u64,
    /// `amd64`, `arm64` ... as Go calls it.
    pub architecture: String,
    /// As `uname -r` says.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// Of this installation.
    pub machine_id: String,
    /// Of the hardware.
    pub system_uuid: String,
    /// Of this boot.
    pub boot_id: String,
    /// The machine's host name.
    pub hostname: String,
}

/// How much there is of something, and how much of it is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub size: u64,
    /// What is free.
    pub free: u64,
}

/// What is left of what runs out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Memory, free what can be had without swapping, bytes.
    pub memory: Room,
    /// The disk of the data directory, bytes.
    pub disk: Room,
    /// Files on it.
    pub inodes: Room,
    /// The disk of images and containers' own layers, bytes.
    pub image_disk: Room,
    /// Files on that.
    pub image_inodes: Room,
    /// Processes and threads.
    pub pids: Room,
}

impl Left {
    /// More of everything than anybody wants.
    #[cfg(test)]
    pub fn plenty() -> Self {
        let room = Room {
            size: 1 << 50,
            free: 1 << 50,
        };
        Self {
            memory: room,
            disk: room,
            inodes: room,
            image_disk: room,
            image_inodes: room,
            pids: room,
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Reads the facts; what cannot be read is empty.
pub fn facts(data_dir: &Path) -> Facts {
    let uname = nix::sys::utsname::uname().ok();
    let word = |pick: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname
            .as_ref()
            .map(|u| pick(u).to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let meminfo = read("/proc/meminfo");
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Facts {
        cpus: online_cpus(&read("/sys/devices/system/cpu/online"))
            .unwrap_or_else(|| u32::try_from(cpus).unwrap_or(1)),
        memory_bytes: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
        hugepages: hugepages(),
        disk_bytes: disk(data_dir).0,
        pids_max: pids_max(),
        architecture: go_arch(&word(nix::sys::utsname::UtsName::machine)).to_owned(),
        kernel: word(nix::sys::utsname::UtsName::release),
        os_image: pretty_name(&read("/etc/os-release")),
        machine_id: read("/etc/machine-id"),
        system_uuid: read("/sys/class/dmi/id/product_uuid"),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        hostname: word(nix::sys::utsname::UtsName::nodename),
    }
}

/// Reads what is left; what cannot be read is plenty. `image_dir` is where images are.
pub fn left(data_dir: &Path, image_dir: &Path) -> Left {
    let (disk, inodes) = rooms(data_dir);
    let (image_disk, image_inodes) = rooms(image_dir);
    let meminfo = read("/proc/meminfo");
    let running = read("/proc/loadavg");
    let running = running
        .split(['/', ' '])
        .nth(4)
        .and_then(|count| count.parse::<u64>().ok());
    let pids_max = pids_max();
    Left {
        memory: Room {
            size: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0),
            free: meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(u64::MAX),
        },
        disk,
        inodes,
        image_disk,
        image_inodes,
        pids: Room {
            size: pids_max,
            free: pids_max.saturating_sub(running.unwrap_or(0)),
        },
    }
}

/// How many processes and threads the machine can have.
pub fn pids_max() -> u64 {
    read("/proc/sys/kernel/pid_max").parse().unwrap_or(32_768)
}

/// Bytes and files of the file system that a directory is on; some have no fixed number of files. Blocks that are
/// reserved for root are not free, as upstream has it for its thresholds.
fn rooms(dir: &Path) -> (Room, Room) {
    let Ok(stat) = statvfs(dir) else {
        return (Room::default(), Room::default());
    };
    let unit = stat.fragment_size();
    let bytes = Room {
        size: stat.blocks() * unit,
        free: stat.blocks_available() * unit,
    };
    let files = Room {
        size: stat.files(),
        free: stat.files_available(),
    };
    (bytes, files)
}

/// Size and free space of the disk that a directory is on, bytes.
fn disk(dir: &Path) -> (u64, u64) {
    statvfs(dir).map_or((0, 0), |stat| {
        let unit = stat.fragment_size();
        (stat.blocks() * unit, stat.blocks_available() * unit)
    })
}

/// How many CPUs a list like `0-3,6` names.
fn online_cpus(list: &str) -> Option<u32> {
    let mut count = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

fn meminfo_bytes(text: &str, field: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Memory in use that is not reclaimed easily, in the text of `/proc/meminfo`, bytes.
pub fn memory_used(meminfo: &str) -> u64 {
    let get = |field| meminfo_bytes(meminfo, field).unwrap_or(0);
    get("MemTotal").saturating_sub(get("MemAvailable"))
}

/// Time that all CPUs together were busy since the start, in the text of `/proc/stat`.
pub fn cpu_used_ns(stat: &str) -> u64 {
    /// A tick of `/proc/stat`, which is the same on every machine.
    const TICK_NS: u64 = 10_000_000;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|t| t.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|&column| ticks.get(column))
        .sum::<u64>();
    busy * TICK_NS
}

fn hugepages() -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kib = name
            .strip_prefix("hugepages-")
            .and_then(|size| size.strip_suffix("kB"));
        let Some(kib) = kib.and_then(|kib| kib.parse::<u64>().ok()) else {
            continue;
        };
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let count: u64 = count.trim().parse().unwrap_or(0);
        let size = match kib {
            kib if kib.is_multiple_of(1 << 20) => format!("{}Gi", kib >> 20),
            kib if kib.is_multiple_of(1 << 10) => format!("{}Mi", kib >> 10),
            kib => format!("{kib}Ki"),
        };
        found.insert(size, count * kib * 1024);
    }
    found
}

/// A machine's name in Go's words.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" | "armv6l" => "arm",
        "i686" | "i386" => "386",
        other => other,
    }
}

fn pretty_name(os_release: &str) -> String {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// Whether the kernel enforces AppArmor profiles.
pub fn apparmor() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.starts_with('Y'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_kernel_writes() {
        assert_eq!(online_cpus("0-3,6"), Some(5));
        assert_eq!(online_cpus("0"), Some(1));
        assert_eq!(online_cpus("x"), None);
        let meminfo = "MemTotal:       16 kB\nMemAvailable:   8 kB\n";
        assert_eq!(meminfo_bytes(meminfo, "MemAvailable"), Some(8192));
        assert_eq!(
            pretty_name("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
            "Debian 12"
        );
    }
}
