//! The handle of the server's process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::client::Target;
use crate::cpu;

/// How the allocator of `peapod` is set.
const ALLOCATION: &str = "narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0";

/// A server in a process of its own, with a state of its own; both end with the handle.
pub struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    target: Target,
    _dir: TempDir,
}

// === impl Server ===

impl Server {
    /// Starts one and waits until it listens.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .arg(dir.path())
            .env("_RJEM_MALLOC_CONF", ALLOCATION)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the server's process")?;
        let input = child.stdin.take().context("the child has no input")?;
        let output = child.stdout.take().context("the child has no output")?;
        let mut output = BufReader::new(output);
        let kubeconfig = line(&mut output)?;
        Ok(Self {
            child,
            input,
            output,
            target: Target::of_kubeconfig(&kubeconfig)?,
            _dir: dir,
        })
    }

    /// Where and as whom it is asked.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The CPU time that it has taken so far.
    pub fn cpu(&mut self) -> anyhow::Result<Duration> {
        self.ask("cpu")
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        cpu::resident(self.child.id())
    }

    /// Starts its scheduler, and waits until that has bound so many pods. Gives the CPU time so
    /// far.
    pub fn schedule(&mut self, pods: usize) -> anyhow::Result<Duration> {
        self.ask(&format!("schedule {pods}"))
    }

    fn ask(&mut self, command: &str) -> anyhow::Result<Duration> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let micros = line(&mut self.output)?.parse();
        Ok(Duration::from_micros(micros.context("no number")?))
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        bail!("the server ended; what it said is above");
    }
    Ok(line.trim().to_owned())
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
