//! VolumeSnapshotContents: drivers take snapshots and delete them.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::SecretReference;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{DeleteSnapshotRequest, ListSnapshotsRequest, Snapshot};
use serde_json::json;

use super::Shared;
use super::core::{self, BEING_CREATED, CONTENT, ContentStep, DELETION_SECRET};
use super::kinds::{VolumeSnapshotContent, VolumeSnapshotContentStatus};
use crate::common::Key;
use crate::csi::attach::source;
use crate::csi::drivers::{Job, Reached};
use crate::csi::{WORKERS, finalizers, pauses, secret};
use crate::shell::backoff::Backoff;
use crate::shell::events::Note;
use crate::shell::{Controller, Loop, Outcome, Result, Tasks, write};
use crate::volume::matching;

const NAME: &str = "csi-snapshotter";

struct Contents {
    shared: Shared,
    pauses: Backoff<(String, bool)>,
}

/// Wires the loop; its keys are contents.
pub(super) fn start(shared: &Shared, tasks: &mut Tasks) {
    let all = shared.contents.clone();
    Loop::new(&shared.ctx, NAME)
        .on_self(&shared.contents)
        .on(&shared.snapshots, |change| {
            change
                .latest()
                .map(|snapshot| Key::cluster(core::content_name(snapshot)))
        })
        .on(&shared.ctx.informers.csi_nodes, move |_| {
            let all = all.all();
            all.iter()
                .map(|content| Key::of(&**content))
                .collect::<Vec<_>>()
        })
        .reads(&shared.classes)
        .workers(WORKERS)
        .run(
            tasks,
            Contents {
                shared: shared.clone(),
                pauses: pauses(),
            },
        );
}

impl Controller for Contents {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(content) = self.shared.contents.get(key) else {
            return Ok(Outcome::Done);
        };
        let at = &content.spec.volume_snapshot_ref;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let snapshot = self
            .shared
            .snapshots
            .get(&Key::new(text(&at.namespace), text(&at.name)));
        let step = core::content_step(&content, snapshot.as_deref());
        if step == ContentStep::Nothing {
            return Ok(Outcome::Done);
        }
        let near = self.near(&content);
        let driver = &content.spec.driver;
        let Some(reached) = self
            .shared
            .drivers
            .reach(driver, Job::Snapshotter, near.as_deref())
            .await?
        else {
            return Ok(Outcome::Done);
        };
        let ctx = &self.shared.ctx;
        match step {
            ContentStep::Nothing => return Ok(Outcome::Done),
            ContentStep::Protect => {
                return finalizers::add(ctx, &*content, CONTENT)
                    .await
                    .map(|_| Outcome::Done);
            }
            ContentStep::Free => {
                return finalizers::remove(ctx, &*content, CONTENT)
                    .await
                    .map(|()| Outcome::Done);
            }
            _ => {}
        }
        let thing = (
            content.metadata.uid.clone().unwrap_or_default(),
            step == ContentStep::Delete,
        );
        if let Some(wait) = self.pauses.next(&thing, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let result = match step {
            ContentStep::Delete => self.delete(&content, &reached).await?,
            ContentStep::Adopt => self.adopt(&content, &reached).await?,
            _ => self.take(&content, &reached).await?,
        };
        match result {
            Ok(true) => {
                self.pauses.forget(&thing);
                return Ok(Outcome::Done);
            }
            // Taken, and the driver is not done with it: it is asked again.
            Ok(false) => {}
            Err(fault) => self.fail(&content, step, &fault).await?,
        }
        Ok(Outcome::After(self.pauses.pause(&thing, Instant::now())))
    }
}

impl Contents {
    /// A node that reaches what the snapshot is of.
    fn near(&self, content: &VolumeSnapshotContent) -> Option<String> {
        let handle = content.spec.source.volume_handle.as_ref()?;
        let informers = &self.shared.ctx.informers;
        let volumes = informers.volumes.all();
        let volume = volumes.iter().find(|volume| {
            source(volume).is_some_and(|source| {
                source.driver == content.spec.driver && source.volume_handle == *handle
            })
        })?;
        volume.spec.as_ref()?.node_affinity.as_ref()?;
        let nodes = informers.nodes.all();
        let node = nodes.iter().find(|node| matching::reaches(volume, node));
        node.and_then(|node| node.metadata.name.clone())
    }

