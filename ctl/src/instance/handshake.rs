//! How a detached instance tells the command that started it how far it is: JSON lines over an
//! inherited pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde::{Deserialize, Serialize};

use super::State;

/// The hidden environment variable that names the pipe's descriptor.
pub const READY_FD: &str = "PEAPOD_READY_FD";

/// One line from the instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    Step(String),
    Ready(Box<State>),
    Failed(String),
}

/// The instance's end.
pub struct Reporter {
    pipe: Option<File>,
}

impl Reporter {
    /// Reports to the pipe that the environment names, or nowhere.
    pub fn from_env() -> Self {
        let fd = std::env::var(READY_FD)
            .ok()
            .and_then(|fd| fd.parse::<RawFd>().ok());
        // SAFETY: the variable is set only by `up`, which hands over this descriptor and nothing
        // else refers to it in this process.
        let pipe = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        pipe.map_or(Self { pipe: None }, Self::to)
    }

    /// Reports to a pipe, which no child of this process inherits: one that outlives it (containerd, the
    /// shim) would keep the other end waiting for an instance that is no more.
    fn to(pipe: OwnedFd) -> Self {
        if let Err(errno) = fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::warn!(%errno, "children will hold the pipe to the command that started us");
        }
        Self {
            pipe: Some(File::from(pipe)),
        }
    }

    /// Says what is being done now.
    pub fn step(&mut self, step: &str) {
        tracing::info!(step, "starting");
        self.send(&Line::Step(step.to_owned()));
    }

    /// Says that the cluster is ready; the other end stops listening.
    pub fn ready(&mut self, state: &State) {
        self.send(&Line::Ready(Box::new(state.clone())));
        self.pipe = None;
    }

    /// Says why the cluster cannot start.
    pub fn failed(&mut self, sentence: &str) {
        self.send(&Line::Failed(sentence.to_owned()));
        self.pipe = None;
    }

    fn send(&mut self, line: &Line) {
        let Some(pipe) = &mut self.pipe else { return };
        let text = serde_json::to_string(line).unwrap_or_default();
        if writeln!(pipe, "{text}").is_err() {
            // The command that started us was interrupted; the cluster starts all the same.
            self.pipe = None;
        }
    }
}

/// Follows an instance until it is ready, calling `step` as it goes.
pub fn follow(pipe: OwnedFd, mut step: impl FnMut(&str)) -> Result<State> {
    for line in BufReader::new(File::from(pipe)).lines() {
        let line = line.context("cannot read from the starting instance")?;
        match serde_json::from_str(&line).context("cannot read from the starting instance")? {
            Line::Step(text) => step(&text),
            Line::Ready(state) => return Ok(*state),
            Line::Failed(sentence) => bail!("{sentence}"),
        }
    }
    bail!("the instance ended before it was ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_instance_is_noticed_though_its_children_live() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let mut reporter = Reporter::to(writer);
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        reporter.step("starting something");
        drop(reporter);
        let mut steps = Vec::new();
        let outcome = follow(reader, |step| steps.push(step.to_owned()));
        let lives = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(lives, "the child must outlive the pipe");
        assert_eq!(steps, ["starting something"]);
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "the instance ended before it was ready");
    }
}
