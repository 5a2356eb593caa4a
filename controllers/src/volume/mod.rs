//! PersistentVolumes and the claims on them.
//!
//! [`matching`] finds the volume for a claim, [`core`] decides about claims and volumes,
//! [`local`] describes the built-in class, [`protection`] keeps what is in use, [`ephemeral`]
//! makes the claims of generic ephemeral volumes. One worker
//! binds, and every write is bound to the resourceVersion it was decided on, so that no volume
//! is given away twice.

pub mod core;
mod ephemeral;
pub mod local;
pub mod matching;
pub mod protection;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use peapod_api::storage::{CLASS, SELECTED_NODE};
use serde_json::json;

use self::core::{ClaimStep, Observed, VolumeStep};
use crate::common::Key;
use crate::shell::context::Informers;
use crate::shell::events::Note;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "persistentvolume-binder";
const COMPONENT: &str = "persistentvolume-controller";

struct Binder(Context);
struct BuiltIn(Context);

/// Wires the binder, the protection and the built-in class.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    protection::start(ctx, tasks);
    ephemeral::start(ctx, tasks);
    let wired = Loop::new(ctx, "storageclass").reads(&ctx.informers.storage_classes);
    wired.queue().add(Key::cluster(CLASS));
    wired.run(tasks, BuiltIn(ctx.clone()));
    let (of_volumes, of_classes) = (ctx.informers.clone(), ctx.informers.clone());
    // Claims have a namespace and volumes none, so that one queue takes the keys of both.
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.claims)
        .on(&ctx.informers.claims, volumes_of)
        .on_self(&ctx.informers.volumes)
        .on(&ctx.informers.volumes, move |change| {
            claims_of(&of_volumes, change)
        })
        .on(&ctx.informers.storage_classes, move |_| {
            unbound(&of_classes)
        })
        .reads(&ctx.informers.nodes)
        .workers(1)
        .run(tasks, Binder(ctx.clone()));
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    let status = claim.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn unbound(informers: &Informers) -> Vec<Key> {
    let claims = informers.claims.all();
    let unbound = claims.iter().filter(|claim| phase(claim) != "Bound");
    unbound.map(|claim| Key::of(&**claim)).collect()
}

/// The volumes that a changed claim names.
fn volumes_of(change: &Change<PersistentVolumeClaim>) -> Vec<Key> {
    let named = change
        .both()
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_ref());
    named.map(Key::cluster).collect()
}

/// The claim that a changed volume names, or all that wait, when it is free.
fn claims_of(informers: &Informers, change: &Change<PersistentVolume>) -> Vec<Key> {
    let named = change
        .both()
        .filter_map(matching::claim_ref)
        .map(|reference| {
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            Key::new(text(&reference.namespace), text(&reference.name))
        });
    let free = change
        .new
        .as_deref()
        .is_some_and(|volume| matching::claim_ref(volume).is_none());
    named
        .chain(if free { unbound(informers) } else { Vec::new() })
        .collect()
}

impl Controller for BuiltIn {
    /// Makes the class once; what users make of it afterwards is theirs.
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let classes = &self.0.informers.storage_classes;
        if classes.get(key).is_none() {
            let default = !classes.all().iter().any(|class| local::is_default(class));
            match write::create(&self.0, &local::class(default)).await {
                Err(error) if error.is_already_exists() => {}
                result => result.map(drop)?,
            }
        }
        Ok(Outcome::Done)
    }
}

impl Controller for Binder {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        match key.namespace.is_empty() {
            true => self.volume(key).await,
            false => self.claim(key).await,
        }?;
        Ok(Outcome::Done)
    }
}

impl Binder {
    async fn claim(&self, key: &Key) -> Result<()> {
        let informers = &self.0.informers;
        let Some(claim) = informers.claims.get(key) else {
            return Ok(());
        };
        let volumes = informers.volumes.all();
        let classes = informers.storage_classes.all();
        let class = matching::claim_class(&claim);
        let class = class.and_then(|name| informers.storage_classes.get(&Key::cluster(name)));
        let annotations = claim.metadata.annotations.as_ref();
        let selected = annotations.and_then(|all| all.get(SELECTED_NODE));
        let node = selected.and_then(|name| informers.nodes.get(&Key::cluster(name)));
        let step = core::claim_step(&Observed {
            claim: &claim,
            volumes: &volumes,
            class: class.as_deref(),
            default_class: default_class(&classes),
            node: node.as_deref(),
        });
        match step {
            ClaimStep::Bind(volume) => return self.bind(&claim, &volume).await,
            // Nothing new is made for a claim that goes.
            _ if claim.metadata.deletion_timestamp.is_some() => return Ok(()),
            ClaimStep::Provision => {
                if let (Some(class), Some(node)) = (&class, &node) {
                    let dir = &self.0.config.local_volumes_dir;
                    self.provision(&claim, &local::volume(&claim, class, node, dir))
                        .await?;
                }
            }
            ClaimStep::AskProvisioner(name) => self.ask(&claim, &name).await?,
            ClaimStep::SetClass(name) => {
                let patch = json!({"spec": {"storageClassName": name}});
                write::patch::<PersistentVolumeClaim>(&self.0, key, patch).await?;
            }
            ClaimStep::Reschedule => {
                let annotations = json!({ SELECTED_NODE: null });
                let patch = json!({"metadata": {"annotations": annotations}});
                write::patch::<PersistentVolumeClaim>(&self.0, key, patch).await?;
            }
            ClaimStep::Wait(note) => note.into_iter().for_each(|note| self.tell(&claim, note)),
            ClaimStep::Lose(note) => {
                self.tell(&claim, note);
                return self
                    .show(&claim, &core::unbound_status(&claim, "Lost"))
                    .await;
            }
        }
        self.show(&claim, &core::unbound_status(&claim, "Pending"))
            .await
    }

