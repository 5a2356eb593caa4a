//! Processes that the instance keeps running, each in a network namespace: the agents of a node,
//! a router. They end with it, however it ends; what they programmed stays.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::netns;

/// Between a second death in a row and the next start: first, and at most.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// Who ran this long was well, and is started again at once.
const WELL: Duration = Duration::from_secs(30);
/// How long a child may take to end before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A program to keep running.
#[derive(Clone, Debug)]
pub struct Keep {
    /// For the log.
    pub name: String,
    /// Arguments to this same binary.
    pub args: Vec<OsString>,
    /// The namespace that it runs in.
    pub netns: String,
    /// Where its output goes.
    pub log: PathBuf,
}

/// Runs a program until `shutdown`; it is started again whenever it ends.
pub async fn keep(what: Keep, shutdown: CancellationToken) -> Result<()> {
    let mut wait = AGAIN;
    loop {
        let started = Instant::now();
        let mut child = start(&what)?;
        let pid = child.id();
        tokio::select! {
            ended = child.wait() => {
                let ended = ended.with_context(|| format!("cannot wait for {}", what.name))?;
                tracing::warn!(
                    name = what.name, %ended, log = %what.log.display(),
                    "a process of this instance ended; starting it again"
                );
            }
            () = shutdown.cancelled() => {
                stop(&mut child, pid).await;
                return Ok(());
            }
        }
        if started.elapsed() >= WELL {
            wait = AGAIN;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
        wait = (wait * 2).min(AGAIN_MAX);
    }
}

async fn stop(child: &mut Child, pid: Option<u32>) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_LIMIT, child.wait())
        .await
        .is_err()
    {
        let _ = child.kill().await;
    }
}

fn start(what: &Keep) -> Result<Child> {
    let open = |path: &PathBuf| OpenOptions::new().create(true).append(true).open(path);
    let log = open(&what.log).with_context(|| format!("cannot open {}", what.log.display()))?;
    let path = netns::path(&what.netns);
    let namespace = File::open(&path).with_context(|| {
        format!(
            "cannot open the network namespace {}; run `peapod down`, then `peapod up`",
            path.display()
        )
    })?;
    let mut command = Command::new(std::env::current_exe().context("cannot find this binary")?);
    command
        .args(&what.args)
        .env_remove(crate::instance::handshake::READY_FD)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share a log")?)
        .stderr(log);
    let parent = std::process::id();
    let fd = namespace.as_raw_fd();
    // SAFETY: between fork and exec only async-signal-safe calls are made: setns, prctl, getppid.
    // `namespace` is open until the child has been started.
    unsafe {
        command.pre_exec(move || enter(fd, parent));
    }
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", what.name))?;
    Ok(child)
}

/// In the child: enters the namespace, and dies with its parent.
fn enter(namespace: i32, parent: u32) -> std::io::Result<()> {
    // SAFETY: plain system calls on values of this process.
    unsafe {
        if libc::setns(namespace, libc::CLONE_NEWNET) != 0
            || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0
        {
            return Err(std::io::Error::last_os_error());
        }
        // The parent may have died before it could be told of.
        if libc::getppid() as u32 != parent {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}
