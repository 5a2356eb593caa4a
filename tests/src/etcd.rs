//! An etcd cluster of a test's own, on loopback: plain, or over TLS with certificates on both sides.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::wait;

/// A running etcd cluster; dropping it ends its members.
pub struct Etcd {
    members: Vec<Member>,
    secure: bool,
    dir: TempDir,
}

struct Member {
    client: String,
    peer: String,
    process: Option<Child>,
}

// === impl Member ===

impl Member {
    /// The client URL without its scheme.
    fn address(&self) -> &str {
        self.client.rsplit('/').next().unwrap_or_default()
    }
}

// === impl Etcd ===

impl Etcd {
    /// Starts a cluster of some members.
    pub fn start(members: usize) -> Result<Self> {
        Self::new(members, false)
    }

    /// Starts a cluster whose members show certificates, and want to see one.
    pub fn start_secure(members: usize) -> Result<Self> {
        Self::new(members, true)
    }

    fn new(members: usize, secure: bool) -> Result<Self> {
        // All ports are held until all are known, so that they differ.
        let ports: Vec<TcpListener> = (0..2 * members)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<_, _>>()?;
        let mut all = Vec::new();
        for two in ports.chunks(2) {
            let scheme = if secure { "https" } else { "http" };
            all.push(Member {
                client: format!("{scheme}://{}", two[0].local_addr()?),
                peer: format!("http://{}", two[1].local_addr()?),
                process: None,
            });
        }
        drop(ports);
        let dir = tempfile::Builder::new().prefix("peapod-etcd-").tempdir()?;
        if secure {
            certificates(dir.path())?;
        }
        let mut etcd = Self {
            members: all,
            secure,
            dir,
        };
        for at in 0..members {
            etcd.run(at)?;
        }
        // A member listens once the cluster has a leader.
        wait::until("etcd to listen", || {
            let listens = |one: &Member| TcpStream::connect(one.address()).is_ok();
            Ok(etcd.members.iter().all(listens))
        })?;
        Ok(etcd)
    }

    /// Starts a member, for the first time or again.
    pub fn run(&mut self, at: usize) -> Result<()> {
        let peers = self.members.iter().enumerate();
        let peers: Vec<String> = peers.map(|(n, one)| format!("m{n}={}", one.peer)).collect();
        let member = &self.members[at];
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("m{at}"), "--data-dir"])
            .arg(self.dir.path().join(format!("m{at}")))
            .args(["--listen-client-urls", &member.client])
            .args(["--advertise-client-urls", &member.client])
            .args(["--listen-peer-urls", &member.peer])
            .args(["--initial-advertise-peer-urls", &member.peer])
            .args(["--initial-cluster", &peers.join(",")])
            .args(["--heartbeat-interval", "100", "--election-timeout", "1000"]);
        if self.secure {
            command.arg("--client-cert-auth");
            for (flag, name) in [
                ("--trusted-ca-file", "ca.crt"),
                ("--cert-file", "server.crt"),
                ("--key-file", "server.key"),
            ] {
                command.arg(flag).arg(self.file(name));
            }
        }
        let log = fs::File::create(self.file(&format!("m{at}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run etcd; scripts/install-needs test installs it")?;
        self.members[at].process = Some(child);
        Ok(())
    }

    /// Kills a member as `kill -9` does.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// What `--store` is told of it.
    pub fn store(&self) -> String {
        let urls: Vec<&str> = self.members.iter().map(|one| &*one.client).collect();
        format!("etcd={}", urls.join(","))
    }

    /// A file beside the members' data: `ca.crt`, `client.crt`, `client.key` of a secure one.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The flags for it.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--store".to_owned(), self.store()];
        if self.secure {
            for (flag, name) in [
                ("--etcd-cafile", "ca.crt"),
                ("--etcd-certfile", "client.crt"),
                ("--etcd-keyfile", "client.key"),
            ] {
                flags.push(flag.to_owned());
                flags.push(self.file(name).display().to_string());
            }
        }
        flags
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            if let Err(error) = self.kill(at) {
                eprintln!("a member of etcd could not be ended: {error:#}");
            }
        }
    }
}

/// A CA, and what it signs: the members' certificate, and a client's.
fn certificates(dir: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca.crt"), ca.pem())?;
    for (name, sans) in [
        ("server", vec!["127.0.0.1".to_owned()]),
        ("client", Vec::new()),
    ] {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(sans)?.signed_by(&key, &ca)?;
        fs::write(dir.join(format!("{name}.crt")), certificate.pem())?;
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}
