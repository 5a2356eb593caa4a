//! The end of volumes that a driver made. The core is [`step`].

use std::time::Instant;

use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference};
use peapod_api::storage::PROVISIONED_BY;
use peapod_csi::v1::DeleteVolumeRequest;

use super::core::{DELETION_SECRET, FINALIZER, is_held};
use crate::common::Key;
use crate::csi::drivers::{Drivers, Job};
use crate::csi::{WORKERS, finalizers, pauses, secret};
use crate::shell::backoff::Backoff;
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};
use crate::volume::matching;

const NAME: &str = "csi-volume-deletion";
const COMPONENT: &str = "csi-provisioner";

struct Deleter {
    ctx: Context,
    drivers: Drivers,
    pauses: Backoff<String>,
}

/// What a volume needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// To be held until the driver has deleted it.
    Hold,
    /// To be let go: its data stay.
    Free,
    /// To be deleted by the driver, and then here.
    Delete,
    /// The same, but it is attached yet.
    Wait(String),
}

/// The driver that made a volume.
pub fn made_by(volume: &PersistentVolume) -> Option<&str> {
    let driver = &volume.spec.as_ref()?.csi.as_ref()?.driver;
    let annotations = volume.metadata.annotations.as_ref()?;
    let by = annotations.get(PROVISIONED_BY)?;
    (by == driver).then_some(by)
}

/// Decides about a volume; `attached`: the node that it is attached to.
pub fn step(volume: &PersistentVolume, attached: Option<&str>) -> Step {
    if made_by(volume).is_none() {
        return Step::Nothing;
    }
    let held = is_held(&volume.metadata, FINALIZER);
    let deleting = volume.metadata.deletion_timestamp.is_some();
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if policy != Some("Delete") {
        return if held { Step::Free } else { Step::Nothing };
    }
    match (deleting, held, phase) {
        (false, false, _) => Step::Hold,
        // Somebody took the finalizer away, and with it our part.
        (true, false, _) => Step::Nothing,
        (true, true, Some("Bound")) => Step::Nothing,
        (_, true, Some("Released")) | (true, true, _) => match attached {
            Some(node) => Step::Wait(node.to_owned()),
            None => Step::Delete,
        },
        (false, true, _) => Step::Nothing,
    }
}

/// Wires the loop; its keys are volumes.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.volumes)
        .on(&ctx.informers.attachments, |change| {
            let gone = change.old.as_deref().filter(|_| change.new.is_none());
            gone.and_then(|one| one.spec.source.persistent_volume_name.as_ref())
                .map(Key::cluster)
        })
        .on(&ctx.informers.csi_nodes, move |_| {
            let volumes = informers.volumes.all();
            let going = volumes
                .iter()
                .filter(|volume| step(volume, None) == Step::Delete);
            going.map(|volume| Key::of(&**volume)).collect::<Vec<_>>()
        })
        .reads(&ctx.informers.csi_drivers)
        .reads(&ctx.informers.nodes)
        .workers(WORKERS)
        .run(
            tasks,
            Deleter {
                ctx: ctx.clone(),
                drivers: drivers.clone(),
                pauses: pauses(),
            },
        );
}

/// Where the secret of a volume's deletion is.
fn deletion_secret(volume: &PersistentVolume) -> Option<SecretReference> {
    let annotations = volume.metadata.annotations.as_ref()?;
    let part = |key| {
        annotations
            .get(key)
            .filter(|text| !text.is_empty())
            .cloned()
    };
    let [name, namespace] = DELETION_SECRET.map(part);
    Some(SecretReference {
        name: Some(name?),
        namespace,
    })
}

/// A node that reaches the volume, if its affinity names one.
fn near(ctx: &Context, volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref()?.node_affinity.as_ref()?;
    let nodes = ctx.informers.nodes.all();
    let node = nodes.iter().find(|node| matching::reaches(volume, node));
    node.and_then(|node| node.metadata.name.clone())
}