    /// Binds both ways, the volume first: it is what must not be given away twice.
    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<()> {
        let bound = core::bound_volume(volume, claim);
        let written = write::update(&self.0, volume, &bound).await?;
        self.phase(&written.unwrap_or(bound), "Bound").await?;
        let bound = core::bound_claim(claim, volume);
        let written = write::update(&self.0, claim, &bound).await?;
        let bound = written.unwrap_or(bound);
        self.show(&bound, &core::bound_status(&bound, volume)).await
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<()> {
        match write::create(&self.0, volume).await {
            Ok(_) => {
                let name = local::name(claim);
                let message = format!("Successfully provisioned volume {name}");
                self.tell(claim, Note::normal("ProvisioningSucceeded", message));
                Ok(())
            }
            // Made before, and the watch will show it.
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                let message = format!("Error creating provisioned PV object: {error}");
                self.tell(claim, Note::warning("ProvisioningFailed", message));
                Err(error)
            }
        }
    }

    /// Hands the claim to a provisioner outside.
    async fn ask(&self, claim: &PersistentVolumeClaim, provisioner: &str) -> Result<()> {
        let annotations =
            core::STORAGE_PROVISIONERS.map(|name| (name.to_owned(), json!(provisioner)));
        let annotations: serde_json::Map<_, _> = annotations.into_iter().collect();
        let mut new = claim.clone();
        let known = new.metadata.annotations.get_or_insert_default();
        for name in core::STORAGE_PROVISIONERS {
            known.insert(name.to_owned(), provisioner.to_owned());
        }
        if new != *claim {
            let patch = json!({"metadata": {"annotations": annotations}});
            write::patch::<PersistentVolumeClaim>(&self.0, &Key::of(claim), patch).await?;
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner \
             '{provisioner}' or manually by the system administrator. If volume creation is \
             delayed, please verify that the provisioner is running and correctly registered."
        );
        self.tell(claim, Note::normal("ExternalProvisioning", message));
        Ok(())
    }

    async fn show(
        &self,
        claim: &PersistentVolumeClaim,
        new: &k8s_openapi::api::core::v1::PersistentVolumeClaimStatus,
    ) -> Result<()> {
        write::status(&self.0, claim, claim.status.as_ref(), new).await?;
        Ok(())
    }

    fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        self.0.events.record(COMPONENT, claim, note);
    }

    async fn volume(&self, key: &Key) -> Result<()> {
        let Some(volume) = self.0.informers.volumes.get(key) else {
            return Ok(());
        };
        let claim = self.claim_of(&volume).await?;
        match core::volume_step(&volume, claim.as_ref()) {
            VolumeStep::Phase(phase) => self.phase(&volume, phase).await,
            VolumeStep::Unbind { keep_name } => {
                let unbound = core::unbound_volume(&volume, keep_name);
                write::update(&self.0, &*volume, &unbound).await?;
                Ok(())
            }
            VolumeStep::Fail => {
                let status = volume.status.as_ref();
                if status.and_then(|status| status.phase.as_deref()) != Some("Failed") {
                    let note = Note::warning("VolumeFailedDelete", core::NO_DELETER);
                    self.0.events.record(COMPONENT, &*volume, note);
                }
                self.phase(&volume, "Failed").await
            }
            VolumeStep::Delete => {
                self.phase(&volume, "Released").await?;
                if volume.metadata.deletion_timestamp.is_none() {
                    write::delete::<PersistentVolume>(&self.0, &volume.metadata).await?;
                }
                Ok(())
            }
        }
    }

    /// The claim that a volume names. One that the cache does not show is asked for: releasing
    /// a volume loses data, and the claim may only be younger than the cache.
    async fn claim_of(&self, volume: &PersistentVolume) -> Result<Option<PersistentVolumeClaim>> {
        let Some(reference) = matching::claim_ref(volume) else {
            return Ok(None);
        };
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let key = Key::new(text(&reference.namespace), text(&reference.name));
        let cached = self.0.informers.claims.get(&key);
        match cached.filter(|claim| claim.metadata.uid == reference.uid) {
            Some(claim) => Ok(Some(PersistentVolumeClaim::clone(&claim))),
            None => write::get(&self.0, &key).await,
        }
    }

    async fn phase(&self, volume: &PersistentVolume, phase: &str) -> Result<()> {
        let new = core::volume_status(volume, phase, Timestamp::now());
        write::status(&self.0, volume, volume.status.as_ref(), &new).await?;
        Ok(())
    }
}

/// The newest of the default classes, as upstream chooses.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&str> {
    let defaults = classes.iter().filter(|class| local::is_default(class));
    let newest = defaults.max_by_key(|class| {
        let created = class.metadata.creation_timestamp.as_ref();
        (
            created.map(|time| time.0),
            std::cmp::Reverse(class.metadata.name.clone()),
        )
    });
    newest.and_then(|class| class.metadata.name.as_deref())
}
