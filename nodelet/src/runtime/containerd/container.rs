//! Making containers and telling where they stand.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use containerd_client::services::v1::DeleteContainerRequest;
use containerd_client::services::v1::snapshots::PrepareSnapshotRequest;
use containerd_client::services::v1::snapshots::{
    MountsRequest, RemoveSnapshotRequest, UsageRequest,
};
use containerd_client::types::Mount;
use jiff::Timestamp;

use super::client::SNAPSHOTTER;
use super::standing::standing;
use super::state::{Record, RootfsMount, State};
use super::tasks::{Made, Task};
use super::{Shared, blocking, host};
use crate::images::{Resolved, SNAPSHOT_IMAGE};
use crate::runtime::spec::{self, Surroundings, user};
use crate::runtime::users::{HostIds, shifted};
use crate::runtime::{
    Container, ContainerId, ContainerSpec, ContainerState, DiskUsage, Error, NamespaceMode, Result,
    Sandbox, Seccomp,
};

/// Keeps a snapshot that nothing refers to yet.
const GC_ROOT: &str = "containerd.io/gc.root";
impl Shared {
    /// Makes a container's file system, specification and record.
    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId> {
        let id = ContainerId::derive(&spec.pod_uid, &spec.name, spec.attempt);
        let _lock = self.lock(&id).await;
        let state = self.states.of(&id);
        if state.record()?.is_some() && (state.started()?.is_some() || state.exit()?.is_some()) {
            return Ok(id);
        }
        let made = self.create_locked(&id, &state, spec).await;
        if made.is_err() {
            // Nobody learns of the ID, so nobody would remove it.
            self.discard(&id, &state).await;
        }
        made.map(|()| id)
    }

    async fn create_locked(
        &self,
        id: &ContainerId,
        state: &State,
        spec: &ContainerSpec,
    ) -> Result<()> {
        let sandbox = self.sandbox(&spec.pod_uid)?;
        if !sandbox.alive {
            return Err(Error::Invalid(format!(
                "the sandbox of pod {} lost its namespaces; make it anew first",
                spec.pod_uid
            )));
        }
        self.moves.begin();
        let image = self.images.resolve(&spec.image).await?;
        let rootfs = self.take_layer(id, &image).await.inspect_err(|_| {
            // Its layers may have gone, removed by another process.
            self.images.forget_recent();
        })?;
        let pidns = self.pid_namespace(spec, &sandbox).await?;
        let around = self.surroundings(id, spec, &sandbox, &image, &rootfs, pidns)?;
        let (shifted, rootfs) = match sandbox.ids {
            None => (None, rootfs),
            Some(ids) => {
                let paths = self.sandboxes.paths(&spec.pod_uid);
                let (spec, rootfs) = own_files(spec, rootfs, ids, paths.user(), state).await?;
                (Some(spec), rootfs)
            }
        };
        let oci = spec::build(shifted.as_ref().unwrap_or(spec), &around, &self.host)?;
        let process = oci.process().clone().unwrap_or_default();
        let now = Timestamp::now();
        let oci_runtime = spec.runtime_handler.as_deref();
        let record = Arc::new(Record {
            oci_runtime: oci_runtime.unwrap_or(&self.config.oci_runtime).to_owned(),
            shim: self.config.shim.is_some(),
            ids: sandbox.ids,
            shares_pids: around.pid == NamespaceMode::Host || around.pidns.is_some(),
            ..Record::new(spec, &image.image, around.cgroup, rootfs, process, now)
        });
        state.create(&record)?;
        let made = Made {
            state,
            record: &record,
            oci,
            oci_runtime: &record.oci_runtime,
            image_id: &image.image.id,
        };
        self.tasks_of(&record).prepare(id, &made).await
    }

    async fn discard(&self, id: &ContainerId, state: &State) {
        let gone = self
            .delete_container(id)
            .await
            .and_then(|()| state.remove());
        if let Err(error) = gone {
            tracing::debug!(container.id = %id, %error, "left to the next sweep");
        }
    }