    /// Has the driver take the snapshot; whether it is ready.
    async fn take(
        &self,
        content: &VolumeSnapshotContent,
        reached: &Reached,
    ) -> Result<Result<bool, String>> {
        let class = self.shared.class_of(content);
        let request = core::request(content, class.as_deref());
        let at = core::secret_of(content, class.as_deref());
        let (mut request, at) = match (request, at) {
            (Ok(request), Ok(at)) => (request, at),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(fault)),
        };
        if !reached.abilities.can(Call::CreateDeleteSnapshot) {
            return Ok(Err("CSI driver does not support snapshots: controller CREATE_DELETE_SNAPSHOT capability is not reported".to_owned()));
        }
        match secret(&self.shared.ctx, at.as_ref()).await? {
            Ok(secrets) => request.secrets = secrets,
            Err(fault) => return Ok(Err(fault)),
        }
        let content = &self.mark(content, Some("yes")).await?;
        match reached.driver.call(request).await {
            Ok(answer) => {
                let snapshot = answer.snapshot.unwrap_or_default();
                let ready = snapshot.ready_to_use;
                self.show(content, &shown(&snapshot)).await?;
                self.mark(content, None).await?;
                Ok(Ok(ready))
            }
            Err(error) => {
                if error.is_final() {
                    self.mark(content, None).await?;
                }
                Ok(Err(format!(
                    "Failed to create snapshot: {}",
                    error.status()
                )))
            }
        }
    }

    /// Shows what a content has that was there before; asks the driver if it can tell.
    async fn adopt(
        &self,
        content: &VolumeSnapshotContent,
        reached: &Reached,
    ) -> Result<Result<bool, String>> {
        let handle = content
            .spec
            .source
            .snapshot_handle
            .clone()
            .unwrap_or_default();
        let mut status = VolumeSnapshotContentStatus {
            snapshot_handle: Some(handle.clone()),
            ready_to_use: Some(true),
            creation_time: Some(Timestamp::now().as_nanosecond() as i64),
            ..Default::default()
        };
        if reached.abilities.can(Call::ListSnapshots) {
            let request = ListSnapshotsRequest {
                snapshot_id: handle.clone(),
                ..Default::default()
            };
            match reached.driver.call(request).await {
                Ok(answer) => match answer.entries.into_iter().find_map(|entry| entry.snapshot) {
                    Some(snapshot) => status = shown(&snapshot),
                    None => {
                        return Ok(Err(format!(
                            "cannot find snapshot {handle} in the storage system"
                        )));
                    }
                },
                Err(error) => return Ok(Err(error.status())),
            }
        }
        let ready = status.ready_to_use == Some(true);
        self.show(content, &status).await?;
        Ok(Ok(ready))
    }

    async fn delete(
        &self,
        content: &VolumeSnapshotContent,
        reached: &Reached,
    ) -> Result<Result<bool, String>> {
        let ctx = &self.shared.ctx;
        let handle = match self.handle(content, reached).await? {
            Ok(handle) => handle,
            Err(fault) => return Ok(Err(fault)),
        };
        if let Some(snapshot_id) = handle {
            let secrets = match secret(ctx, deletion_secret(content).as_ref()).await? {
                Ok(secrets) => secrets,
                Err(fault) => return Ok(Err(fault)),
            };
            let request = DeleteSnapshotRequest {
                snapshot_id,
                secrets,
            };
            if let Err(error) = reached.driver.call(request).await {
                return Ok(Err(format!(
                    "Failed to delete snapshot: {}",
                    error.status()
                )));
            }
        }
        finalizers::remove(ctx, content, CONTENT).await?;
        Ok(Ok(true))
    }

    /// The driver's handle of what is to be deleted. Where an answer was lost, the same snapshot is
    /// asked for again to learn it.
    async fn handle(
        &self,
        content: &VolumeSnapshotContent,
        reached: &Reached,
    ) -> Result<Result<Option<String>, String>> {
        let status = content.status.clone().unwrap_or_default();
        let known = content
            .spec
            .source
            .snapshot_handle
            .clone()
            .or(status.snapshot_handle);
        let annotations = content.metadata.annotations.as_ref();
        let lost = annotations.is_some_and(|all| all.contains_key(BEING_CREATED));
        if known.is_some() || !lost {
            return Ok(Ok(known));
        }
        let class = self.shared.class_of(content);
        let Ok(mut request) = core::request(content, class.as_deref()) else {
            return Ok(Ok(None));
        };
        let secrets = secret(&self.shared.ctx, deletion_secret(content).as_ref()).await?;
        request.secrets = secrets.unwrap_or_default();
        Ok(match reached.driver.call(request).await {
            Ok(answer) => Ok(answer.snapshot.map(|snapshot| snapshot.snapshot_id)),
            Err(error) if error.is_final() => Ok(None),
            Err(error) => Err(error.status()),
        })
    }

    /// Notes, before the driver is asked, that it may be taking a snapshot; or that it is not.
    async fn mark(
        &self,
        content: &VolumeSnapshotContent,
        value: Option<&str>,
    ) -> Result<VolumeSnapshotContent> {
        let patch = json!({"metadata": {"uid": content.metadata.uid, "annotations": { BEING_CREATED: value }}});
        write::patch(&self.shared.ctx, &Key::of(content), patch).await
    }

    async fn show(
        &self,
        content: &VolumeSnapshotContent,
        status: &VolumeSnapshotContentStatus,
    ) -> Result<()> {
        write::status(&self.shared.ctx, content, content.status.as_ref(), status).await?;
        Ok(())
    }

    async fn fail(
        &self,
        content: &Arc<VolumeSnapshotContent>,
        step: ContentStep,
        fault: &str,
    ) -> Result<()> {
        let reason = match step {
            ContentStep::Delete => "SnapshotDeleteError",
            _ => "SnapshotCreationFailed",
        };
        self.shared
            .ctx
            .events
            .record(NAME, &**content, Note::warning(reason, fault));
        let old = content.status.clone().unwrap_or_default();
        let error = core::fault(old.error.as_ref(), fault, Timestamp::now());
        let new = VolumeSnapshotContentStatus {
            ready_to_use: old.ready_to_use.or(Some(false)),
            error: Some(error),
            ..old
        };
        self.show(content, &new).await
    }
}

/// The status of what a driver says of its snapshot.
fn shown(snapshot: &Snapshot) -> VolumeSnapshotContentStatus {
    let at = snapshot.creation_time.unwrap_or_default();
    VolumeSnapshotContentStatus {
        creation_time: Some(
            at.seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(at.nanos.into()),
        ),
        ready_to_use: Some(snapshot.ready_to_use),
        restore_size: Some(snapshot.size_bytes),
        snapshot_handle: Some(snapshot.snapshot_id.clone()),
        error: None,
    }
}

fn deletion_secret(content: &VolumeSnapshotContent) -> Option<SecretReference> {
    let annotations = content.metadata.annotations.as_ref()?;
    let [name, namespace] = DELETION_SECRET.map(|key| {
        annotations
            .get(key)
            .filter(|text| !text.is_empty())
            .cloned()
    });
    Some(SecretReference {
        name: Some(name?),
        namespace,
    })
}
