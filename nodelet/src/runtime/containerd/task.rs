//! The life of a container's process: started, signalled, settled when it has ended, removed.
//!
//! To settle is to write down how it ended before containerd forgets it: the exit code waits in
//! the shim until the task is deleted, so a crash at any point settles again.

use std::sync::Arc;
use std::time::Duration;

use containerd_client::services::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, StartRequest, UpdateTaskRequest,
    WaitRequest,
};
use containerd_client::types::Mount;
use containerd_client::types::v1::{Process, Status};
use jiff::Timestamp;
use tonic::Code;

use super::container::{exit_of, lost};
use super::state::{Record, State};
use super::{Shared, options};
use crate::runtime::{ContainerId, Error, Exit, ExitReason, Resources, Result, RuntimeEvent, spec};

/// A process that was killed and has not ended after this time is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

const SIGKILL: i32 = 9;

impl Shared {
    /// Starts a container's process; the second time nothing happens.
    pub(super) async fn start(self: &Arc<Self>, id: &ContainerId) -> Result<()> {
        let lock = self.lock(id).await;
        let state = self.states.of(id);
        let record = self.record(id)?;
        if state.exit()?.is_some() || state.started()?.is_some() {
            return Ok(());
        }
        self.logs.open(&state.log_spec(&record)).await?;
        let started = match self.launch(id, &state, &record).await {
            Ok(started) => started,
            Err(error @ (Error::Unavailable(_) | Error::Timeout { .. })) => return Err(error),
            Err(error) => {
                self.record_start_failure(id, &state, &error).await?;
                return Err(error);
            }
        };
        state.set_started(started)?;
        drop(lock);
        let pod_uid = record.spec.pod_uid;
        self.announce(RuntimeEvent::Started {
            id: id.clone(),
            pod_uid,
        });
        // It may have ended before we noted that it started.
        if self
            .find_task(id)
            .await?
            .is_some_and(|task| task.status() == Status::Stopped)
        {
            self.settle(id).await?;
        }
        Ok(())
    }

