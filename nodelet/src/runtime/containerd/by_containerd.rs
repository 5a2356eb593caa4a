//! Tasks of containerd, which its runc shim runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use containerd_client::services::v1::container::Runtime as RuntimeOption;
use containerd_client::services::v1::{
    CloseIoRequest, Container as ContainerdContainer, CreateContainerRequest, CreateTaskRequest,
    DeleteContainerRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest,
    GetRequest, KillRequest, ListTasksRequest, ResizePtyRequest, StartRequest, UpdateTaskRequest,
    WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status};
use jiff::Timestamp;
use tokio::time::timeout;
use tonic::Code;

use super::client::{Client, SNAPSHOTTER};
use super::left_commands::Ends;
use super::state::{Record, RootfsMount, State};
use super::tasks::{ExecRequest, Made, Running, Task, TaskState, Tasks};
use super::{Shared, options};
use crate::runtime::spec::{self, Host};
use crate::runtime::{ContainerId, Error, Resources, Result, TerminalSize};

const SIGKILL: i32 = 9;
/// How long a command that was killed may take to end.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// Label of our containers in containerd: UID of the pod.
const POD_UID: &str = "peapod.dev/pod-uid";
/// Label of our containers in containerd: name in the pod.
const NAME: &str = "peapod.dev/container";

/// containerd's tasks.
pub(super) struct ByContainerd {
    client: Client,
    host: Host,
}

// === impl ByContainerd ===

impl ByContainerd {
    /// Of our namespace.
    pub(super) fn new(client: Client, host: Host) -> Self {
        Self { client, host }
    }
}

#[async_trait]
impl Tasks for ByContainerd {
    async fn prepare(&self, id: &ContainerId, made: &Made<'_>) -> Result<()> {
        let spec = &made.record.spec;
        let owner = made.record.ids.map_or(0, |_| made.record.owner());
        let labels = HashMap::from([
            (POD_UID.to_owned(), spec.pod_uid.clone()),
            (NAME.to_owned(), spec.name.clone()),
        ]);
        let container = ContainerdContainer {
            id: id.0.clone(),
            labels,
            image: made.image_id.to_owned(),
            runtime: Some(RuntimeOption {
                name: options::SHIM.to_owned(),
                options: Some(options::shim_options(made.oci_runtime, owner)),
            }),
            spec: Some(options::spec(&made.oci)?),
            snapshotter: SNAPSHOTTER.to_owned(),
            snapshot_key: id.0.clone(),
            ..ContainerdContainer::default()
        };
        let what = format!("making container {}", spec.name);
        let request = CreateContainerRequest {
            container: Some(container),
        };
        let mut containers = self.client.containers();
        let created = containers.create(request.clone());
        if self.client.call_create(&what, created).await?.is_none() {
            // Of an attempt that was not completed, perhaps with another specification.
            let stale = DeleteContainerRequest { id: id.0.clone() };
            self.client
                .call_gone_ok(&what, containers.delete(stale))
                .await?;
            self.client.call(&what, containers.create(request)).await?;
        }
        Ok(())
    }

    async fn start(&self, id: &ContainerId, state: &State, record: &Record) -> Result<Timestamp> {
        let what = format!("starting container {}", record.spec.name);
        let mut tasks = self.client.tasks();
        let request = create_request(id, state, record);
        // A task that is there was made by an agent that did not come to start it.
        self.client
            .call_create(&what, tasks.create(request))
            .await?;
        let request = StartRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let now = Timestamp::now();
        match self.client.answer(&what, tasks.start(request)).await? {
            Ok(_) => Ok(now),
            Err(status) if is_running_already(&status) => Ok(now),
            Err(status) => Err(self.client.error(&what, &status)),
        }
    }

    async fn find(&self, id: &ContainerId) -> Result<Option<Task>> {
        let request = GetRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let what = format!("looking at container {id}");
        let reply = self
            .client
            .call_find(&what, self.client.tasks().get(request))
            .await?;
        Ok(reply.and_then(|reply| reply.process).map(|process| Task {
            id: id.0.clone(),
            ..plain(process)
        }))
    }

