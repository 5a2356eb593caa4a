//! Linux capabilities by name, number and default.

use std::collections::HashSet;

use oci_spec::runtime::Capability;

use crate::runtime::{Error, Result, Security};

/// Every capability, at the index of its number in the kernel.
const ALL: [(&str, Capability); 41] = [
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("KILL", Capability::Kill),
    ("SETGID", Capability::Setgid),
    ("SETUID", Capability::Setuid),
    ("SETPCAP", Capability::Setpcap),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_RAW", Capability::NetRaw),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("MKNOD", Capability::Mknod),
    ("LEASE", Capability::Lease),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("SETFCAP", Capability::Setfcap),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("SYSLOG", Capability::Syslog),
    ("WAKE_ALARM", Capability::WakeAlarm),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("AUDIT_READ", Capability::AuditRead),
    ("PERFMON", Capability::Perfmon),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
];

/// What a container may do when nothing is said, as in the other runtimes.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Number of `CAP_SYS_RESOURCE`.
pub const SYS_RESOURCE: u32 = 24;

/// The capabilities of a container on a host whose own are `bounding` (a bit mask): the default
/// ones, with `ALL` and single names added, then dropped. What the host lacks nobody can
/// give.
pub fn effective(security: &Security, bounding: u64) -> Result<HashSet<Capability>> {
    let host: HashSet<Capability> = ALL
        .iter()
        .enumerate()
        .filter(|(number, _)| bounding & (1 << number) != 0)
        .map(|(_, (_, capability))| *capability)
        .collect();
    if security.privileged {
        return Ok(host);
    }
    let mut set: HashSet<Capability> = DEFAULT.into();
    // ALL first: "drop ALL, add CHOWN" and "add ALL, drop CHOWN" both mean what they say.
    if mentions_all(&security.drop_capabilities) {
        set.clear();
    }
    if mentions_all(&security.add_capabilities) {
        set.extend(&host);
    }
    for name in single(&security.add_capabilities) {
        set.insert(parse(name)?);
    }
    for name in single(&security.drop_capabilities) {
        set.remove(&parse(name)?);
    }
    set.retain(|capability| host.contains(capability));
    Ok(set)
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

fn mentions_all(names: &[String]) -> bool {
    names.iter().any(|name| is_all(name))
}

fn single(names: &[String]) -> impl Iterator<Item = &str> {
    names
        .iter()
        .map(String::as_str)
        .filter(|name| !is_all(name))
}

fn parse(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let known = ALL.iter().find(|(known, _)| *known == short);
    known
        .map(|(_, capability)| *capability)
        .ok_or_else(|| Error::Invalid(format!("unknown capability {name:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str], bounding: u64) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let security = Security {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            ..Security::default()
        };
        let set = effective(&security, bounding).unwrap();
        let mut names: Vec<String> = ALL
            .iter()
            .filter(|(_, capability)| set.contains(capability))
            .map(|(name, _)| (*name).to_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn added_and_dropped() {
        let every = u64::MAX;
        assert_eq!(names(&[], &[], every).len(), 14);
        assert_eq!(names(&[], &["ALL"], every), Vec::<String>::new());
        assert_eq!(names(&["NET_ADMIN"], &["ALL"], every), ["NET_ADMIN"]);
        assert_eq!(names(&["CAP_SYS_TIME"], &["all"], every), ["SYS_TIME"]);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"], every).len(), 40);
        assert!(!names(&[], &["NET_RAW"], every).contains(&"NET_RAW".to_owned()));
        assert_eq!(
            names(&["ALL"], &[], 0b11),
            ["CHOWN", "DAC_OVERRIDE"],
            "the host's limit"
        );
    }

    #[test]
    fn unknown_names_are_refused() {
        let add_capabilities = vec!["FLY".to_owned()];
        let security = Security {
            add_capabilities,
            ..Security::default()
        };
        assert!(effective(&security, u64::MAX).is_err());
    }
}
