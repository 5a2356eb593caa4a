//! Claims that grow: the driver grows the volume, and the node its filesystem.
//!
//! [`core`] decides; [`modify`] is the change of attributes, which goes the same way.

pub mod core;
mod modify;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{CapacityRange, ControllerExpandVolumeRequest};

use self::core::{Outcome as Answer, Plan};
use super::attach::source;
use super::drivers::{Drivers, Job, Reached};
use super::{WORKERS, capability, secret};
use crate::common::Key;
use crate::shell::backoff::Backoff;
use crate::shell::context::term;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};
use crate::volume::matching;

const NAME: &str = "csi-resizer";
/// First pause between attempts at what the driver could not do before.
const SLOW: Duration = Duration::from_secs(30);

struct Resizer {
    ctx: Context,
    drivers: Drivers,
    pauses: Backoff<(String, i64)>,
    /// For what the driver could not do before.
    slow: Backoff<(String, i64)>,
    modify_pauses: Backoff<(String, String)>,
}

/// Wires the loop; its keys are claims.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    let (of_nodes, of_attachments, of_classes) = (informers.clone(), informers.clone(), informers);
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.claims)
        .on(&ctx.informers.volumes, |change| {
            change.latest().and_then(claim_of)
        })
        .on(&ctx.informers.csi_nodes, move |_| open(&of_nodes))
        .on(&ctx.informers.attributes_classes, move |_| {
            open(&of_classes)
        })
        .on(&ctx.informers.attachments, move |change| {
            // Some drivers grow volumes only when nothing uses them.
            let gone = change.old.as_deref().filter(|_| change.new.is_none());
            let name = gone.and_then(|one| one.spec.source.persistent_volume_name.clone());
            let volume = name.and_then(|name| of_attachments.volumes.get(&Key::cluster(name)));
            volume.as_deref().and_then(claim_of)
        })
        .reads(&ctx.informers.csi_drivers)
        .reads(&ctx.informers.nodes)
        .workers(WORKERS)
        .run(
            tasks,
            Resizer {
                ctx: ctx.clone(),
                drivers: drivers.clone(),
                pauses: super::pauses(),
                slow: Backoff::new(SLOW, SLOW * 10),
                modify_pauses: super::pauses(),
            },
        );
}

fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = matching::claim_ref(volume)?;
    Some(Key::new(
        reference.namespace.clone()?,
        reference.name.clone()?,
    ))
}

fn volume_of(
    informers: &crate::shell::context::Informers,
    claim: &PersistentVolumeClaim,
) -> Option<Arc<PersistentVolume>> {
    let name = claim.spec.as_ref()?.volume_name.as_ref()?;
    informers.volumes.get(&Key::cluster(name))
}

/// The claims that something is to be done about.
fn open(informers: &crate::shell::context::Informers) -> Vec<Key> {
    let claims = informers.claims.all();
    let open = claims.iter().filter(|claim| {
        volume_of(informers, claim)
            .is_some_and(|volume| core::grows(claim, &volume) || modify::changes(claim, &volume))
    });
    open.map(|claim| Key::of(&**claim)).collect()
}

impl Controller for Resizer {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.ctx.informers;
        let Some(claim) = informers.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        let Some(volume) = volume_of(informers, &claim) else {
            return Ok(Outcome::Done);
        };
        let Some(source) = source(&volume).filter(|_| claim.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Outcome::Done);
        };
        if !core::grows(&claim, &volume) && !modify::changes(&claim, &volume) {
            return Ok(Outcome::Done);
        }
        let attachments = informers.attachments.indexed(&term::of_volume(
            volume.metadata.name.as_deref().unwrap_or_default(),
        ));
        let near = attachments.first().map(|one| one.spec.node_name.clone());
        let Some(reached) = self
            .drivers
            .reach(&source.driver, Job::Resizer, near.as_deref())
            .await?
        else {
            return Ok(Outcome::Done);
        };
        if modify::changes(&claim, &volume) {
            return self.modify(&claim, &volume, &reached).await;
        }
        self.grow(&claim, &volume, &reached, !attachments.is_empty())
            .await
    }
}

