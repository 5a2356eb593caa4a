//! The namespaces that a sandbox is made of: made and pinned, and seen to be there.

use std::fs;
use std::io;

use nix::sched::CloneFlags;

use super::paths::Paths;
use super::sysctls;
use crate::runtime::reaper::{self, Inside};
use crate::runtime::sys::{self, Pin};
use crate::runtime::users::{HostIds, namespace};
use crate::runtime::{NamespaceMode, SandboxSpec};

/// Makes those that the pod does not share with the host, but for the one of process IDs.
pub(super) fn pin(spec: &SandboxSpec, ids: Option<HostIds>, paths: &Paths) -> io::Result<()> {
    let (own_network, own_uts) = (spec.network != NamespaceMode::Host, spec.has_uts());
    let host_ipc = spec.ipc == NamespaceMode::Host;
    let mut pins = Vec::new();
    if own_network {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWNET,
            name: "net",
            path: paths.net(),
        });
    }
    if own_uts {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWUTS,
            name: "uts",
            path: paths.uts(),
        });
    }
    if !host_ipc {
        pins.push(Pin {
            flag: CloneFlags::CLONE_NEWIPC,
            name: "ipc",
            path: paths.ipc(),
        });
    }
    if pins.is_empty() {
        return Ok(());
    }
    let hostname = spec.hostname.clone();
    let name = move || {
        if own_network {
            sys::loopback_up()?;
        }
        if own_uts {
            nix::unistd::sethostname(&hostname)?;
        }
        Ok(())
    };
    let settings = spec.sysctls.clone();
    let Some(ids) = ids else {
        return sys::pin_namespaces(pins, move || {
            name()?;
            sysctls::set(&settings, |path, value| fs::write(path, value))
        });
    };
    namespace::pin(ids, &paths.user(), pins, name)?;
    // Groups in them are the namespace's own.
    let others = [paths.net(), paths.uts(), paths.ipc()];
    sysctls::set(&settings, |path, value| {
        namespace::write_as_root(&paths.user(), &others, path, value.to_owned())
    })
}

/// Makes the namespace of process IDs, with its first process.
/// The number is noted before anything else can fail, so that the process can always be found.
pub(super) fn start_reaper(spec: &SandboxSpec, paths: &Paths) -> io::Result<u32> {
    let mut inside = Inside {
        users: spec.own_users.then(|| paths.user()),
        others: Vec::new(),
    };
    if spec.network != NamespaceMode::Host {
        inside.others.push(paths.net());
    }
    if spec.has_uts() {
        inside.others.push(paths.uts());
    }
    if spec.ipc != NamespaceMode::Host {
        inside.others.push(paths.ipc());
    }
    let note = paths.reaper();
    reaper::create(&paths.pid(), inside, paths.dir.join("empty"), |pid| {
        fs::write(&note, pid.to_string())
    })
}

/// Whether all of them are there.
pub(super) fn is_alive(spec: &SandboxSpec, paths: &Paths) -> bool {
    let processes = spec.pid != NamespaceMode::Pod
        || paths
            .reaper_pid()
            .is_some_and(|pid| reaper::is_alive(pid, &paths.pid()));
    let network = spec.network == NamespaceMode::Host || sys::is_pinned(&paths.net());
    let uts = !spec.has_uts() || sys::is_pinned(&paths.uts());
    let users = !spec.own_users || sys::is_pinned(&paths.user());
    processes
        && users
        && network
        && uts
        && (spec.ipc == NamespaceMode::Host || sys::is_pinned(&paths.ipc()))
}
