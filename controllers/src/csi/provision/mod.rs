//! Volumes made on demand: claims of a class whose provisioner is a CSI driver.
//!
//! [`core`] decides and says what the driver is asked; [`source`] is what a volume is filled from;
//! [`delete`] is the end of such volumes. No volume is forgotten or made twice: a finalizer of the
//! claim comes before the driver's call, the volume's name is the claim's uid, and the finalizer
//! goes only when the volume is in the API, or the driver has none.

pub mod core;
pub mod delete;
pub mod source;

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use peapod_api::storage::SELECTED_NODE;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{CreateVolumeRequest, DeleteVolumeRequest};
use serde_json::json;
use tonic::Code;

use self::core::{PROVISIONING, Step, Wish};
use self::source::Source;
use super::drivers::{Drivers, Job, Reached};
use super::parameters::Secrets;
use super::topology::World;
use super::{WORKERS, finalizers, pauses, secret};
use crate::common::Key;
use crate::shell::backoff::Backoff;
use crate::shell::events::Note;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};
use crate::volume::{local, matching};

const NAME: &str = "csi-provisioner";

struct Provisioner {
    ctx: Context,
    drivers: Drivers,
    pauses: Backoff<String>,
}

/// One attempt: what is known of the claim, and the driver.
struct Attempt<'a> {
    claim: &'a PersistentVolumeClaim,
    class: &'a StorageClass,
    reached: Arc<Reached>,
}

/// Wires the loop; its keys are claims.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    let waiting = move || -> Vec<Key> {
        let claims = informers.claims.all();
        let claims = claims
            .iter()
            .filter(|claim| core::provisioner(claim).is_some());
        let waiting = claims.filter(|claim| {
            claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_ref())
                .is_none()
        });
        waiting.map(|claim| Key::of(&**claim)).collect()
    };
    let (on_nodes, on_drivers, on_classes) = (waiting.clone(), waiting.clone(), waiting);
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.claims)
        .on(&ctx.informers.volumes, |change| {
            let spec = change.latest().and_then(|volume| volume.spec.as_ref());
            let reference = spec
                .and_then(|spec| spec.claim_ref.clone())
                .unwrap_or_default();
            let claim = (reference.namespace, reference.name);
            match claim {
                (Some(namespace), Some(name)) => Some(Key::new(namespace, name)),
                _ => None,
            }
        })
        .on(&ctx.informers.csi_nodes, move |change| {
            match drivers_of(change.old.as_deref()) == drivers_of(change.new.as_deref()) {
                true => Vec::new(),
                false => on_nodes(),
            }
        })
        .on(&ctx.informers.csi_drivers, move |_| on_drivers())
        .on(&ctx.informers.storage_classes, move |_| on_classes())
        .reads(&ctx.informers.attributes_classes)
        .reads(&ctx.informers.nodes)
        .workers(WORKERS)
        .run(
            tasks,
            Provisioner {
                ctx: ctx.clone(),
                drivers: drivers.clone(),
                pauses: pauses(),
            },
        );
    delete::start(ctx, drivers, tasks);
}

fn drivers_of(node: Option<&CSINode>) -> Vec<&String> {
    let drivers = node.into_iter().flat_map(|node| &node.spec.drivers);
    drivers.map(|driver| &driver.name).collect()
}

impl Controller for Provisioner {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.ctx.informers;
        let Some(claim) = informers.claims.get(key) else {
            return Ok(Outcome::Done);
        };
        if core::provisioner(&claim).is_none() {
            return Ok(Outcome::Done);
        }
        let class = matching::claim_class(&claim);
        let class = class.and_then(|name| informers.storage_classes.get(&Key::cluster(name)));
        let node = core::selected_node(&claim);
        let node = node.and_then(|name| informers.nodes.get(&Key::cluster(name)));
        match core::step(
            &claim,
            class.as_deref(),
            node.as_deref(),
            self.made(&claim).await?,
        ) {
            Step::Nothing => Ok(Outcome::Done),
            Step::Settle => self.settle(&claim).await,
            Step::Reschedule => self.reschedule(key).await,
            step @ (Step::Provision | Step::Undo) => {
                let Some(class) = class else {
                    return self.give_up(&claim, "its StorageClass is gone").await;
                };
                self.attempt(&claim, &class, node.as_deref(), step).await
            }
        }
    }
}

impl Provisioner {
    /// Whether the claim's volume is in the API: asked live where the cache may be late and
    /// something hangs on it.
    async fn made(&self, claim: &PersistentVolumeClaim) -> Result<bool> {
        let key = Key::cluster(local::name(claim));
        if self.ctx.informers.volumes.get(&key).is_some() {
            return Ok(true);
        }
        let held = core::is_held(&claim.metadata, PROVISIONING);
        Ok(held
            && write::get::<PersistentVolume>(&self.ctx, &key)
                .await?
                .is_some())
    }