    async fn list(&self) -> Result<Vec<Task>> {
        let request = ListTasksRequest {
            filter: String::new(),
        };
        let listed = self
            .client
            .call("listing tasks", self.client.tasks().list(request))
            .await?;
        Ok(listed.tasks.into_iter().map(plain).collect())
    }

    async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let what = format!("signalling container {id}");
        let number =
            u32::try_from(signal).map_err(|_| Error::Invalid(format!("{signal} is no signal")))?;
        let request = KillRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
            signal: number,
            all: signal == SIGKILL,
        };
        let mut tasks = self.client.tasks();
        match self.client.answer(&what, tasks.kill(request)).await? {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(self.client.error(&what, &status)),
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<()> {
        let request = WaitRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        match self.client.tasks().wait(request).await {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(self.client.error("waiting for a killed container", &status)),
        }
    }

    async fn update(&self, id: &ContainerId, _: &State, resources: &Resources) -> Result<()> {
        let what = format!("updating container {id}");
        let limits = spec::resources(resources, &self.host);
        let request = UpdateTaskRequest {
            container_id: id.0.clone(),
            resources: Some(options::resources(&limits)?),
            ..UpdateTaskRequest::default()
        };
        self.client
            .call(&what, self.client.tasks().update(request))
            .await
    }

    /// Waits for the shim to pass on the last output.
    async fn delete(&self, id: &ContainerId) -> Result<()> {
        let request = DeleteTaskRequest {
            container_id: id.0.clone(),
        };
        let what = format!("deleting the task of container {id}");
        let mut tasks = self.client.tasks();
        self.client
            .call_gone_ok(&what, tasks.delete(request))
            .await
            .map(drop)
    }

    async fn close_stdin(&self, id: &ContainerId) {
        close_stdin(&self.client, id, "").await;
    }

    async fn resize(&self, id: &ContainerId, size: TerminalSize) {
        resize(&self.client, id, "", size).await;
    }

    async fn exec(
        &self,
        shared: &Arc<Shared>,
        id: &ContainerId,
        request: ExecRequest,
    ) -> Result<Box<dyn Running>> {
        let ExecRequest {
            exec_id,
            dir,
            process,
            tty,
            stdin,
            ..
        } = request;
        let what = format!("running a command in container {id}");
        let fifo = |wanted: bool, name: &str| match wanted {
            true => dir.join(name).display().to_string(),
            false => String::new(),
        };
        let exec = ExecProcessRequest {
            container_id: id.0.clone(),
            exec_id: exec_id.clone(),
            stdin: fifo(stdin, "stdin"),
            stdout: fifo(true, "stdout"),
            stderr: fifo(!tty, "stderr"),
            terminal: tty,
            spec: Some(options::process(&process)?),
        };
        let mut tasks = self.client.tasks();
        self.client.call(&what, tasks.exec(exec)).await?;
        let running = Command {
            client: self.client.clone(),
            shared: Arc::clone(shared),
            id: id.clone(),
            exec_id: exec_id.clone(),
            dir,
        };
        let request = StartRequest {
            container_id: id.0.clone(),
            exec_id,
        };
        self.client.call(&what, tasks.start(request)).await?;
        Ok(Box::new(running))
    }
}

/// A command that containerd has: it must be deleted.
struct Command {
    client: Client,
    shared: Arc<Shared>,
    id: ContainerId,
    exec_id: String,
    dir: PathBuf,
}

// === impl Command ===

#[async_trait]
impl Running for Command {
    async fn wait(&self) -> Result<i32> {
        let request = WaitRequest {
            container_id: self.id.0.clone(),
            exec_id: self.exec_id.clone(),
        };
        match self.client.tasks().wait(request).await {
            Ok(reply) => Ok(reply.into_inner().exit_status as i32),
            Err(status) => Err(self.client.error("waiting for a command", &status)),
        }
    }

