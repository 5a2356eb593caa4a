//! A runtime without containers, for scale tests and simulation.
//!
//! Everything that is created exists only in memory. A container runs until it is signalled or
//! until the test ends it ([`Hollow::exit`]); every image can be pulled in no time unless the test
//! says otherwise ([`Hollow::fail_pull`]).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{
    Container, ContainerId, ContainerSpec, ContainerState, DiskUsage, Error, ExecOutput, ExecSpec,
    Exit, ExitReason, FsMount, Image, ImageError, ImageUsage, Images, NamespaceMode, Progress,
    ProgressEvent, PullRequest, Resources, Result, Runtime, RuntimeEvent, RuntimeInfo, Sandbox,
    SandboxSpec, Stats, Streams,
};

/// Events that a slow listener may fall behind by before it has to list again.
const EVENTS_MAX: usize = 4096;

/// The runtime that pretends.
#[derive(Clone)]
pub struct Hollow {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
    clock: fn() -> Timestamp,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<ContainerId, Container>,
    images: BTreeMap<String, Image>,
    failing_pulls: BTreeMap<String, ImageError>,
    failing_starts: BTreeMap<String, String>,
}

// === impl Hollow ===

impl Default for Hollow {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl Hollow {
    /// An empty node that takes its times from `clock`.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        Self {
            state: Arc::default(),
            events,
            clock,
        }
    }

    /// Ends a running container with this code, as if its process had exited.
    pub fn exit(&self, id: &ContainerId, code: i32) -> Result<()> {
        self.end(id, code, ExitReason::Exited)
    }

    /// Ends a running container as the kernel does when memory runs out.
    pub fn oom(&self, id: &ContainerId) -> Result<()> {
        self.end(id, 137, ExitReason::OomKilled)
    }

    /// Makes pulls of this reference fail from now on; with `None`, succeed again.
    pub fn fail_pull(&self, reference: &str, error: Option<ImageError>) {
        let mut state = self.state.lock();
        match error {
            Some(error) => state.failing_pulls.insert(reference.to_owned(), error),
            None => state.failing_pulls.remove(reference),
        };
    }

    /// Makes containers of this name fail to start, with this reason.
    pub fn fail_start(&self, container_name: &str, reason: &str) {
        self.state
            .lock()
            .failing_starts
            .insert(container_name.to_owned(), reason.to_owned());
    }

    /// Puts an image on the node.
    pub fn add_image(&self, reference: &str, image: Image) {
        self.state.lock().images.insert(reference.to_owned(), image);
    }

    fn end(&self, id: &ContainerId, code: i32, reason: ExitReason) -> Result<()> {
        let finished_at = (self.clock)();
        let mut state = self.state.lock();
        let container = find(&mut state, id)?;
        let ContainerState::Running { started_at, .. } = container.state else {
            return Ok(());
        };
        let exit = Exit {
            code,
            started_at: Some(started_at),
            finished_at,
            reason,
            message: String::new(),
        };
        container.state = ContainerState::Exited(exit.clone());
        let pod_uid = container.pod_uid.clone();
        drop(state);
        self.announce(RuntimeEvent::Exited {
            id: id.clone(),
            pod_uid,
            exit,
        });
        Ok(())
    }

    /// That nobody listens is no error.
    fn announce(&self, event: RuntimeEvent) {
        let _ = self.events.send(event);
    }

    fn require_running(&self, id: &ContainerId, what: &'static str) -> Result<()> {
        let mut state = self.state.lock();
        match &find(&mut state, id)?.state {
            ContainerState::Running { .. } => Ok(()),
            other => Err(Error::NotRunning {
                id: id.clone(),
                state: describe(other).into(),
                what,
            }),
        }
    }
}

fn find<'a>(state: &'a mut State, id: &ContainerId) -> Result<&'a mut Container> {
    state.containers.get_mut(id).ok_or_else(|| Error::NotFound {
        kind: "container",
        id: id.to_string(),
    })
}

/// The state in a word, for messages.
fn describe(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited(_) => "exited",
    }
}

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

#[async_trait]
impl Images for Hollow {
    async fn get(&self, reference: &str) -> Result<Option<Image>> {
        let state = self.state.lock();
        let by_id = || state.images.values().find(|image| image.id == reference);
        Ok(state.images.get(reference).or_else(by_id).cloned())
    }

    async fn list(&self) -> Result<Vec<Image>> {
        Ok(self.state.lock().images.values().cloned().collect())
    }

