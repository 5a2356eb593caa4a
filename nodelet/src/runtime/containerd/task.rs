//! The life of a container's process: started, signalled, settled when it has ended, removed.
//!
//! To settle is to write down how it ended before containerd forgets it: the exit code waits in
//! the shim until the task is deleted, so a crash at any point settles again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Shared;
use super::standing::standing;
use super::state::{Record, State};
use super::tasks::Tasks;
use crate::runtime::{
    ContainerId, ContainerState, Error, Exit, ExitReason, Resources, Result, RuntimeEvent,
};

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
        self.moves.begin();
        self.logs.open(&state.log_spec(&record)).await?;
        let tasks = self.tasks_of(&record);
        let started = match tasks.start(id, &state, &record).await {
            Ok(started) => started,
            Err(error @ (Error::Unavailable(_) | Error::Timeout { .. })) => return Err(error),
            Err(error) => {
                self.record_start_failure(id, &state, &record, &error)
                    .await?;
                return Err(error);
            }
        };
        state.set_started(started)?;
        drop(lock);
        self.hear_refusals(&record);
        let pod_uid = record.spec.pod_uid.clone();
        self.announce(RuntimeEvent::Started {
            id: id.clone(),
            pod_uid,
        });
        // It may have ended before we noted that it started.
        if tasks.find(id).await?.is_some_and(|task| task.has_ended()) {
            self.settle(id).await?;
        }
        Ok(())
    }

    async fn record_start_failure(
        &self,
        id: &ContainerId,
        state: &State,
        record: &Record,
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
        self.tasks_of(record).delete(id).await?;
        self.logs.close(&id.0, state.dir()).await
    }

    /// Signals the first process, or with `SIGKILL` all.
    pub(super) async fn signal(&self, id: &ContainerId, signal: i32) -> Result<()> {
        let record = self.record(id)?;
        self.tasks_of(&record).signal(id, signal).await
    }

    /// Changes the limits of a running container.
    pub(super) async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let record = self.record(id)?;
        let state = self.states.of(id);
        self.tasks_of(&record).update(id, &state, resources).await
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
        let tasks = self.tasks_of(&record);
        let task = tasks.find(id).await?;
        let settled = state.exit()?;
        let exit = match &settled {
            Some(_) if task.is_none() && !self.untold.lock().contains(id) => return Ok(()),
            Some(exit) => exit.clone(),
            None => {
                let oom = || self.killed_for_memory(id, &record);
                match standing(&state, task.as_ref(), oom)? {
                    ContainerState::Exited(exit) => exit,
                    ContainerState::Created | ContainerState::Running { .. } => return Ok(()),
                }
            }
        };
        if settled.is_none() {
            // Until it is announced, however often what follows fails.
            self.untold.lock().insert(id.clone());
            // The count goes with the container's group.
            self.tell_refusals(&record);
        }
        state.set_exit(&exit)?;
        // Deleting waits for the shim to pass on the last output; then the log can be closed.
        tasks.delete(id).await?;
        if let Err(error) = self.logs.close(&id.0, state.dir()).await {
            tracing::warn!(container.id = %id, %error, "the end of its log may be missing");
        }
        self.oom.lock().remove(id);
        if self.untold.lock().remove(id) {
            let pod_uid = record.spec.pod_uid.clone();
            self.announce(RuntimeEvent::Exited {
                id: id.clone(),
                pod_uid,
                exit,
            });
        }
        Ok(())
    }

    /// Whether the kernel has killed a process of a container for memory: by the event, or by the count in the
    /// cgroup, which is there until the task is deleted; the two may come in any order.
    pub(super) fn killed_for_memory(&self, id: &ContainerId, record: &Record) -> bool {
        self.oom.lock().contains(id) || self.cgroups.oom_kills(&record.cgroup) > 0
    }

    /// Removes a container, whatever it does.
    pub(super) async fn remove(&self, id: &ContainerId) -> Result<()> {
        let lock = self.lock(id).await;
        // Without a record it may be either's.
        let record = self.record(id).ok();
        for tasks in self.tasks_of_any(record.as_deref()) {
            if tasks.find(id).await?.is_some_and(|task| !task.has_ended()) {
                kill_and_wait(tasks, id).await?;
            }
        }
        self.settle_locked(id).await?;
        for tasks in self.tasks_of_any(record.as_deref()) {
            tasks.delete(id).await?;
        }
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
}

async fn kill_and_wait(tasks: &dyn Tasks, id: &ContainerId) -> Result<()> {
    tasks.signal(id, SIGKILL).await?;
    let late = || Error::Timeout {
        what: format!("killing container {id}"),
        limit: KILL_LIMIT,
    };
    tokio::time::timeout(KILL_LIMIT, tasks.wait(id))
        .await
        .map_err(|_| late())?
}
