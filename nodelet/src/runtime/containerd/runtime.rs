//! [`Runtime`] by containerd: every call, by the part that does it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;

use super::config::Config;
use super::{Containerd, blocking, host};
use crate::runtime::{
    Container, ContainerId, ContainerSpec, DiskUsage, ExecOutput, ExecSpec, Images, Resources,
    Result, Runtime, RuntimeEvent, RuntimeInfo, Sandbox, SandboxSpec, Stats, Streams, users,
};

#[async_trait]
impl Runtime for Containerd {
    async fn info(&self) -> Result<RuntimeInfo> {
        let Config {
            address,
            oci_runtime,
            ..
        } = &self.shared.config;
        // A private daemon's content is beside its socket, the machine's in its usual place.
        let private = address
            .parent()
            .map(|dir| dir.join("root"))
            .filter(|dir| dir.is_dir());
        Ok(RuntimeInfo {
            name: "containerd".to_owned(),
            version: self.shared.client.version().await?,
            oci_runtime: oci_runtime.clone(),
            handlers: host::oci_runtimes(),
            user_namespaces: users::missing().is_none(),
            cgroup_v2: self.shared.cgroups.is_v2(),
            image_dir: private.unwrap_or_else(|| Path::new("/var/lib/containerd").into()),
        })
    }

    async fn ready(&self) -> Result<()> {
        self.shared.client.version().await.map(drop)
    }

    fn has_handler(&self, handler: &str) -> bool {
        handler == self.shared.config.oci_runtime || host::is_program(handler)
    }

    async fn create_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        self.shared.create_sandbox(spec).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        let shared = Arc::clone(&self.shared);
        blocking("listing sandboxes", move || shared.sandboxes.list()).await
    }

    async fn update_sandbox(&self, pod_uid: &str, resources: &Resources) -> Result<()> {
        let mut sandbox = self.shared.sandbox(pod_uid)?;
        let group = self.shared.pod_group(&sandbox.spec);
        self.shared.cgroups.apply(&group, resources)?;
        sandbox.spec.resources = resources.clone();
        self.shared.sandboxes.record(&sandbox)
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<()> {
        self.shared.remove_sandbox(pod_uid).await
    }

    async fn prepare_container(&self, pod_uid: &str, id: &ContainerId, image: &str) -> Result<()> {
        self.shared.prepare_layer(pod_uid, id, image).await
    }

    async fn discard_prepared(&self, pod_uid: &str) -> Result<()> {
        self.shared.drop_layers(pod_uid).await
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        self.shared.create(spec).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.start(id).await
    }

    async fn signal_container(&self, id: &ContainerId, signal: i32) -> Result<()> {
        self.shared.signal(id, signal).await
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        self.shared.remove(id).await
    }

    async fn containers(&self) -> Result<Vec<Container>> {
        self.shared.list().await
    }

    async fn container(&self, id: &ContainerId) -> Result<Container> {
        self.shared.get(id).await
    }

    async fn update_container(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        self.shared.update(id, resources).await
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.shared.events.subscribe()
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec, streams: Streams) -> Result<i32> {
        self.shared.exec(id, spec, streams).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: &[String],
        timeout: Duration,
    ) -> Result<ExecOutput> {
        self.shared.exec_sync(id, command, timeout).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Option<i32>> {
        self.shared.attach(id, streams).await
    }

    async fn container_stats(&self, id: &ContainerId) -> Result<Stats> {
        let record = self.shared.record(id)?;
        self.shared.cgroups.stats(&record.cgroup)
    }

    async fn sandbox_stats(&self, pod_uid: &str) -> Result<Stats> {
        let sandbox = self.shared.sandbox(pod_uid)?;
        self.shared
            .cgroups
            .stats(&self.shared.pod_group(&sandbox.spec))
    }

    async fn refused_forks(&self, pod_uid: &str) -> Result<u64> {
        let sandbox = self.shared.sandbox(pod_uid)?;
        let group = self.shared.pod_group(&sandbox.spec);
        Ok(self.shared.cgroups.refused_forks(&group))
    }

    async fn writable_usage(&self, id: &ContainerId) -> Result<DiskUsage> {
        self.shared.writable_usage(id).await
    }

    async fn flush_log(&self, id: &ContainerId) -> Result<()> {
        self.shared.logs.flush(&id.0).await
    }

    fn images(&self) -> Arc<dyn Images> {
        Arc::clone(&self.images) as Arc<dyn Images>
    }
}