impl Resizer {
    async fn grow(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        reached: &Reached,
        in_use: bool,
    ) -> Result<Outcome> {
        let controller = reached.abilities.can(Call::ExpandVolume);
        let Plan::Expand { size, slow } = core::plan(claim, volume, controller) else {
            return Ok(Outcome::Done);
        };
        if !controller && !reached.abilities.node_expands {
            let fault = "the driver grows no volumes: neither its controller nor its node capability EXPAND_VOLUME is reported";
            self.tell(claim, Note::warning("VolumeResizeFailed", fault));
            return Ok(Outcome::Done);
        }
        let key = Key::of(claim);
        if in_use && reached.abilities.offline_expansion {
            let message = format!(
                "Unable to expand {key} because CSI driver {} only supports offline expansion and volume is currently in-use",
                reached.driver.name()
            );
            self.tell(claim, Note::warning("VolumeResizeFailed", message));
            return Ok(Outcome::Done);
        }
        let thing = (claim.metadata.uid.clone().unwrap_or_default(), size);
        let pauses = if slow { &self.slow } else { &self.pauses };
        if let Some(wait) = pauses.next(&thing, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let asked = core::in_progress(claim, size, Timestamp::now());
        let claim = &self.show(claim, &asked).await?;
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let message = format!("External resizer is resizing volume {name}");
        self.tell(claim, Note::normal("Resizing", message));
        let answer = match controller {
            true => self.ask(volume, reached, size).await?,
            // The node does it all.
            false => Ok(Answer::Done { size, node: true }),
        };
        let fault = match answer {
            Ok(answer @ Answer::Done { size, node }) => {
                pauses.forget(&thing);
                self.resized(claim, volume, &answer, size, node).await?;
                return Ok(Outcome::Done);
            }
            Ok(answer @ Answer::Failed { .. }) => {
                self.show(claim, &core::after(claim, &answer, Timestamp::now()))
                    .await?;
                let Answer::Failed { fault, .. } = answer else {
                    unreachable!("matched above")
                };
                fault
            }
            Err(fault) => {
                self.show(claim, &core::unsure(claim, Timestamp::now()))
                    .await?;
                fault
            }
        };
        let message = format!(
            "resize volume \"{name}\" by resizer \"{}\" failed: {fault}",
            reached.driver.name()
        );
        self.tell(claim, Note::warning("VolumeResizeFailed", message));
        Ok(Outcome::After(pauses.pause(&thing, Instant::now())))
    }

    /// Asks the driver. The inner error is one after which the outcome is not known.
    async fn ask(
        &self,
        volume: &PersistentVolume,
        reached: &Reached,
        size: i64,
    ) -> Result<Result<Answer, String>> {
        let source = source(volume).cloned().unwrap_or_default();
        let finer = reached.abilities.can(Call::SingleNodeMultiWriter);
        let secrets = secret(&self.ctx, source.controller_expand_secret_ref.as_ref()).await?;
        let (used, secrets) = match (capability::of_volume(volume, finer), secrets) {
            (Ok(used), Ok(secrets)) => (used, secrets),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(fault)),
        };
        let request = ControllerExpandVolumeRequest {
            volume_id: source.volume_handle,
            capacity_range: Some(CapacityRange {
                required_bytes: size,
                limit_bytes: 0,
            }),
            secrets,
            volume_capability: Some(used),
        };
        Ok(match reached.driver.call(request).await {
            Ok(answer) => Ok(Answer::Done {
                size: answer.capacity_bytes.max(size),
                node: answer.node_expansion_required,
            }),
            Err(error) if error.is_final() => Ok(Answer::Failed {
                fault: error.status(),
                infeasible: core::is_infeasible(error.code),
            }),
            Err(error) => Err(error.status()),
        })
    }

    /// Notes a volume's new size: the volume first, so that a claim never says more than it has.
    async fn resized(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        answer: &Answer,
        size: i64,
        node: bool,
    ) -> Result<()> {
        if core::capacity(volume) < size {
            let mut new = volume.clone();
            let capacity = new
                .spec
                .get_or_insert_default()
                .capacity
                .get_or_insert_default();
            let old = capacity.insert("storage".to_owned(), super::provision::core::bytes(size));
            if let Some(old) = old.filter(|_| node) {
                let annotations = new.metadata.annotations.get_or_insert_default();
                annotations.insert(
                    "volume.alpha.kubernetes.io/pre-resize-capacity".to_owned(),
                    old.0,
                );
            }
            write::update(&self.ctx, volume, &new).await?;
        }
        self.show(claim, &core::after(claim, answer, Timestamp::now()))
            .await?;
        let note = match node {
            true => Note::normal(
                "FileSystemResizeRequired",
                "Require file system resize of volume on node",
            ),
            false => Note::normal("VolumeResizeSuccessful", "Resize volume succeeded"),
        };
        self.tell(claim, note);
        Ok(())
    }

    /// Writes a claim's status; the claim as it is then.
    async fn show(
        &self,
        claim: &PersistentVolumeClaim,
        status: &PersistentVolumeClaimStatus,
    ) -> Result<PersistentVolumeClaim> {
        let written = write::status(&self.ctx, claim, claim.status.as_ref(), status).await?;
        Ok(written.unwrap_or_else(|| claim.clone()))
    }

    fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        self.ctx.events.record(NAME, claim, note);
    }
}
