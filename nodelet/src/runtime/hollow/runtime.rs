//! Sandboxes and containers in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::{Hollow, find};
use crate::runtime::{
    Container, ContainerId, ContainerSpec, ContainerState, DiskUsage, Error, ExecOutput, ExecSpec,
    Exit, ExitReason, Images, NamespaceMode, Resources, Result, Runtime, RuntimeEvent, RuntimeInfo,
    Sandbox, SandboxSpec, Stats, Streams,
};

#[async_trait]
impl Runtime for Hollow {
    async fn info(&self) -> Result<RuntimeInfo> {
        Ok(RuntimeInfo {
            name: "hollow".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            oci_runtime: "none".into(),
            handlers: Vec::new(),
            user_namespaces: false,
            cgroup_v2: true,
            image_dir: PathBuf::from("/"),
        })
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        let created_at = (self.clock)();
        let netns = (spec.network != NamespaceMode::Host)
            .then(|| PathBuf::from(format!("/hollow/ns/{}/net", spec.pod.uid)));
        let mut state = self.state.lock();
        let sandbox = state
            .sandboxes
            .entry(spec.pod.uid.clone())
            .or_insert_with(|| Sandbox {
                spec: spec.clone(),
                created_at,
                netns,
                ids: None,
                reaper: None,
                alive: true,
            });
        Ok(sandbox.clone())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        Ok(self.state.lock().sandboxes.values().cloned().collect())
    }

    async fn update_sandbox(&self, pod_uid: &str, resources: &Resources) -> Result<()> {
        let mut state = self.state.lock();
        let sandbox = state
            .sandboxes
            .get_mut(pod_uid)
            .ok_or_else(|| Error::NotFound {
                kind: "sandbox",
                id: pod_uid.to_owned(),
            })?;
        sandbox.spec.resources = resources.clone();
        Ok(())
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<()> {
        let mut state = self.state.lock();
        state
            .containers
            .retain(|_, container| container.pod_uid != pod_uid);
        state.sandboxes.remove(pod_uid);
        Ok(())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        let id = ContainerId::derive(&spec.pod_uid, &spec.name, spec.attempt);
        let created_at = (self.clock)();
        let mut state = self.state.lock();
        if !state.sandboxes.contains_key(&spec.pod_uid) {
            return Err(Error::NotFound {
                kind: "sandbox",
                id: spec.pod_uid.clone(),
            });
        }
        state
            .containers
            .entry(id.clone())
            .or_insert_with(|| Container {
                id: id.clone(),
                pod_uid: spec.pod_uid.clone(),
                name: spec.name.clone(),
                attempt: spec.attempt,
                image: spec.image_name.clone(),
                image_id: spec.image.clone(),
                image_ref: spec.image.clone(),
                created_at,
                log_path: spec.log_path.clone(),
                labels: spec.labels.clone(),
                state: ContainerState::Created,
            });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let now = (self.clock)();
        let mut state = self.state.lock();
        let name = find(&mut state, id)?.name.clone();
        let failure = state.failing_starts.get(&name).cloned();
        let container = find(&mut state, id)?;
        if container.state != ContainerState::Created {
            return Ok(());
        }
        if let Some(reason) = failure {
            container.state = ContainerState::Exited(Exit {
                code: 128,
                started_at: None,
                finished_at: now,
                reason: ExitReason::StartError,
                message: reason.clone(),
            });
            return Err(Error::Failed {
                what: format!("starting container {name}"),
                reason,
            });
        }
        container.state = ContainerState::Running {
            started_at: now,
            pid: 1,
        };
        let pod_uid = container.pod_uid.clone();
        drop(state);
        self.announce(RuntimeEvent::Started {
            id: id.clone(),
            pod_uid,
        });
        Ok(())
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.end(id, 128 + signal, ExitReason::Exited)
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.state.lock().containers.remove(id);
        Ok(())
    }

    async fn containers(&self) -> Result<Vec<Container>> {
        Ok(self.state.lock().containers.values().cloned().collect())
    }

    async fn container(&self, id: &ContainerId) -> Result<Container> {
        find(&mut self.state.lock(), id).cloned()
    }

    async fn update_container(&self, id: &ContainerId, _resources: &Resources) -> Result<()> {
        self.require_running(id, "an update of its limits")
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    async fn exec(&self, id: &ContainerId, _spec: &ExecSpec, _streams: Streams) -> Result<i32> {
        self.require_running(id, "exec").map(|()| 0)
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        _command: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutput> {
        self.require_running(id, "exec")
            .map(|()| ExecOutput::default())
    }

    async fn attach(&self, id: &ContainerId, _streams: Streams) -> Result<Option<i32>> {
        self.require_running(id, "attach").map(|()| None)
    }

    async fn container_stats(&self, id: &ContainerId) -> Result<Stats> {
        find(&mut self.state.lock(), id).map(|_| Stats::default())
    }

    async fn sandbox_stats(&self, _pod_uid: &str) -> Result<Stats> {
        Ok(Stats::default())
    }

    async fn refused_forks(&self, _pod_uid: &str) -> Result<u64> {
        Ok(0)
    }

    async fn writable_usage(&self, _id: &ContainerId) -> Result<DiskUsage> {
        Ok(DiskUsage::default())
    }

    async fn flush_log(&self, _id: &ContainerId) -> Result<()> {
        Ok(())
    }

    fn images(&self) -> Arc<dyn Images> {
        Arc::new(self.clone())
    }
}