    /// Gives a time just before the process began: it must not seem to have ended before it started.
    async fn launch(&self, id: &ContainerId, state: &State, record: &Record) -> Result<Timestamp> {
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

    async fn record_start_failure(
        &self,
        id: &ContainerId,
        state: &State,
        error: &Error,
    ) -> Result<()> {
        let exit = Exit {
            code: 128,
            started_at: None,
            finished_at: Timestamp::now(),
            reason: ExitReason::StartError,
            message: error.to_string(),
        };
        state.set_exit(&exit)?;
        self.delete_task(id).await?;
        self.logs.close(&id.0, state.dir()).await
    }

    /// Signals the first process, or with `SIGKILL` all.
    pub(super) async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let what = format!("signalling container {id}");
        let signal_number =
            u32::try_from(signal).map_err(|_| Error::Invalid(format!("{signal} is no signal")))?;
        let request = KillRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
            signal: signal_number,
            all: signal == SIGKILL,
        };
        let mut tasks = self.client.tasks();
        match self.client.answer(&what, tasks.kill(request)).await? {
            Ok(_) => Ok(()),
            Err(status) if is_gone(&status) => Ok(()),
            Err(status) => Err(self.client.error(&what, &status)),
        }
    }

    /// Changes the limits of a running container.
    pub(super) async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
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

    /// Writes down how a container ended, completes its log, and announces it. Does nothing when
    /// it runs, or was settled.
    pub(super) async fn settle(&self, id: &ContainerId) -> Result<()> {
        let _lock = self.lock(id).await;
        self.settle_locked(id).await
    }

    async fn settle_locked(&self, id: &ContainerId) -> Result<()> {
        let state = self.states.of(id);
        let Some(record) = state.record()? else {
            return Ok(());
        };
        let task = self.find_task(id).await?;
        let settled = state.exit()?;
        let exit = match (&settled, &task) {
            (Some(_), None) if !self.untold.lock().contains(id) => return Ok(()),
            (Some(exit), _) => exit.clone(),
            (None, Some(task)) if task.status() == Status::Stopped => {
                exit_of(task, state.started()?, self.reason(id, &record, task))
            }
            (None, Some(_)) => return Ok(()),
            (None, None) => match state.started()? {
                Some(started) => lost(Some(started)),
                None => return Ok(()),
            },
        };
        if settled.is_none() {
            // Until it is announced, however often what follows fails.
            self.untold.lock().insert(id.clone());
        }
        state.set_exit(&exit)?;
        // Deleting waits for the shim to pass on the last output; then the log can be closed.
        self.delete_task(id).await?;
        if let Err(error) = self.logs.close(&id.0, state.dir()).await {
            tracing::warn!(container.id = %id, %error, "the end of its log may be missing");
        }
        self.oom.lock().remove(id);
        if self.untold.lock().remove(id) {
            let pod_uid = record.spec.pod_uid;
            self.announce(RuntimeEvent::Exited {
                id: id.clone(),
                pod_uid,
                exit,
            });
        }
        Ok(())
    }

    /// Killed for memory: by the event, or by the count in the cgroup, which is there until the
    /// task is deleted; the two may come in any order.
    fn reason(&self, id: &ContainerId, record: &Record, task: &Process) -> ExitReason {
        let killed = task.exit_status == 128 + SIGKILL as u32;
        let oom = || self.oom.lock().contains(id) || self.cgroups.oom_kills(&record.cgroup) > 0;
        if killed && oom() {
            ExitReason::OomKilled
        } else {
            ExitReason::Exited
        }
    }

    /// Removes a container, whatever it does.
    pub(super) async fn remove(&self, id: &ContainerId) -> Result<()> {
        let lock = self.lock(id).await;
        if self
            .find_task(id)
            .await?
            .is_some_and(|task| task.status() != Status::Stopped)
        {
            self.kill_and_wait(id).await?;
        }
        self.settle_locked(id).await?;
        self.delete_task(id).await?;
        self.delete_container(id).await?;
        let state = self.states.of(id);
        if state.dir().exists() {
            self.logs.close(&id.0, state.dir()).await?;
        }
        state.remove()?;
        self.oom.lock().remove(id);
        self.untold.lock().remove(id);
        drop(lock);
        self.locks.lock().remove(id);
        Ok(())
    }

    async fn kill_and_wait(&self, id: &ContainerId) -> Result<()> {
        self.signal(id, SIGKILL).await?;
        let request = WaitRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let mut tasks = self.client.tasks();
        match tokio::time::timeout(KILL_LIMIT, tasks.wait(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if is_gone(&status) => Ok(()),
            Ok(Err(status)) => Err(self.client.error("waiting for a killed container", &status)),
            Err(_) => Err(Error::Timeout {
                what: format!("killing container {id}"),
                limit: KILL_LIMIT,
            }),
        }
    }

    /// The task of a container, if it has one.
    pub(super) async fn find_task(&self, id: &ContainerId) -> Result<Option<Process>> {
        let request = GetRequest {
            container_id: id.0.clone(),
            exec_id: String::new(),
        };
        let what = format!("looking at container {id}");
        let reply = self
            .client
            .call_find(&what, self.client.tasks().get(request))
            .await?;
        Ok(reply.and_then(|reply| reply.process))
    }

    async fn delete_task(&self, id: &ContainerId) -> Result<()> {
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
}

fn create_request(id: &ContainerId, state: &State, record: &Record) -> CreateTaskRequest {
    let fifo = |wanted: bool, name: &str| {
        if wanted {
            state.fifo(name)
        } else {
            String::new()
        }
    };
    let mount = |mount: &super::state::RootfsMount| Mount {
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

/// The process has ended, or there is none.
fn is_gone(status: &tonic::Status) -> bool {
    status.code() == Code::NotFound || status.message().contains("process already finished")
}

/// An agent before us has started it.
fn is_running_already(status: &tonic::Status) -> bool {
    status.code() == Code::FailedPrecondition && status.message().contains("running")
}