    async fn pull(&self, request: &PullRequest, progress: &dyn Progress) -> Result<Image> {
        let mut state = self.state.lock();
        if let Some(error) = state.failing_pulls.get(&request.reference) {
            return Err(error.clone().into());
        }
        let digest = format!("sha256:{}", super::hex_sha256(&[&request.reference]));
        let image = state
            .images
            .entry(request.reference.clone())
            .or_insert_with(|| Image {
                id: digest.clone(),
                digest: digest.clone(),
                references: vec![request.reference.clone()],
                ..Image::default()
            });
        progress.update(ProgressEvent::Resolved {
            digest,
            layers: 0,
            total_bytes: 0,
        });
        Ok(image.clone())
    }

    async fn load(&self, archive: &Path, _progress: &dyn Progress) -> Result<Vec<Image>> {
        Err(Error::Invalid(format!(
            "a hollow node has no images to load {} into",
            archive.display()
        )))
    }

    async fn remove(&self, reference: &str) -> Result<()> {
        self.state
            .lock()
            .images
            .retain(|name, image| name != reference && image.id != reference);
        Ok(())
    }

    async fn open_view(&self, _id: &str, _pod_uid: &str, _volume: &str) -> Result<Vec<FsMount>> {
        Ok(Vec::new())
    }

    async fn close_views(&self, _pod_uid: &str) -> Result<()> {
        Ok(())
    }

    async fn prune(&self, keep: &[String]) -> Result<Vec<Image>> {
        let mut state = self.state.lock();
        let used: Vec<String> = state
            .containers
            .values()
            .map(|c| c.image_id.clone())
            .collect();
        let (kept, gone) = std::mem::take(&mut state.images)
            .into_iter()
            .partition(|(name, image)| keep.contains(name) || used.contains(&image.id));
        state.images = kept;
        Ok(BTreeMap::into_values(gone).collect())
    }

    async fn usage(&self) -> Result<ImageUsage> {
        Ok(ImageUsage::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::attach::PodRef;

    fn sandbox(uid: &str) -> SandboxSpec {
        SandboxSpec {
            pod: PodRef {
                namespace: "default".into(),
                name: "web".into(),
                uid: uid.into(),
            },
            hostname: "web".into(),
            network: NamespaceMode::Pod,
            own_hostname: false,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            own_users: false,
            sysctls: BTreeMap::new(),
            qos: super::super::QosClass::BestEffort,
            resources: Resources::default(),
            runtime_handler: None,
            labels: BTreeMap::new(),
        }
    }

    fn container(uid: &str, attempt: u32) -> ContainerSpec {
        ContainerSpec {
            pod_uid: uid.into(),
            name: "app".into(),
            attempt,
            image: "nginx".into(),
            ..ContainerSpec::default()
        }
    }

    #[tokio::test]
    async fn a_container_is_created_started_and_killed() {
        let node = Hollow::default();
        let mut events = node.events();
        node.create_sandbox(&sandbox("u1")).await.unwrap();
        let id = node.create_container(&container("u1", 0)).await.unwrap();
        assert_eq!(
            node.create_container(&container("u1", 0)).await.unwrap(),
            id
        );
        node.start_container(&id).await.unwrap();
        node.signal_container(&id, 15).await.unwrap();
        assert!(matches!(
            events.recv().await.unwrap(),
            RuntimeEvent::Started { .. }
        ));
        let RuntimeEvent::Exited { exit, .. } = events.recv().await.unwrap() else {
            panic!("expected an exit")
        };
        assert_eq!(exit.code, 143);
        node.remove_sandbox("u1").await.unwrap();
        assert!(node.containers().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_the_test_breaks_fails() {
        let node = Hollow::default();
        let missing = ImageError::NotFound {
            reference: "nginx".into(),
            reason: "manifest unknown".into(),
        };
        node.fail_pull("nginx", Some(missing));
        let request = PullRequest {
            reference: "nginx".into(),
            ..PullRequest::default()
        };
        assert!(node.pull(&request, &super::super::Quiet).await.is_err());

        node.create_sandbox(&sandbox("u1")).await.unwrap();
        node.fail_start("app", "no such file");
        let id = node.create_container(&container("u1", 0)).await.unwrap();
        assert!(node.start_container(&id).await.is_err());
        let state = node.container(&id).await.unwrap().state;
        assert!(matches!(state, ContainerState::Exited(exit) if exit.code == 128));
    }
}
