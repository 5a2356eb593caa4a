//! An etcd cluster of a test's own, on loopback.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peapod_store::{EtcdConfig, EtcdEngine, EtcdError, Limits, Store};
use tempfile::TempDir;

use crate::common::{Nodes, TestStore};

/// How long things may take on a machine that has other things to do.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Etcd {
    members: Vec<Member>,
    token: String,
    dir: TempDir,
}

struct Member {
    client: String,
    peer: String,
    process: Option<Child>,
}

// === impl Etcd ===

impl Etcd {
    /// Starts a cluster of some members.
    pub fn start(members: usize) -> Self {
        // All ports are held until all are known, so that they differ.
        let ports: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let url = |at: usize| format!("http://{}", ports[at].local_addr().unwrap());
        let members = (0..members).map(|at| Member {
            client: url(2 * at),
            peer: url(2 * at + 1),
            process: None,
        });
        let mut etcd = Self {
            members: members.collect(),
            token: format!("peapod-test-{}", std::process::id()),
            dir: TempDir::new().unwrap(),
        };
        drop(ports);
        for at in 0..etcd.members.len() {
            etcd.run(at);
        }
        etcd
    }

    /// Starts a member, for the first time or again.
    pub fn run(&mut self, at: usize) {
        let peers = self.members.iter().enumerate();
        let peers: Vec<String> = peers.map(|(n, one)| format!("m{n}={}", one.peer)).collect();
        let member = &self.members[at];
        let child = Command::new("etcd")
            .args(["--name", &format!("m{at}"), "--data-dir"])
            .arg(self.dir.path().join(format!("m{at}")))
            .args(["--listen-client-urls", &member.client])
            .args(["--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer])
            .args(["--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--initial-cluster-token", &self.token])
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed (scripts/install-needs test)");
        self.members[at].process = Some(child);
    }

    /// Kills a member as `kill -9` does.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// The process of a member.
    pub fn pid(&self, at: usize) -> u32 {
        self.members[at].process.as_ref().unwrap().id()
    }

    pub fn config(&self) -> EtcdConfig {
        EtcdConfig::new(self.members.iter().map(|one| &one.client))
    }

    /// A server's store over the cluster, once that answers.
    pub async fn store(&self) -> TestStore {
        self.store_with(self.config()).await
    }

    pub async fn store_with(&self, config: EtcdConfig) -> TestStore {
        let began = Instant::now();
        loop {
            match EtcdEngine::open(config.clone()).await {
                Ok(engine) => {
                    let engine = Arc::new(engine);
                    let store = Store::open(engine, Arc::new(Nodes), Limits::default()).await;
                    return store.unwrap();
                }
                Err(EtcdError::Unreachable { .. }) if began.elapsed() < LIMIT => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}
