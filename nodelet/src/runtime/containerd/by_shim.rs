//! Tasks of Peapod's own shim ([`peapod_shim`]).

use std::fs;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use peapod_shim::client::{self, ExecEnd, ExecInputs, REPLY_LIMIT, Shim};
use peapod_shim::protocol::{self, ExecInput, ExecSpec, Request, Size, TaskSpec};
use tokio::sync::{Mutex, Notify};

use super::Shared;
use super::state::{Record, State};
use super::tasks::{ExecRequest, Made, Running, Task, TaskState, Tasks};
use crate::runtime::spec::{self, Host};
use crate::runtime::{ContainerId, Error, Resources, Result, TerminalSize};

const SIGKILL: i32 = 9;

/// The specification, beside the container's other files.
const CONFIG: &str = "config.json";

/// The shim's tasks.
pub(super) struct ByShim {
    shim: Arc<Shim>,
    host: Host,
}

// === impl ByShim ===

impl ByShim {
    /// Of this shim.
    pub(super) fn new(shim: Arc<Shim>, host: Host) -> Self {
        Self { shim, host }
    }

    async fn order(&self, what: &str, request: Request) -> Result<()> {
        self.shim
            .order(&request)
            .await
            .map_err(|error| worded(what, error))
    }
}

#[async_trait]
impl Tasks for ByShim {
    async fn prepare(&self, id: &ContainerId, made: &Made<'_>) -> Result<()> {
        let mut oci = made.oci.clone();
        if let Some(root) = oci.root_mut() {
            root.set_path(self.shim.rootfs());
        }
        let path = made.state.dir().join(CONFIG);
        write(&path, &oci, || {
            format!("writing the specification of container {id}")
        })
    }

    async fn start(&self, id: &ContainerId, state: &State, record: &Record) -> Result<Timestamp> {
        let spec = task_spec(id, state, record);
        let now = Timestamp::now();
        let what = format!("starting container {}", record.spec.name);
        let started = self.shim.start(spec).await;
        started.map(|_| now).map_err(|error| worded(&what, error))
    }

    async fn find(&self, id: &ContainerId) -> Result<Option<Task>> {
        let what = format!("looking at container {id}");
        let found = self
            .shim
            .get(&id.0)
            .await
            .map_err(|error| worded(&what, error))?;
        Ok(found.map(plain))
    }

    async fn list(&self) -> Result<Vec<Task>> {
        let listed = self
            .shim
            .list()
            .await
            .map_err(|error| worded("listing containers", error))?;
        Ok(listed.into_iter().map(plain).collect())
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let request = Request::Signal {
            id: id.0.clone(),
            signal,
            all: signal == SIGKILL,
        };
        self.order(&format!("signalling container {id}"), request)
            .await
    }

    async fn wait(&self, id: &ContainerId) -> Result<()> {
        let what = format!("waiting for the end of container {id}");
        self.shim
            .wait(&id.0)
            .await
            .map(drop)
            .map_err(|error| worded(&what, error))
    }

    async fn update(&self, id: &ContainerId, state: &State, resources: &Resources) -> Result<()> {
        let what = || format!("updating container {id}");
        let limits = spec::resources(resources, &self.host);
        let file = state.dir().join("resources.json");
        write(&file, &limits, what)?;
        let request = Request::Update {
            id: id.0.clone(),
            file,
        };
        self.order(&what(), request).await
    }

    async fn delete(&self, id: &ContainerId) -> Result<()> {
        let what = format!("removing what is left of container {id}");
        self.order(&what, Request::Delete(id.0.clone())).await
    }

    async fn close_stdin(&self, id: &ContainerId) {
        let request = Request::CloseStdin(id.0.clone());
        if let Err(error) = self.order("closing standard input", request).await {
            tracing::debug!(container.id = %id, %error, "its standard input stays open");
        }
    }