    /// A writable snapshot on top of the image; the one of an earlier attempt will do.
    pub(super) async fn prepare_rootfs(
        &self,
        id: &ContainerId,
        image: &Resolved,
    ) -> Result<Vec<RootfsMount>> {
        let what = format!("making the file system of container {id}");
        let labels = HashMap::from([
            (GC_ROOT.to_owned(), Timestamp::now().to_string()),
            (SNAPSHOT_IMAGE.to_owned(), image.image.id.clone()),
        ]);
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.0.clone(),
            parent: image.chain_id.clone(),
            labels,
        };
        let mut snapshots = self.client.snapshots();
        let made = self
            .client
            .call_create(&what, snapshots.prepare(request))
            .await?;
        let mounts = match made {
            Some(reply) => reply.mounts,
            None => {
                let request = MountsRequest {
                    snapshotter: SNAPSHOTTER.to_owned(),
                    key: id.0.clone(),
                };
                self.client
                    .call(&what, snapshots.mounts(request))
                    .await?
                    .mounts
            }
        };
        let plain = |mount: Mount| RootfsMount {
            kind: mount.r#type,
            source: mount.source,
            options: mount.options,
        };
        Ok(mounts.into_iter().map(plain).collect())
    }

    /// The PID namespace that a container joins: the pod's, or another container's. `None` for
    /// one of its own or the host's.
    async fn pid_namespace(
        &self,
        spec: &ContainerSpec,
        sandbox: &Sandbox,
    ) -> Result<Option<PathBuf>> {
        let target = match (sandbox.spec.pid, &spec.pid_of) {
            (NamespaceMode::Host, _) | (NamespaceMode::Container, None) => return Ok(None),
            (NamespaceMode::Pod, _) => {
                return Ok(Some(self.sandboxes.paths(&spec.pod_uid).pid()));
            }
            (NamespaceMode::Container, Some(target)) => target,
        };
        match self.get(target).await?.state {
            ContainerState::Running { pid, .. } => {
                Ok(Some(PathBuf::from(format!("/proc/{pid}/ns/pid"))))
            }
            _ => Err(Error::Invalid(format!(
                "container {target}, whose process IDs {} is to share, does not run",
                spec.name
            ))),
        }
    }

    fn surroundings(
        &self,
        id: &ContainerId,
        spec: &ContainerSpec,
        sandbox: &Sandbox,
        image: &Resolved,
        rootfs: &[RootfsMount],
        pidns: Option<PathBuf>,
    ) -> Result<Surroundings> {
        let paths = self.sandboxes.paths(&spec.pod_uid);
        let own = |mode: NamespaceMode, path| (mode != NamespaceMode::Host).then_some(path);
        let pod = &sandbox.spec;
        let accounts = host::accounts(rootfs);
        let user = user::resolve(&spec.user, &image.image.config.user, &accounts)?;
        let devices = match spec.security.privileged {
            true => host::all_devices(),
            false => host::devices(&spec.devices)?,
        };
        let seccomp = match &spec.security.seccomp {
            Seccomp::Localhost(path) => Some(host::seccomp_profile(path)?),
            _ => None,
        };
        Ok(Surroundings {
            netns: own(pod.network, paths.net()).or_else(|| self.config.host_netns.clone()),
            utsns: pod.has_uts().then(|| paths.uts()),
            ipcns: own(pod.ipc, paths.ipc()),
            shm: own(pod.ipc, paths.shm()),
            users: sandbox.ids.map(|ids| (paths.user(), ids)),
            pid: pod.pid,
            pidns,
            hostname: pod.hostname.clone(),
            cgroup: self.pod_group(pod).join(&id.0),
            image: image.image.config.clone(),
            user,
            devices,
            seccomp,
        })
    }

    /// All containers.
    pub(super) async fn list(&self) -> Result<Vec<Container>> {
        let records = self.records()?;
        let mut tasks: HashMap<String, Task> = HashMap::new();
        for tasks_of in self.tasks_in_use(records.iter().map(|(_, record)| record.as_ref())) {
            let listed = tasks_of.list().await?;
            tasks.extend(listed.into_iter().map(|task| (task.id.clone(), task)));
        }
        let mut containers = Vec::new();
        for (id, record) in records {
            let state = self.states.of(&id);
            let oom = || self.killed_for_memory(&id, &record);
            let standing = standing(&state, tasks.get(&id.0), oom)?;
            containers.push(state.container(&record, standing));
        }
        Ok(containers)
    }

    /// One container.
    pub(super) async fn get(&self, id: &ContainerId) -> Result<Container> {
        let record = self.record(id)?;
        let task = self.tasks_of(&record).find(id).await?;
        let state = self.states.of(id);
        let oom = || self.killed_for_memory(id, &record);
        let standing = standing(&state, task.as_ref(), oom)?;
        Ok(state.container(&record, standing))
    }

    /// What does not change of all containers.
    pub(super) fn records(&self) -> Result<Vec<(ContainerId, Arc<Record>)>> {
        let record = |id: ContainerId| {
            let record = self.states.of(&id).record();
            record.map(|found| Some((id, found?))).transpose()
        };
        self.states.ids().into_iter().filter_map(record).collect()
    }

    /// What does not change of a container.
    pub(super) fn record(&self, id: &ContainerId) -> Result<Arc<Record>> {
        let missing = || Error::NotFound {
            kind: "container",
            id: id.to_string(),
        };
        self.states.of(id).record()?.ok_or_else(missing)
    }

    /// Removes what containerd has of a container that has no task any more.
    pub(super) async fn delete_container(&self, id: &ContainerId) -> Result<()> {
        let what = format!("removing container {id}");
        // Before the layers that it is made of.
        self.states.of(id).unmount()?;
        let request = DeleteContainerRequest { id: id.0.clone() };
        let mut containers = self.client.containers();
        self.client
            .call_gone_ok(&what, containers.delete(request))
            .await?;
        let request = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.0.clone(),
        };
        let mut snapshots = self.client.snapshots();
        self.client
            .call_gone_ok(&what, snapshots.remove(request))
            .await
    }

    /// What the container's own layer takes.
    pub(super) async fn writable_usage(&self, id: &ContainerId) -> Result<DiskUsage> {
        let what = format!("measuring the file system of container {id}");
        let request = UsageRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: id.0.clone(),
        };
        let mut snapshots = self.client.snapshots();
        let usage = self.client.call(&what, snapshots.usage(request)).await?;
        let amount = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(DiskUsage {
            bytes: amount(usage.size),
            inodes: amount(usage.inodes),
        })
    }
}

