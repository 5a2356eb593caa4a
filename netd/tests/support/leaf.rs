//! A leaf switch: Debian's FRR.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Namespace, UPLINK};

/// How long a session may take to come up and say everything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// FRR in a namespace; its processes end with it.
pub struct Leaf {
    here: Namespace,
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Leaf {
    pub fn start(here: &Namespace, frr_conf: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // FRR gives up root for a user of its own.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let config = dir.path().join("frr.conf");
        std::fs::write(&config, frr_conf).unwrap();
        let mut leaf = Leaf {
            here: here.clone(),
            dir,
            daemons: Vec::new(),
        };
        for daemon in ["zebra", "bgpd", "staticd"] {
            let child = leaf.here.run(|| leaf.spawn(daemon, &config));
            leaf.daemons.push(child);
            let socket = leaf.dir.path().join(format!("{daemon}.vty"));
            patiently("the daemon listens", || socket.exists());
        }
        leaf
    }

    fn spawn(&self, daemon: &str, config: &Path) -> Child {
        let dir = self.dir.path();
        Command::new(format!("/usr/lib/frr/{daemon}"))
            .arg("-f")
            .arg(config)
            .arg("-i")
            .arg(dir.join(format!("{daemon}.pid")))
            .arg("-z")
            .arg(dir.join("zserv"))
            .arg("--vty_socket")
            .arg(dir)
            .args(["-A", "127.0.0.1"])
            .spawn()
            .unwrap()
    }

    /// What the leaf knows of a prefix.
    pub fn bgp(&self, prefix: &str) -> Value {
        self.show(&format!("bgp ipv4 unicast {prefix}"))
    }

    /// What it shows, as JSON.
    pub fn show(&self, what: &str) -> Value {
        let shown = self.vtysh(&[&format!("show {what} json")]);
        serde_json::from_slice(&shown).unwrap_or_default()
    }

    /// Has it configured.
    pub fn configure(&self, lines: &[&str]) {
        self.vtysh(&[&["configure terminal"], lines].concat());
    }

    fn vtysh(&self, lines: &[&str]) -> Vec<u8> {
        let mut vtysh = Command::new("vtysh");
        vtysh.arg("--vty_socket").arg(self.dir.path());
        for line in lines {
            vtysh.args(["-c", line]);
        }
        vtysh.output().unwrap().stdout
    }

    /// The community that tells of a graceful shutdown (RFC 8326), on a prefix.
    pub fn is_shutting_down(&self, prefix: &str) -> bool {
        self.bgp(prefix).to_string().contains("gracefulShutdown")
    }

    /// Whether its kernel has a route over the node.
    pub fn routes(&self, prefix: &str) -> bool {
        route(&self.here, prefix).contains(UPLINK)
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            // It may have ended by itself; then the test has failed already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The kernel's BGP route of a prefix, as `ip` shows it.
pub fn route(at: &Namespace, prefix: &str) -> String {
    let show = || {
        Command::new("ip")
            .args(["route", "show", prefix, "proto", "bgp"])
            .output()
            .unwrap()
    };
    String::from_utf8(at.run(show).stdout).unwrap()
}

/// Waits for a session and what it says.
pub fn patiently(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