    async fn attempt(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: Option<&Node>,
        step: Step,
    ) -> Result<Outcome> {
        let near = node.and_then(|node| node.metadata.name.as_deref());
        let driver = &class.provisioner;
        let reached = match self.drivers.reach(driver, Job::Provisioner, near).await {
            Ok(Some(reached)) => reached,
            // Its next registration wakes the claim.
            Ok(None) => return Ok(Outcome::Done),
            Err(error) => return self.later(claim, class, &error.to_string()),
        };
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        if let Some(wait) = self.pauses.next(&uid, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let attempt = Attempt {
            claim,
            class,
            reached,
        };
        let request = match self.request(&attempt, near).await? {
            Ok(Some(request)) => request,
            Ok(None) => {
                let text = "Assuming an external populator will provision the volume";
                self.tell(claim, Note::normal("Provisioning", text));
                return Ok(Outcome::Done);
            }
            Err(fault) if step == Step::Undo => return self.give_up(claim, &fault).await,
            Err(fault) => return self.later(claim, class, &fault),
        };
        match step {
            Step::Undo => self.undo(&attempt, request).await,
            _ => self.provision(&attempt, request).await,
        }
    }

    /// What the driver is to be asked; none if somebody else fills the volume.
    async fn request(
        &self,
        attempt: &Attempt<'_>,
        selected: Option<&str>,
    ) -> Result<Result<Option<CreateVolumeRequest>, String>> {
        let wish = self.wish(attempt);
        let wish = Wish {
            attributes: wish.1.as_deref(),
            ..wish.0
        };
        let (claim, abilities) = (attempt.claim, &attempt.reached.abilities);
        if !abilities.can(Call::CreateDeleteVolume) {
            return Ok(Err("CSI driver does not support dynamic provisioning: controller CREATE_DELETE_VOLUME capability is not reported".to_owned()));
        }
        let driver = &attempt.class.provisioner;
        let source = match source::find(&self.ctx, claim, driver, abilities).await? {
            Ok(Source::Foreign) => return Ok(Ok(None)),
            Ok(Source::Empty) => None,
            Ok(Source::Of(source)) => Some(source),
            Err(fault) => {
                let what = "error getting handle for DataSource";
                return Ok(Err(format!("{what}: {fault}")));
            }
        };
        let place = match abilities.topology {
            false => None,
            true => match self.place(attempt, selected) {
                Ok(place) => place,
                Err(fault) => {
                    let what = "error generating accessibility requirements";
                    return Ok(Err(format!("{what}: {fault}")));
                }
            },
        };
        let made = wish.request(source, place);
        let secret_at = wish.secret(Secrets::Provisioner);
        let (mut request, at) = match (made, secret_at) {
            (Ok(request), Ok(at)) => (request, at),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err(fault)),
        };
        match secret(&self.ctx, at.as_ref()).await? {
            Ok(secrets) => request.secrets = secrets,
            Err(fault) => return Ok(Err(fault)),
        }
        Ok(Ok(Some(request)))
    }