/// Mounts the root file system and the volumes of a container as its pod's user namespace has their
/// owners; gives both as they are then.
async fn own_files(
    spec: &ContainerSpec,
    rootfs: Vec<RootfsMount>,
    ids: HostIds,
    users: PathBuf,
    state: &State,
) -> Result<(ContainerSpec, Vec<RootfsMount>)> {
    let (mut spec, state) = (spec.clone(), state.clone());
    blocking("mounting with shifted owners", move || {
        state.unmount()?;
        let failed = |error: io::Error| Error::Failed {
            what: format!("mounting the files of container {}", spec.name),
            reason: error.to_string(),
        };
        let target = state.rootfs();
        let root = rootfs.first().and_then(host::overlay).ok_or_else(|| {
            Error::Invalid("hostUsers: false needs an image with at least one layer".to_owned())
        })?;
        shifted::overlay(root, ids, &target, &users).map_err(failed)?;
        for (number, mount) in spec.mounts.iter_mut().enumerate() {
            if shifted::is_image(&mount.source, mount.read_only) {
                continue;
            }
            let place = state.mount(number);
            shifted::bind(&mount.source, &place, &users).map_err(failed)?;
            // Root of a user namespace may not take such flags away; runc tries to, unless it is told of them.
            mount.flags.extend(shifted::flags(&place).map_err(failed)?);
            mount.source = place;
        }
        let mount = RootfsMount {
            kind: "bind".to_owned(),
            source: target.display().to_string(),
            options: vec!["rbind".to_owned()],
        };
        Ok((spec, vec![mount]))
    })
    .await
}
