//! VolumeAttachments carried out: drivers are asked to publish volumes to nodes, and to take them
//! back. The core is [`step`]. The attachments come from [`super::attach`].

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest};
use serde_json::{Value, json};

use super::attach::source;
use super::drivers::{Drivers, Job, Reached, on_node, sanitized};
use super::provision::core::is_held;
use super::{WORKERS, capability, finalizers, pauses, secret};
use crate::common::Key;
use crate::shell::backoff::Backoff;
use crate::shell::context::term;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "csi-attacher";
/// Annotation of an attachment: the driver's name of the node, which may be gone by the end.
const NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";
/// What stands in the place of a namespace in keys of volumes.
const VOLUMES: &str = "volumes";

struct Attacher {
    ctx: Context,
    drivers: Drivers,
    pauses: Backoff<(String, bool)>,
}

/// What an attachment needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Attach,
    Detach,
}

fn finalizer(driver: &str) -> String {
    format!("external-attacher/{}", sanitized(driver))
}

fn step(attachment: &VolumeAttachment) -> Step {
    let held = is_held(&attachment.metadata, &finalizer(&attachment.spec.attacher));
    let attached = attachment
        .status
        .as_ref()
        .is_some_and(|status| status.attached);
    match attachment.metadata.deletion_timestamp.is_some() {
        true if held => Step::Detach,
        false if !attached => Step::Attach,
        _ => Step::Nothing,
    }
}

/// Wires the loop; its keys are attachments, and volumes that wait for their last one to go.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.attachments)
        .on(&ctx.informers.attachments, |change| {
            let gone = change.old.as_deref().filter(|_| change.new.is_none());
            let volume = gone.and_then(|one| one.spec.source.persistent_volume_name.as_ref());
            volume.map(|name| Key::new(VOLUMES, name))
        })
        .on(&ctx.informers.volumes, |change| {
            let deleting =
                |volume: &&PersistentVolume| volume.metadata.deletion_timestamp.is_some();
            let volume = change.new.as_deref().filter(deleting);
            volume.map(|_| Key::new(VOLUMES, &change.key.name))
        })
        .on(&ctx.informers.csi_nodes, move |_| {
            let attachments = informers.attachments.all();
            let open = attachments.iter().filter(|one| step(one) != Step::Nothing);
            open.map(|one| Key::of(&**one)).collect::<Vec<_>>()
        })
        .reads(&ctx.informers.csi_drivers)
        .reads(&ctx.informers.nodes)
        .workers(WORKERS)
        .run(
            tasks,
            Attacher {
                ctx: ctx.clone(),
                drivers: drivers.clone(),
                pauses: pauses(),
            },
        );
}

impl Controller for Attacher {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        if key.namespace == VOLUMES {
            return self.free(&key.name).await;
        }
        let Some(attachment) = self.ctx.informers.attachments.get(key) else {
            return Ok(Outcome::Done);
        };
        let step = step(&attachment);
        if step == Step::Nothing {
            return Ok(Outcome::Done);
        }
        let driver = &attachment.spec.attacher;
        // The node's own plugin may be the only one that knows the node.
        let near = Some(attachment.spec.node_name.as_str());
        let Some(reached) = self.drivers.reach(driver, Job::Attacher, near).await? else {
            return Ok(Outcome::Done);
        };
        let thing = (
            attachment.metadata.uid.clone().unwrap_or_default(),
            step == Step::Attach,
        );
        if let Some(wait) = self.pauses.next(&thing, Instant::now()) {
            return Ok(Outcome::After(wait));
        }
        let result = match step {
            Step::Attach => self.attach(&attachment, &reached).await,
            _ => self.detach(&attachment, &reached).await,
        }?;
        let Err((fault, code)) = result else {
            self.pauses.forget(&thing);
            return Ok(Outcome::Done);
        };
        self.show_fault(&attachment, step, &fault, code).await?;
        Ok(Outcome::After(self.pauses.pause(&thing, Instant::now())))
    }
}

