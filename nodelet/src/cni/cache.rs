//! What was attached, a file for each pod.

use std::io;
use std::path::{Path, PathBuf};

use peapod_api::attach::{HostPort, PodRef};
use peapod_api::cni;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::Network;
use crate::whole_file::write_json_durably;

/// What a pod was attached by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The pod.
    pub pod: PodRef,
    /// Where its network namespace is pinned.
    pub netns: PathBuf,
    /// Name of its link.
    pub interface: String,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
    /// The configuration as it was.
    pub network: Network,
    /// The result of the last plugin; nothing while the plugins run.
    pub result: Option<Value>,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

// === impl Cache ===

impl Cache {
    /// Opens the folder, and makes it.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    fn path(&self, uid: &str) -> io::Result<PathBuf> {
        match cni::is_identifier(uid) {
            true => Ok(self.dir.join(format!("{uid}.json"))),
            false => Err(io::Error::other(format!("{uid:?} cannot name a container"))),
        }
    }

    /// Writes an entry, whole or not at all, and on disk when this returns.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let path = self.path(&entry.pod.uid)?;
        write_json_durably(&path, entry)
    }

    /// The entry of a pod.
    pub fn read(&self, uid: &str) -> io::Result<Option<Entry>> {
        match std::fs::read(self.path(uid)?) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(uid)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All entries; damaged ones are told of and passed over.
    pub fn all(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in std::fs::read_dir(&self.dir)?.flatten() {
            let path = file.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            let text = std::fs::read(&path)?;
            match serde_json::from_slice(&text) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a damaged record of an attachment");
                }
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_until_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&dir.path().join("cni")).unwrap();
        let entry = Entry {
            pod: PodRef {
                namespace: "default".into(),
                name: "web".into(),
                uid: "u-1".into(),
            },
            netns: "/ns".into(),
            interface: "eth0".into(),
            host_ports: vec![],
            network: Network::loopback(),
            result: None,
        };
        cache.write(&entry).unwrap();
        std::fs::write(dir.path().join("cni/torn.json"), "{").unwrap();
        assert_eq!(cache.all().unwrap(), std::slice::from_ref(&entry));
        assert_eq!(cache.read("u-1").unwrap(), Some(entry));
        assert!(cache.read("../u-1").is_err());
        cache.remove("u-1").unwrap();
        cache.remove("u-1").unwrap();
        assert_eq!(cache.read("u-1").unwrap(), None);
    }
}