    async fn resize(&self, id: &ContainerId, to: TerminalSize) {
        let request = Request::Resize {
            id: id.0.clone(),
            size: size(to),
        };
        if let Err(error) = self.order("changing a terminal", request).await {
            tracing::debug!(container.id = %id, %error, "its terminal keeps its size");
        }
    }

    async fn exec(
        &self,
        _: &Arc<Shared>,
        id: &ContainerId,
        request: ExecRequest,
    ) -> Result<Box<dyn Running>> {
        let ExecRequest {
            dir,
            process,
            tty,
            stdin,
            owner,
            ..
        } = request;
        let what = || format!("running a command in container {id}");
        write(&dir.join("process.json"), &process, what)?;
        let spec = ExecSpec {
            id: id.0.clone(),
            dir,
            tty,
            stdin,
            uid: owner,
        };
        let started = self.shim.exec(spec).await;
        let (inputs, end) = started.map_err(|error| worded(&what(), error))?;
        Ok(Box::new(Command {
            inputs: Mutex::new(inputs),
            end: Mutex::new(end),
            done: Notify::new(),
        }))
    }
}

/// A command; it ends with the connection.
struct Command {
    inputs: Mutex<ExecInputs>,
    end: Mutex<ExecEnd>,
    /// What was said has been done; who waits for the end hears it.
    done: Notify,
}

// === impl Command ===

impl Command {
    /// Says something, and waits until it has been done: what is typed afterwards comes after it.
    async fn say(&self, input: ExecInput) {
        let mut inputs = self.inputs.lock().await;
        inputs.say(&input).await;
        self.done.notified().await;
    }
}

#[async_trait]
impl Running for Command {
    async fn wait(&self) -> Result<i32> {
        let mut end = self.end.lock().await;
        loop {
            let next = end.next().await;
            match next.map_err(|error| worded("waiting for a command", error))? {
                Some(code) => return Ok(code),
                None => self.done.notify_one(),
            }
        }
    }

    async fn close_stdin(&self) {
        self.say(ExecInput::CloseStdin).await;
    }

    async fn resize(&self, to: TerminalSize) {
        self.say(ExecInput::Resize(size(to))).await;
    }
}

fn task_spec(id: &ContainerId, state: &State, record: &Record) -> TaskSpec {
    let mount = |mount: &super::state::RootfsMount| protocol::Mount {
        kind: mount.kind.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
    };
    TaskSpec {
        id: id.0.clone(),
        dir: state.dir().to_owned(),
        runtime: record.oci_runtime.clone(),
        rootfs: record.rootfs.iter().map(mount).collect(),
        tty: record.spec.tty,
        stdin: record.spec.stdin,
        uid: record.owner(),
        shares_pids: record.shares_pids,
    }
}

fn plain(task: protocol::Task) -> Task {
    let state = match task.exit {
        None => TaskState::Running,
        Some(exit) => TaskState::Stopped {
            code: exit.code,
            at: Some(exit.at),
        },
    };
    Task {
        id: task.id,
        pid: task.pid,
        state,
    }
}

fn size(size: TerminalSize) -> Size {
    Size {
        width: size.width,
        height: size.height,
    }
}

/// The shim's errors in our words.
pub(super) fn worded(what: &str, error: client::Error) -> Error {
    match error {
        client::Error::Unreachable(reason) => Error::Unavailable(reason),
        client::Error::Late => Error::Timeout {
            what: what.to_owned(),
            limit: REPLY_LIMIT,
        },
        client::Error::Failed(reason) => Error::Failed {
            what: what.to_owned(),
            reason,
        },
    }
}

fn write(path: &Path, document: &impl serde::Serialize, what: impl Fn() -> String) -> Result<()> {
    let text = serde_json::to_vec(document).map_err(std::io::Error::from);
    let written = text.and_then(|text| fs::write(path, text));
    written.map_err(|error| Error::Failed {
        what: what(),
        reason: format!("{}: {error}", path.display()),
    })
}
