//! A containerd as its makers deliver it, for references that Peapod's own settings must not help.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use peapod_tests::wait;
use tempfile::TempDir;

/// A daemon with files of its own, ended with this.
pub struct Stock {
    dir: TempDir,
    child: Child,
}

// === impl Stock ===

impl Stock {
    /// Starts it, without its CRI, which nothing here asks.
    pub fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let at = dir.path().display();
        let config = dir.path().join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{at}/containerd.sock\"\n\
             [ttrpc]\naddress = \"{at}/containerd.sock.ttrpc\"\n"
        );
        fs::write(&config, text)?;
        let mut daemon = Command::new("containerd");
        daemon.arg("--config").arg(&config);
        daemon.stdout(Stdio::null()).stderr(Stdio::null());
        let child = daemon
            .spawn()
            .context("containerd is not installed; `make bench` installs it")?;
        let stock = Self { dir, child };
        wait::until("the reference's containerd", || Ok(stock.socket().exists()))?;
        Ok(stock)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the reference's containerd could not be ended: {error}");
        }
    }
}