/// A fault and its gRPC code, if the driver told one.
type Fault = (String, Option<i32>);

fn told(error: &peapod_csi::Error) -> Fault {
    (error.status(), Some(error.code as i32))
}

impl Attacher {
    fn volume(&self, attachment: &VolumeAttachment) -> Option<std::sync::Arc<PersistentVolume>> {
        let name = attachment.spec.source.persistent_volume_name.as_ref()?;
        self.ctx.informers.volumes.get(&Key::cluster(name))
    }

    /// The driver's name of the attachment's node.
    fn node_id(&self, attachment: &VolumeAttachment) -> Option<String> {
        let node = self
            .ctx
            .informers
            .csi_nodes
            .get(&Key::cluster(&attachment.spec.node_name));
        let driver = node
            .as_deref()
            .and_then(|node| on_node(node, &attachment.spec.attacher));
        let noted = || {
            attachment
                .metadata
                .annotations
                .as_ref()?
                .get(NODE_ID)
                .cloned()
        };
        driver.map(|driver| driver.node_id.clone()).or_else(noted)
    }

    async fn attach(
        &self,
        attachment: &VolumeAttachment,
        reached: &Reached,
    ) -> Result<Result<(), Fault>> {
        if !reached.abilities.can(Call::PublishUnpublishVolume) {
            return self.show_attached(attachment, Value::Null).await.map(Ok);
        }
        let name = attachment
            .spec
            .source
            .persistent_volume_name
            .as_deref()
            .unwrap_or_default();
        let Some(volume) = self.volume(attachment) else {
            return Ok(Err((
                format!("could not find PersistentVolume \"{name}\""),
                None,
            )));
        };
        let Some(source) = source(&volume).filter(|_| volume.metadata.deletion_timestamp.is_none())
        else {
            return Ok(Err((
                format!("PersistentVolume \"{name}\" is marked for deletion or is no CSI volume"),
                None,
            )));
        };
        let Some(node_id) = self.node_id(attachment) else {
            let (driver, node) = (&attachment.spec.attacher, &attachment.spec.node_name);
            return Ok(Err((
                format!("CSINode {node} does not contain driver {driver}"),
                None,
            )));
        };
        let abilities = &reached.abilities;
        let used = capability::of_volume(&volume, abilities.can(Call::SingleNodeMultiWriter));
        let secrets = secret(&self.ctx, source.controller_publish_secret_ref.as_ref()).await?;
        let (used, secrets) = match (used, secrets) {
            (Ok(used), Ok(secrets)) => (used, secrets),
            (Err(fault), _) | (_, Err(fault)) => return Ok(Err((fault, None))),
        };
        let finalizer = finalizer(&attachment.spec.attacher);
        finalizers::add(&self.ctx, &*volume, &finalizer).await?;
        self.hold(attachment, &finalizer, &node_id).await?;
        let request = ControllerPublishVolumeRequest {
            volume_id: source.volume_handle.clone(),
            node_id,
            volume_capability: Some(used),
            readonly: source.read_only == Some(true) && abilities.can(Call::PublishReadonly),
            secrets,
            volume_context: source
                .volume_attributes
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        };
        match reached.driver.call(request).await {
            Ok(answer) => self
                .show_attached(attachment, json!(answer.publish_context))
                .await
                .map(Ok),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    /// Marks an attachment as ours before the driver is asked: whatever ends in between, it will
    /// be asked to take the volume back.
    async fn hold(
        &self,
        attachment: &VolumeAttachment,
        finalizer: &str,
        node_id: &str,
    ) -> Result<()> {
        let mut new = attachment.clone();
        let annotations = new.metadata.annotations.get_or_insert_default();
        annotations.insert(NODE_ID.to_owned(), node_id.to_owned());
        let finalizers = new.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|one| one == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        write::update(&self.ctx, attachment, &new).await.map(drop)
    }

    async fn detach(
        &self,
        attachment: &VolumeAttachment,
        reached: &Reached,
    ) -> Result<Result<(), Fault>> {
        let finalizer = finalizer(&attachment.spec.attacher);
        let volume = self.volume(attachment);
        let source = volume.as_deref().and_then(source);
        // Without the volume nobody knows what to take back.
        if let Some(source) = source.filter(|_| reached.abilities.can(Call::PublishUnpublishVolume))
        {
            let Some(node_id) = self.node_id(attachment) else {
                return Ok(Err((
                    "the driver's name of the node is not known".to_owned(),
                    None,
                )));
            };
            let secrets = secret(&self.ctx, source.controller_publish_secret_ref.as_ref()).await?;
            let request = ControllerUnpublishVolumeRequest {
                volume_id: source.volume_handle.clone(),
                node_id,
                // A secret that is gone does not keep the volume: drivers seldom need it here.
                secrets: secrets.unwrap_or_default(),
            };
            if let Err(error) = reached.driver.call(request).await {
                return Ok(Err(told(&error)));
            }
        }
        finalizers::remove(&self.ctx, attachment, &finalizer)
            .await
            .map(Ok)
    }

    async fn show_attached(&self, attachment: &VolumeAttachment, metadata: Value) -> Result<()> {
        let status = json!({"attached": true, "attachmentMetadata": metadata, "attachError": null});
        self.show(attachment, status).await
    }

    async fn show_fault(
        &self,
        attachment: &VolumeAttachment,
        step: Step,
        fault: &str,
        code: Option<i32>,
    ) -> Result<()> {
        let error = json!(VolumeError {
            error_code: code,
            message: Some(fault.to_owned()),
            time: Some(Time(Timestamp::now())),
        });
        let status = match step {
            Step::Attach => json!({"attached": false, "attachError": error}),
            // Required, and still so.
            _ => json!({"attached": true, "detachError": error}),
        };
        self.show(attachment, status).await
    }

    async fn show(&self, attachment: &VolumeAttachment, status: Value) -> Result<()> {
        let patch = json!({"metadata": {"uid": attachment.metadata.uid}, "status": status});
        match write::patch_status::<VolumeAttachment>(&self.ctx, &Key::of(attachment), patch).await
        {
            Err(error) if error.is_not_found() => Ok(()),
            result => result.map(drop),
        }
    }

    /// Lets a volume that is being deleted go when nothing attaches it any more.
    async fn free(&self, name: &str) -> Result<Outcome> {
        let Some(volume) = self.ctx.informers.volumes.get(&Key::cluster(name)) else {
            return Ok(Outcome::Done);
        };
        let attachments = self
            .ctx
            .informers
            .attachments
            .indexed(&term::of_volume(name));
        let Some(source) = source(&volume) else {
            return Ok(Outcome::Done);
        };
        if attachments.is_empty() && volume.metadata.deletion_timestamp.is_some() {
            finalizers::remove(&self.ctx, &*volume, &finalizer(&source.driver)).await?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_carried_out_once_each_way() {
        let attachment = |held: bool, deleting: bool, attached: bool| -> VolumeAttachment {
            let finalizers: Vec<String> = held.then(|| finalizer("d.io")).into_iter().collect();
            serde_json::from_value(json!({
                "metadata": {"finalizers": finalizers, "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
                "spec": {"attacher": "d.io", "nodeName": "n", "source": {}},
                "status": {"attached": attached},
            }))
            .unwrap()
        };
        assert_eq!(finalizer("d.io"), "external-attacher/d-io");
        for (held, deleting, attached, expected) in [
            (false, false, false, Step::Attach),
            (true, false, false, Step::Attach),
            (true, false, true, Step::Nothing),
            (true, true, true, Step::Detach),
            (true, true, false, Step::Detach),
            (false, true, true, Step::Nothing),
        ] {
            let attachment = attachment(held, deleting, attached);
            assert_eq!(step(&attachment), expected, "{held} {deleting} {attached}");
        }
    }
}