impl Controller for Deleter {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(volume) = self.ctx.informers.volumes.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(driver) = made_by(&volume) else {
            return Ok(Outcome::Done);
        };
        let attachments = self
            .ctx
            .informers
            .attachments
            .indexed(&term::of_volume(&key.name));
        let attached = attachments.first().map(|one| one.spec.node_name.clone());
        let step = step(&volume, attached.as_deref());
        if step == Step::Nothing {
            return Ok(Outcome::Done);
        }
        let near = near(&self.ctx, &volume);
        let Some(reached) = self
            .drivers
            .reach(driver, Job::Provisioner, near.as_deref())
            .await?
        else {
            return Ok(Outcome::Done);
        };
        match step {
            Step::Nothing => Ok(Outcome::Done),
            Step::Hold => finalizers::add(&self.ctx, &*volume, FINALIZER)
                .await
                .map(|_| Outcome::Done),
            Step::Free => finalizers::remove(&self.ctx, &*volume, FINALIZER)
                .await
                .map(|_| Outcome::Done),
            Step::Wait(node) => {
                let fault = format!(
                    "persistentvolume {} is still attached to node {node}",
                    key.name
                );
                self.tell(&volume, &fault);
                Ok(Outcome::Done)
            }
            Step::Delete => {
                let uid = volume.metadata.uid.clone().unwrap_or_default();
                if let Some(wait) = self.pauses.next(&uid, Instant::now()) {
                    return Ok(Outcome::After(wait));
                }
                match self.delete(&volume, &reached.driver).await? {
                    // The pause stays: the cache may show the volume for a moment yet.
                    Ok(()) => Ok(Outcome::Done),
                    Err(fault) => {
                        self.tell(&volume, &fault);
                        Ok(Outcome::After(self.pauses.pause(&uid, Instant::now())))
                    }
                }
            }
        }
    }
}

impl Deleter {
    async fn delete(
        &self,
        volume: &PersistentVolume,
        driver: &peapod_csi::Driver,
    ) -> Result<Result<(), String>> {
        let secrets = match secret(&self.ctx, deletion_secret(volume).as_ref()).await? {
            Ok(secrets) => secrets,
            Err(fault) => return Ok(Err(fault)),
        };
        let source = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
        let volume_id = source
            .map(|source| source.volume_handle.clone())
            .unwrap_or_default();
        if let Err(error) = driver
            .call(DeleteVolumeRequest { volume_id, secrets })
            .await
        {
            return Ok(Err(error.status()));
        }
        if volume.metadata.deletion_timestamp.is_none() {
            write::delete::<PersistentVolume>(&self.ctx, &volume.metadata).await?;
        }
        // The deletion was a write, so that the object at hand is old.
        let Some(live) = write::get::<PersistentVolume>(&self.ctx, &Key::of(volume)).await? else {
            return Ok(Ok(()));
        };
        if live.metadata.uid == volume.metadata.uid {
            finalizers::remove(&self.ctx, &live, FINALIZER).await?;
        }
        Ok(Ok(()))
    }

    fn tell(&self, volume: &PersistentVolume, fault: &str) {
        let note = Note::warning("VolumeFailedDelete", fault);
        self.ctx.events.record(COMPONENT, volume, note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_is_deleted_when_it_is_released_and_nowhere_attached() {
        let volume = |by: &str,
                      policy: &str,
                      held: bool,
                      deleting: bool,
                      phase: &str|
         -> PersistentVolume {
            let finalizers: Vec<&str> = held.then_some(FINALIZER).into_iter().collect();
            serde_json::from_value(json!({
                "metadata": {
                    "annotations": {PROVISIONED_BY: by},
                    "finalizers": finalizers,
                    "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
                },
                "spec": {"csi": {"driver": "d", "volumeHandle": "v"}, "persistentVolumeReclaimPolicy": policy},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        for (by, policy, held, deleting, phase, attached, expected) in [
            ("d", "Delete", true, false, "Bound", None, Step::Nothing),
            ("d", "Delete", false, false, "Bound", None, Step::Hold),
            ("d", "Delete", true, false, "Released", None, Step::Delete),
            (
                "d",
                "Delete",
                true,
                false,
                "Released",
                Some("n"),
                Step::Wait("n".into()),
            ),
            ("d", "Delete", true, true, "Bound", None, Step::Nothing),
            ("d", "Delete", true, true, "Released", None, Step::Delete),
            ("d", "Delete", true, true, "Available", None, Step::Delete),
            ("d", "Delete", false, true, "Released", None, Step::Nothing),
            ("d", "Retain", true, false, "Bound", None, Step::Free),
            ("d", "Retain", false, false, "Released", None, Step::Nothing),
            (
                "other",
                "Delete",
                true,
                false,
                "Released",
                None,
                Step::Nothing,
            ),
        ] {
            let volume = volume(by, policy, held, deleting, phase);
            assert_eq!(
                step(&volume, attached),
                expected,
                "{by} {policy} {held} {deleting} {phase}"
            );
        }
    }
}
