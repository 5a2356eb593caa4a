//! Nodes in network namespaces of their own, with pods and a machine outside: real kernel,
//! real sockets, nothing of the machine that runs the tests.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file uses a part of it"
)]

mod agent;
pub mod api;
pub mod leaf;
mod namespace;
mod node;
mod objects;
pub mod site;

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use peapod_api::attach::{AttachReply, PodRef};

pub use self::namespace::{Namespace, quicken};
pub use self::node::Node;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for an answer that must not come.
pub const SILENCE: Duration = Duration::from_millis(300);

/// The node's addresses.
pub const NODE_V4: &str = "10.243.0.1";
pub const NODE_V6: &str = "fd00:10:243::1";
/// The cluster's DNS.
pub const DNS_V4: &str = "10.96.0.10";
pub const DNS_V6: &str = "fd00:10:96::a";
/// Both ends of the link to the machine outside.
pub const UPLINK: &str = "192.0.2.1";
pub const OUTSIDE: &str = "192.0.2.10";

/// Runs a command of nft where the calling thread is.
pub fn nft(command: &str) {
    let output = Command::new("nft").arg(command).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: not within {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
}

/// An attached pod.
#[derive(Clone)]
pub struct Pod {
    pub reference: PodRef,
    pub netns: Namespace,
    pub reply: AttachReply,
}

impl Pod {
    pub fn v4(&self) -> IpAddr {
        self.reply.ips[0]
    }

    pub fn v6(&self) -> IpAddr {
        self.reply.ips[1]
    }
}
