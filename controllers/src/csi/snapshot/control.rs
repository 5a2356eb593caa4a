//! VolumeSnapshots: contents are made for them or bound to them, and their status shown.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use super::Shared;
use super::core::{self, AS_SOURCE, BEING_DELETED, BOUND, CLAIM, Step};
use super::kinds::{VolumeSnapshot, VolumeSnapshotContent, VolumeSnapshotStatus};
use crate::common::Key;
use crate::csi::provision::core::is_held;
use crate::csi::{finalizers, pauses};
use crate::shell::backoff::Backoff;
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "snapshot-controller";

struct Snapshots {
    shared: Shared,
    pauses: Backoff<String>,
}

/// Wires the loop; its keys are snapshots.
pub(super) fn start(shared: &Shared, tasks: &mut Tasks) {
    let (by_class, by_claim) = (shared.snapshots.clone(), shared.snapshots.clone());
    Loop::new(&shared.ctx, NAME)
        .on_self(&shared.snapshots)
        .on(&shared.contents, |change| {
            let reference = change
                .latest()
                .map(|content| &content.spec.volume_snapshot_ref);
            reference.and_then(|at| Some(Key::new(at.namespace.clone()?, at.name.clone()?)))
        })
        .on(&shared.classes, move |_| {
            let all = by_class.all();
            let open = all.iter().filter(|one| {
                one.status.as_ref().and_then(|status| status.ready_to_use) != Some(true)
            });
            open.map(|one| Key::of(&**one)).collect::<Vec<_>>()
        })
        .on(&shared.ctx.informers.claims, move |change| {
            // What the claim is made from, and what is made of it.
            let from = change
                .latest()
                .and_then(|claim| claim.spec.as_ref()?.data_source.clone());
            let from = from.filter(|from| from.kind == "VolumeSnapshot");
            let from = from.map(|from| Key::new(&change.key.namespace, from.name));
            let of = by_claim.indexed(&term::using_claim(&change.key));
            let of = of.iter().filter(|one| {
                one.status.as_ref().and_then(|status| status.ready_to_use) != Some(true)
            });
            from.into_iter()
                .chain(of.map(|one| Key::of(&**one)))
                .collect::<Vec<_>>()
        })
        .run(
            tasks,
            Snapshots {
                shared: shared.clone(),
                pauses: pauses(),
            },
        );
}

impl Controller for Snapshots {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(snapshot) = self.shared.snapshots.get(key) else {
            return Ok(Outcome::Done);
        };
        let content = self.content_of(&snapshot).await?;
        match core::step(&snapshot, content.as_ref(), self.is_source(&snapshot)) {
            Step::Nothing => {}
            Step::Protect => {
                let mut new = VolumeSnapshot::clone(&snapshot);
                let all = new.metadata.finalizers.get_or_insert_default();
                for finalizer in [BOUND, AS_SOURCE] {
                    if !all.iter().any(|one| one == finalizer) {
                        all.push(finalizer.to_owned());
                    }
                }
                write::update(&self.shared.ctx, &*snapshot, &new).await?;
            }
            Step::Make => return self.make(&snapshot).await,
            Step::Bind => {
                let uid = json!({"spec": {"volumeSnapshotRef": {"uid": snapshot.metadata.uid}}});
                let name = Key::cluster(core::content_name(&snapshot));
                write::patch::<VolumeSnapshotContent>(&self.shared.ctx, &name, uid).await?;
            }
            Step::Show => {
                if let Some(content) = content {
                    self.show_content(&snapshot, &content).await?;
                }
            }
            Step::Fail(fault) => {
                self.fail(&snapshot, "SnapshotContentMissing", &fault)
                    .await?
            }
            Step::DeleteContent => {
                if let Some(content) = content {
                    self.delete_content(&content).await?;
                }
            }
            Step::Free => {
                self.release_claim(&snapshot).await?;
                finalizers::remove_all(&self.shared.ctx, &*snapshot, &[BOUND, AS_SOURCE]).await?;
            }
        }
        Ok(Outcome::Done)
    }
}

impl Snapshots {
    /// The snapshot's content; asked live where the cache shows none, as another would be made.
    async fn content_of(&self, snapshot: &VolumeSnapshot) -> Result<Option<VolumeSnapshotContent>> {
        let key = Key::cluster(core::content_name(snapshot));
        match self.shared.contents.get(&key) {
            Some(content) => Ok(Some(VolumeSnapshotContent::clone(&content))),
            None => write::get(&self.shared.ctx, &key).await,
        }
    }

