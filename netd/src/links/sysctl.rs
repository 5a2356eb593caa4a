//! Kernel settings under `/proc/sys`.
//!
//! Settings of the machine that are changed are recorded first, so that [`restore`] can put
//! them back; those of links that we make ourselves need no record.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Error;

const ROOT: &str = "/proc/sys";
/// The record's name in the state directory.
const RECORD: &str = "sysctls.json";

fn path(key: &str) -> PathBuf {
    Path::new(ROOT).join(key)
}

/// Reads a setting, by its path below `/proc/sys`. `None` when this kernel does not have it.
pub fn read(key: &str) -> Option<String> {
    fs::read_to_string(path(key))
        .ok()
        .map(|value| value.trim().to_owned())
}

/// Writes a setting.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    fs::write(path(key), value).map_err(|source| Error::Sysctl {
        path: path(key),
        source,
    })
}

/// Writes a setting that may not exist here (IPv6 switched off, an older kernel).
pub fn write_if_there(key: &str, value: &str) -> Result<(), Error> {
    match write(key, value) {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether this kernel speaks IPv6 here.
pub fn has_ipv6() -> bool {
    read("net/ipv6/conf/all/disable_ipv6").is_some_and(|value| value == "0")
}

/// Writes settings of the machine, having recorded in `state_dir` what they were. A value
/// recorded earlier is kept: it is the older, true one.
pub fn set_recorded(state_dir: &Path, settings: &[(String, &str)]) -> Result<(), Error> {
    let mut record = load(state_dir);
    let mut wanted = Vec::new();
    for (key, value) in settings {
        let Some(old) = read(key) else { continue };
        if old != *value {
            record.entry(key.clone()).or_insert(old);
            wanted.push((key, value));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    store(state_dir, &record)?;
    wanted
        .into_iter()
        .try_for_each(|(key, value)| write(key, value))
}

/// Puts back what [`set_recorded`] changed, and forgets it. Settings of links that are gone
/// are passed over.
pub fn restore(state_dir: &Path) -> Result<(), Error> {
    for (key, value) in load(state_dir) {
        write_if_there(&key, &value)?;
    }
    match fs::remove_file(state_dir.join(RECORD)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Sysctl {
            path: state_dir.join(RECORD),
            source,
        }),
        _ => Ok(()),
    }
}

fn load(state_dir: &Path) -> BTreeMap<String, String> {
    let text = fs::read(state_dir.join(RECORD)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn store(state_dir: &Path, record: &BTreeMap<String, String>) -> Result<(), Error> {
    let path = state_dir.join(RECORD);
    let write = || {
        fs::create_dir_all(state_dir)?;
        let text = serde_json::to_vec_pretty(record)?;
        // Whole or not at all: a torn record would lose the old values.
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(&new, &path)
    };
    write().map_err(|source| Error::Sysctl {
        path: path.clone(),
        source,
    })
}
