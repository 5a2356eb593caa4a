//! Kernel settings of a pod's namespaces.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::{Error, Result};

/// Sets all of them; `write` writes one file.
pub(super) fn set(
    sysctls: &BTreeMap<String, String>,
    write: impl Fn(PathBuf, &str) -> io::Result<()>,
) -> io::Result<()> {
    for (name, value) in sysctls {
        let path = path(name).map_err(io::Error::other)?;
        write(path, value).map_err(|error| {
            let kind = error.kind();
            io::Error::new(kind, format!("setting sysctl {name} to {value}: {error}"))
        })?;
    }
    Ok(())
}

/// The file of a sysctl, written with dots or slashes. Only namespaced ones: the others would
/// change the host.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    let dotted = name.replace('/', ".");
    let namespaced = ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."]
        .iter()
        .any(|prefix| dotted.starts_with(prefix))
        || dotted == "kernel.sem";
    // With slashes, a dot belongs to a name (an interface `eth0.100`).
    let relative = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    if !namespaced
        || relative
            .split('/')
            .any(|part| part.is_empty() || part == "..")
    {
        return Err(Error::Invalid(format!(
            "sysctl {name} is not namespaced; a pod may set net.*, kernel.shm*, kernel.msg*, \
             kernel.sem and fs.mqueue.*"
        )));
    }
    Ok(Path::new("/proc/sys").join(relative))
}