    /// Whether a claim's volume is being made from the snapshot.
    fn is_source(&self, snapshot: &VolumeSnapshot) -> bool {
        let namespace = snapshot.metadata.namespace.as_deref().unwrap_or_default();
        let claims = self.shared.ctx.informers.claims.in_namespace(namespace);
        claims.iter().any(|claim| {
            let source = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.data_source.as_ref());
            let phase = claim
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            phase == Some("Pending")
                && source.is_some_and(|source| {
                    source.kind == "VolumeSnapshot"
                        && Some(&source.name) == snapshot.metadata.name.as_ref()
                })
        })
    }

    fn claim(&self, snapshot: &VolumeSnapshot) -> Option<Arc<PersistentVolumeClaim>> {
        let name = snapshot.spec.source.persistent_volume_claim_name.as_ref()?;
        let key = Key::new(snapshot.metadata.namespace.clone()?, name);
        self.shared.ctx.informers.claims.get(&key)
    }

    async fn make(&self, snapshot: &VolumeSnapshot) -> Result<Outcome> {
        let uid = snapshot.metadata.uid.clone().unwrap_or_default();
        let made = match self.claim(snapshot) {
            None => Err("the PersistentVolumeClaim of the snapshot is not there".to_owned()),
            Some(claim) => {
                let name = claim
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.volume_name.clone());
                let volume = name
                    .and_then(|name| self.shared.ctx.informers.volumes.get(&Key::cluster(name)));
                let made =
                    core::content(snapshot, &claim, volume.as_deref(), &self.shared.classes());
                if made.is_ok() {
                    finalizers::add(&self.shared.ctx, &*claim, CLAIM).await?;
                }
                made
            }
        };
        match made {
            Ok(content) => {
                match write::create(&self.shared.ctx, &content).await {
                    Err(error) if error.is_already_exists() => {}
                    result => result.map(drop)?,
                }
                self.pauses.forget(&uid);
                let key = Key::of(snapshot);
                let message =
                    format!("Waiting for a snapshot {key} to be created by the CSI driver.");
                self.tell(snapshot, Note::normal("CreatingSnapshot", message));
                Ok(Outcome::Done)
            }
            Err(fault) => {
                self.fail(snapshot, "SnapshotContentCreationFailed", &fault)
                    .await?;
                Ok(Outcome::After(self.pauses.pause(&uid, Instant::now())))
            }
        }
    }

    async fn show_content(
        &self,
        snapshot: &VolumeSnapshot,
        content: &VolumeSnapshotContent,
    ) -> Result<()> {
        let old = snapshot.status.clone().unwrap_or_default();
        let new = core::status(content);
        write::status(&self.shared.ctx, snapshot, snapshot.status.as_ref(), &new).await?;
        let key = Key::of(snapshot);
        if new.creation_time.is_some() && old.creation_time.is_none() {
            let message = format!("Snapshot {key} was successfully created by the CSI driver.");
            self.tell(snapshot, Note::normal("SnapshotCreated", message));
        }
        if new.ready_to_use == Some(true) && old.ready_to_use != Some(true) {
            let message = format!("Snapshot {key} is ready to use.");
            self.tell(snapshot, Note::normal("SnapshotReady", message));
        }
        if new.creation_time.is_some() {
            self.release_claim(snapshot).await?;
        }
        Ok(())
    }

    /// Lets the claim go when none of its snapshots is still to be taken.
    async fn release_claim(&self, snapshot: &VolumeSnapshot) -> Result<()> {
        let Some(claim) = self
            .claim(snapshot)
            .filter(|claim| is_held(&claim.metadata, CLAIM))
        else {
            return Ok(());
        };
        let others = self
            .shared
            .snapshots
            .indexed(&term::using_claim(&Key::of(&*claim)));
        let waiting = others.iter().any(|other| {
            other.metadata.uid != snapshot.metadata.uid
                && other.metadata.deletion_timestamp.is_none()
                && other
                    .status
                    .as_ref()
                    .and_then(|status| status.creation_time.as_ref())
                    .is_none()
        });
        if waiting {
            return Ok(());
        }
        finalizers::remove(&self.shared.ctx, &*claim, CLAIM).await
    }

    async fn delete_content(&self, content: &VolumeSnapshotContent) -> Result<()> {
        let annotations = content.metadata.annotations.as_ref();
        if annotations.is_none_or(|all| !all.contains_key(BEING_DELETED)) {
            let patch = json!({"metadata": {"annotations": { BEING_DELETED: "yes" }}});
            write::patch::<VolumeSnapshotContent>(&self.shared.ctx, &Key::of(content), patch)
                .await?;
        }
        if content.metadata.deletion_timestamp.is_none() {
            write::delete::<VolumeSnapshotContent>(&self.shared.ctx, &content.metadata).await?;
        }
        Ok(())
    }

    async fn fail(
        &self,
        snapshot: &VolumeSnapshot,
        reason: &'static str,
        fault: &str,
    ) -> Result<()> {
        let old = snapshot.status.clone().unwrap_or_default();
        let error = core::fault(old.error.as_ref(), fault, Timestamp::now());
        if old.error.as_ref() == Some(&error) {
            return Ok(());
        }
        self.tell(snapshot, Note::warning(reason, fault));
        let new = VolumeSnapshotStatus {
            ready_to_use: Some(false),
            error: Some(error),
            ..old
        };
        write::status(&self.shared.ctx, snapshot, snapshot.status.as_ref(), &new).await?;
        Ok(())
    }

    fn tell(&self, snapshot: &VolumeSnapshot, note: Note) {
        self.shared.ctx.events.record(NAME, snapshot, note);
    }
}
