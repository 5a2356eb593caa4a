//! Where an instance keeps what: every path below the data directory, in one place.

use std::path::{Path, PathBuf};

/// The default of `--data-dir`.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/peapod";

/// The files of one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a data directory; relative paths are made absolute, since the instance
    /// outlives the shell that started it.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            root: std::path::absolute(root)?,
        })
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The API server's store.
    pub fn db(&self) -> PathBuf {
        self.root.join("db")
    }

    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Volumes of the node-local storage class.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The settings chosen at the first start, kept for the next.
    pub fn settings(&self) -> PathBuf {
        self.root.join("settings.json")
    }

    /// What a running instance leaves for other commands; does not outlive it.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Held locked by the running instance.
    pub fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// The running instance's description.
    pub fn state(&self) -> PathBuf {
        self.run().join("instance.json")
    }

    /// The instance's log when it is detached.
    pub fn log(&self) -> PathBuf {
        self.root.join("peapod.log")
    }
}