    async fn close_stdin(&self) {
        close_stdin(&self.client, &self.id, &self.exec_id).await;
    }

    async fn resize(&self, size: TerminalSize) {
        resize(&self.client, &self.id, &self.exec_id, size).await;
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let (client, id, exec_id) = (self.client.clone(), self.id.clone(), self.exec_id.clone());
        // Whoever used the command may have let go of them.
        let ends = Ends::open(&self.dir);
        let work = async move {
            delete_process(&client, id.0, exec_id).await;
            drop(ends);
        };
        self.shared.chore(work);
    }
}

/// Kills the process if it runs, and makes containerd forget it. If that fails, the end of the
/// container does it.
pub(super) async fn delete_process(client: &Client, container_id: String, exec_id: String) {
    let mut tasks = client.tasks();
    let request = DeleteProcessRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
    };
    if tasks.delete_process(request.clone()).await.is_ok() {
        return;
    }
    let kill = KillRequest {
        container_id: container_id.clone(),
        exec_id: exec_id.clone(),
        signal: 9,
        all: false,
    };
    let wait = WaitRequest {
        container_id,
        exec_id,
    };
    if tasks.kill(kill).await.is_ok() && timeout(KILL_GRACE, tasks.wait(wait)).await.is_ok() {
        let _ = tasks.delete_process(request).await;
    }
}

async fn close_stdin(client: &Client, id: &ContainerId, exec_id: &str) {
    let request = CloseIoRequest {
        container_id: id.0.clone(),
        exec_id: exec_id.to_owned(),
        stdin: true,
    };
    // If the process has ended there is nothing to close.
    let _ = client.tasks().close_io(request).await;
}

async fn resize(client: &Client, id: &ContainerId, exec_id: &str, size: TerminalSize) {
    let request = ResizePtyRequest {
        container_id: id.0.clone(),
        exec_id: exec_id.to_owned(),
        width: size.width.into(),
        height: size.height.into(),
    };
    // A process that has ended has no terminal.
    let _ = client.tasks().resize_pty(request).await;
}

fn create_request(id: &ContainerId, state: &State, record: &Record) -> CreateTaskRequest {
    let fifo = |wanted: bool, name: &str| {
        if wanted {
            state.fifo(name)
        } else {
            String::new()
        }
    };
    let mount = |mount: &RootfsMount| Mount {
        r#type: mount.kind.clone(),
        source: mount.source.clone(),
        target: String::new(),
        options: mount.options.clone(),
    };
    CreateTaskRequest {
        container_id: id.0.clone(),
        rootfs: record.rootfs.iter().map(mount).collect(),
        stdin: fifo(record.spec.stdin, "stdin"),
        stdout: fifo(true, "stdout"),
        stderr: fifo(!record.spec.tty, "stderr"),
        terminal: record.spec.tty,
        ..CreateTaskRequest::default()
    }
}

/// A task as containerd tells it.
fn plain(process: Process) -> Task {
    let state = match process.status() {
        Status::Stopped => TaskState::Stopped {
            code: Some(process.exit_status as i32),
            at: process
                .exited_at
                .as_ref()
                .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
                .filter(|at| *at > Timestamp::UNIX_EPOCH),
        },
        Status::Running | Status::Paused | Status::Pausing => TaskState::Running,
        Status::Created => TaskState::Created,
        // A shim on a busy machine has 2 s to answer containerd.
        Status::Unknown => TaskState::Unknown,
    };
    // The ID of a listed task is its container's; `container_id` stays empty.
    Task {
        id: process.id,
        pid: process.pid,
        state,
    }
}

/// The process has ended, or there is none.
fn is_gone(status: &tonic::Status) -> bool {
    status.code() == Code::NotFound || status.message().contains("process already finished")
}

/// An agent before us has started it.
fn is_running_already(status: &tonic::Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("running")
}