    fn wish<'a>(
        &self,
        attempt: &'a Attempt<'_>,
    ) -> (
        Wish<'a>,
        Option<Arc<k8s_openapi::api::storage::v1::VolumeAttributesClass>>,
    ) {
        let spec = attempt.claim.spec.as_ref();
        let attributes = spec.and_then(|spec| spec.volume_attributes_class_name.as_ref());
        let classes = &self.ctx.informers.attributes_classes;
        let attributes = attributes.and_then(|name| classes.get(&Key::cluster(name)));
        let wish = Wish {
            claim: attempt.claim,
            class: attempt.class,
            attributes: None,
            abilities: &attempt.reached.abilities,
        };
        (wish, attributes)
    }

    fn place(
        &self,
        attempt: &Attempt<'_>,
        selected: Option<&str>,
    ) -> Result<Option<peapod_csi::v1::TopologyRequirement>, String> {
        let world = World {
            driver: &attempt.class.provisioner,
            csi_nodes: &self.ctx.informers.csi_nodes.all(),
            nodes: &self.ctx.informers.nodes.all(),
        };
        let allowed = attempt.class.allowed_topologies.as_deref();
        let name = attempt.claim.metadata.name.as_deref();
        world.requirement(
            allowed.unwrap_or_default(),
            selected,
            name.unwrap_or_default(),
        )
    }

    async fn provision(
        &self,
        attempt: &Attempt<'_>,
        request: CreateVolumeRequest,
    ) -> Result<Outcome> {
        let Attempt {
            claim,
            class,
            reached,
        } = attempt;
        let held = finalizers::add(&self.ctx, *claim, PROVISIONING).await?;
        let claim = &held.unwrap_or_else(|| (*claim).clone());
        let key = Key::of(claim);
        let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.tell(claim, Note::normal("Provisioning", message));
        let (secrets, from_source) = (
            request.secrets.clone(),
            request.volume_content_source.is_some(),
        );
        let made = match reached.driver.call(request).await {
            Ok(answer) => answer.volume.unwrap_or_default(),
            Err(error) => return self.refused(claim, class, reached, &error).await,
        };
        let wish = self.wish(attempt).0;
        let object = match wish.fault(&made, from_source) {
            None => wish.volume(&made),
            Some(fault) => Err(fault),
        };
        let object = match object {
            Ok(object) => object,
            Err(fault) => {
                let volume_id = made.volume_id;
                reached
                    .driver
                    .call(DeleteVolumeRequest { volume_id, secrets })
                    .await?;
                return self.later(claim, class, &fault);
            }
        };
        match write::create(&self.ctx, &object).await {
            Err(error) if !error.is_already_exists() => {
                let message =
                    format!("Error creating provisioned PV object for claim {key}: {error}");
                self.tell(claim, Note::warning("ProvisioningFailed", message));
                return Err(error);
            }
            _ => {}
        }
        let message = format!("Successfully provisioned volume {}", local::name(claim));
        self.tell(claim, Note::normal("ProvisioningSucceeded", message));
        self.settle(claim).await
    }

    /// After a refusal: whether anything may be there decides whether the claim stays held; a
    /// place that is full sends the pod elsewhere.
    async fn refused(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        reached: &Reached,
        error: &peapod_csi::Error,
    ) -> Result<Outcome> {
        let outcome = self.later(claim, class, &error.status())?;
        let full = error.code == Code::ResourceExhausted && reached.abilities.topology;
        if full && core::selected_node(claim).is_some() {
            finalizers::remove(&self.ctx, claim, PROVISIONING).await?;
            return self.reschedule(&Key::of(claim)).await;
        }
        if error.is_final() {
            finalizers::remove(&self.ctx, claim, PROVISIONING).await?;
        }
        Ok(outcome)
    }

    /// Asks for the same volume again to learn what it is, and deletes it.
    async fn undo(&self, attempt: &Attempt<'_>, request: CreateVolumeRequest) -> Result<Outcome> {
        let Attempt {
            claim,
            class,
            reached,
        } = attempt;
        let secrets = request.secrets.clone();
        match reached.driver.call(request).await {
            Ok(answer) => {
                let volume_id = answer.volume.unwrap_or_default().volume_id;
                let gone = reached
                    .driver
                    .call(DeleteVolumeRequest { volume_id, secrets });
                match gone.await {
                    Ok(_) => self.settle(claim).await,
                    Err(error) => self.later(claim, class, &error.status()),
                }
            }
            Err(error) if error.is_final() => self.settle(claim).await,
            Err(error) => self.later(claim, class, &error.status()),
        }
    }

    /// Lets a claim go whose volume nobody can ask for any more.
    async fn give_up(&self, claim: &PersistentVolumeClaim, fault: &str) -> Result<Outcome> {
        if !core::is_held(&claim.metadata, PROVISIONING) {
            return Ok(Outcome::Done);
        }
        let message = format!(
            "cannot find out whether the driver made volume {}: {fault}; if it did, delete it there",
            local::name(claim)
        );
        self.tell(claim, Note::warning("ProvisioningCleanupFailed", message));
        self.settle(claim).await
    }

    async fn settle(&self, claim: &PersistentVolumeClaim) -> Result<Outcome> {
        finalizers::remove(&self.ctx, claim, PROVISIONING).await?;
        self.pauses
            .forget(&claim.metadata.uid.clone().unwrap_or_default());
        Ok(Outcome::Done)
    }

    async fn reschedule(&self, key: &Key) -> Result<Outcome> {
        let patch = json!({"metadata": {"annotations": { SELECTED_NODE: null }}});
        write::patch::<PersistentVolumeClaim>(&self.ctx, key, patch).await?;
        Ok(Outcome::Done)
    }

    /// Tells of a failure; the claim's pause has begun with the attempt.
    fn later(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        fault: &str,
    ) -> Result<Outcome> {
        let class = class.metadata.name.as_deref().unwrap_or_default();
        let message = format!("failed to provision volume with StorageClass \"{class}\": {fault}");
        self.tell(claim, Note::warning("ProvisioningFailed", message));
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        Ok(Outcome::After(self.pauses.pause(&uid, Instant::now())))
    }

    fn tell(&self, claim: &PersistentVolumeClaim, note: Note) {
        self.ctx.events.record(NAME, claim, note);
    }
}
