//! The volumes' files, and what is known of each beside it. Nodes share the folder; a lock on it
//! makes one change at a time.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::internal;

/// What the whole folder may hold, bytes; files are sparse.
pub const CAPACITY: i64 = 10 << 30;

/// A volume or a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called by who wanted it.
    pub name: String,
    /// Its ID: the name of its file.
    pub id: String,
    /// Bytes.
    pub size: i64,
    /// Of a snapshot, the volume that it is of.
    pub source: Option<String>,
    /// The nodes that it is attached to.
    pub nodes: Vec<String>,
    /// When a snapshot was taken, seconds since the epoch.
    pub taken_at: i64,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Pool {
    dir: PathBuf,
}

/// The folder, locked.
pub struct Open<'a> {
    dir: &'a Path,
    entries: BTreeMap<String, Entry>,
    _lock: Flock<File>,
}

// === impl Pool ===

impl Pool {
    /// The folder `dir`, made if it is not there.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where a volume's data is.
    pub fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.img"))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Result<Open<'_>, Status> {
        let file = File::create(self.dir.join("lock")).map_err(internal)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| internal(e))?;
        let text = fs::read(self.dir.join("entries.json")).unwrap_or_else(|_| b"{}".into());
        Ok(Open {
            dir: &self.dir,
            entries: serde_json::from_slice(&text).map_err(internal)?,
            _lock: lock,
        })
    }
}

// === impl Open ===

impl Open<'_> {
    /// The entry of an ID.
    pub fn get(&self, id: &str) -> Result<&Entry, Status> {
        let found = self.entries.get(id);
        found.ok_or_else(|| Status::not_found(format!("there is no volume or snapshot {id}")))
    }

    /// The entry of a name.
    pub fn named(&self, name: &str) -> Option<&Entry> {
        self.entries.values().find(|entry| entry.name == name)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What is left, bytes.
    pub fn left(&self) -> i64 {
        CAPACITY - self.entries.values().map(|entry| entry.size).sum::<i64>()
    }

    /// Makes an entry with a file of its size, which begins like another's.
    pub fn make(&mut self, entry: Entry, like: Option<&str>) -> Result<(), Status> {
        let path = |id: &str| self.dir.join(format!("{id}.img"));
        let file = path(&entry.id);
        match like {
            Some(like) => drop(fs::copy(path(like), &file).map_err(internal)?),
            None => drop(File::create(&file).map_err(internal)?),
        }
        self.resize(&entry.id, entry.size)?;
        self.put(entry)
    }

    /// Makes a file longer.
    pub fn resize(&self, id: &str, size: i64) -> Result<(), Status> {
        let file = self.dir.join(format!("{id}.img"));
        let file = File::options().write(true).open(file).map_err(internal)?;
        let size = u64::try_from(size).map_err(internal)?;
        let long = file.metadata().map_err(internal)?.len() >= size;
        let grown = if long { Ok(()) } else { file.set_len(size) };
        grown.and_then(|()| file.sync_all()).map_err(internal)
    }

    /// Records an entry.
    pub fn put(&mut self, entry: Entry) -> Result<(), Status> {
        self.entries.insert(entry.id.clone(), entry);
        self.save()
    }

    /// Removes an entry and its file, if there is one.
    pub fn remove(&mut self, id: &str) -> Result<(), Status> {
        self.entries.remove(id);
        self.save()?;
        match fs::remove_file(self.dir.join(format!("{id}.img"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(error)),
            _ => Ok(()),
        }
    }

    fn save(&self) -> Result<(), Status> {
        let unfinished = self.dir.join("entries.tmp");
        let text = serde_json::to_vec(&self.entries).map_err(internal)?;
        fs::write(&unfinished, text).map_err(internal)?;
        fs::rename(unfinished, self.dir.join("entries.json")).map_err(internal)
    }
}
