//! Puts a volume in place for a pod: waits for its driver and its attachment, stages it on the node,
//! publishes it for the pod, gives it to the pod's group, and lets it grow.
//!
//! Every step may be repeated: what is in place already is left as it is, and after a failure all of
//! it is gone through again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret, SecretReference};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use kube::{Api, ResourceExt};
use peapod_api::k8s_openapi;
use peapod_csi::v1::{NodePublishVolumeRequest, NodeStageVolumeRequest};

use super::driver::{Capability, Registered};
use super::ledger::{Published, Volume};
use super::request::{self, TOKENS, Traits};
use super::spec::{Spec, unique_name};
use super::{Csi, expand};
use crate::pods::Context;
use crate::volumes::place::Group;
use crate::volumes::token::Tokens;
use crate::volumes::{Located, mounts, ownership};

/// Longest time for a driver to register: on a node that starts it is a pod like others.
const REGISTER: Duration = Duration::from_secs(20);
/// Longest time for the volume to be attached, within the time for all volumes.
const ATTACH: Duration = Duration::from_secs(90);
/// Between two calls for a driver that wants to be asked to publish again, seconds.
const REPUBLISH_S: i64 = 60;

/// The pod that a volume is for.
#[derive(Clone, Copy)]
pub struct For<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its tokens.
    pub tokens: &'a Tokens,
    /// Its group.
    pub group: Group,
}

/// Where a volume is, and when to ask again.
pub type Mounted = (Located, Option<Timestamp>);

/// Puts a volume in place for a pod.
pub async fn mount(context: &Context, spec: &Spec, pod: For<'_>) -> Result<Mounted, String> {
    let csi = &context.csi;
    let drivers: Api<CSIDriver> = Api::all(context.client.clone());
    let object = drivers.get_opt(&spec.driver).await;
    let object = object.map_err(|e| format!("cannot read csidriver \"{}\": {e}", spec.driver))?;
    let traits = Traits::of(object.as_ref());
    traits.admit(spec)?;
    let uid = pod.pod.uid().unwrap_or_default();
    let volume = Volume::of(spec);
    let _turn = csi.store.turn(&volume).await;
    let path = match spec.block {
        true => csi.drivers.layout.published_block(&uid, &spec.name),
        false => csi.drivers.layout.published(&uid, &spec.name),
    };
    let known = csi
        .store
        .read(|ledger| ledger.of(&uid, &spec.name).cloned());
    let in_place = known.is_some_and(|known| known.done) && stands(&path, spec.block).await;
    let grown = spec.has_grown();
    let mut refresh_at = None;
    if !in_place || traits.republish || grown {
        let driver = csi.drivers.wait(&spec.driver, REGISTER).await?;
        let work = Work {
            context,
            csi,
            spec,
            traits: &traits,
            driver: &driver,
            pod,
            uid: &uid,
            path: &path,
        };
        if !in_place || traits.republish {
            refresh_at = work.put(&volume, in_place).await?;
        }
        if grown && let Some(again) = expand::expand(context, &driver, spec, pod.pod, &path).await {
            refresh_at = Some(refresh_at.map_or(again, |at: Timestamp| at.min(again)));
        }
    }
    let read_only = spec.read_only;
    Ok((Located { path, read_only }, refresh_at))
}

/// Whether something is published at a path.
async fn stands(path: &Path, block: bool) -> bool {
    let path = path.to_owned();
    let look = move || match block {
        true => path.exists(),
        false => mounts::is_mount_point(&path),
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}

/// What the steps share.
struct Work<'a> {
    context: &'a Context,
    csi: &'a Csi,
    spec: &'a Spec,
    traits: &'a Traits,
    driver: &'a Arc<Registered>,
    pod: For<'a>,
    uid: &'a str,
    path: &'a Path,
}

impl Work<'_> {
    /// Attaches, stages and publishes; when to publish again.
    async fn put(&self, volume: &Volume, again: bool) -> Result<Option<Timestamp>, String> {
        let staging = self.staging();
        self.intend(volume, staging.clone()).await?;
        let publish_context = match self.traits.attaches(self.spec) {
            true => self.attached().await?,
            false => BTreeMap::new(),
        };
        let publish_context: HashMap<_, _> = publish_context.into_iter().collect();
        if let Some(staging) = staging.filter(|_| !again) {
            self.stage(&staging, &publish_context).await?;
        }
        let refresh_at = self.publish(publish_context).await?;
        if !again {
            self.give().await?;
        }
        let (uid, name) = (self.uid.to_owned(), self.spec.name.clone());
        let noted = self.csi.store.change(move |ledger| {
            ledger.done(&uid, &name);
            Ok(())
        });
        noted.await?;
        Ok(refresh_at)
    }

    /// Where it is staged, if the driver stages at all. What a pod brings is not staged.
    fn staging(&self) -> Option<PathBuf> {
        let (spec, layout) = (self.spec, &self.csi.drivers.layout);
        let stages = self.driver.can(Capability::StageUnstageVolume) && !spec.ephemeral;
        stages.then(|| match spec.block {
            true => layout.staged_block(&spec.name),
            false => layout.staged(&spec.driver, &spec.handle),
        })
    }

    async fn intend(&self, volume: &Volume, staging: Option<PathBuf>) -> Result<(), String> {
        let spec = self.spec.clone();
        let published = Published {
            volume: volume.clone(),
            pod: self.uid.to_owned(),
            name: spec.name.clone(),
            path: self.path.to_owned(),
            block: spec.block,
            attached: self.traits.attaches(&spec),
            done: false,
        };
        let change = self
            .csi
            .store
            .change(move |ledger| ledger.intend(&spec, published, staging));
        change.await
    }

    /// Waits until the volume is attached; what the storage system said then. The node says first
    /// that it uses the volume, so that nobody detaches it.
    async fn attached(&self) -> Result<BTreeMap<String, String>, String> {
        let (spec, node_name) = (self.spec, &self.context.config.node_name);
        let unique = unique_name(&spec.driver, &spec.handle);
        let mut node = self.context.node.clone();
        let waiting = node.wait_for(|node| {
            let status = node.status.as_ref();
            let in_use = status.and_then(|status| status.volumes_in_use.as_ref());
            let attached = status.and_then(|status| status.volumes_attached.as_ref());
            in_use.is_some_and(|all| all.contains(&unique))
                && attached.is_some_and(|all| all.iter().any(|one| one.name == unique))
        });
        let in_time = tokio::time::timeout(ATTACH, waiting).await.is_ok();
        let attachments: Api<VolumeAttachment> = Api::all(self.context.client.clone());
        let name = spec.attachment(node_name);
        let found = attachments.get_opt(&name).await;
        let found = found.map_err(|e| format!("cannot read volumeattachment \"{name}\": {e}"))?;
        let status = found.and_then(|found| found.status).unwrap_or_default();
        match (in_time && status.attached, status.attach_error) {
            (true, _) => Ok(status.attachment_metadata.unwrap_or_default()),
            (false, Some(error)) => Err(format!(
                "volume {} is not attached: {}",
                spec.handle,
                error.message.unwrap_or_default()
            )),
            (false, None) => Err(format!(
                "timed out waiting for volume {} of CSI driver {} to be attached to node \
                 {node_name} (see volumeattachment {name})",
                spec.handle, spec.driver
            )),
        }
    }

    /// Stages the volume, unless another pod of the node has it staged already: a driver would do
    /// nothing then, but could fail.
    async fn stage(
        &self,
        staging: &Path,
        publish_context: &HashMap<String, String>,
    ) -> Result<(), String> {
        let spec = self.spec;
        let others = self
            .csi
            .store
            .read(|ledger| ledger.is_done_for_others(&Volume::of(spec), self.uid));
        if others {
            return Ok(());
        }
        make_dir(staging).await?;
        let group = self.mount_group();
        let request = NodeStageVolumeRequest {
            volume_id: spec.handle.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: self.shown(staging),
            volume_capability: Some(self.capability(group)),
            secrets: secrets(self.context, spec.secrets.stage.as_ref()).await?,
            volume_context: spec.attributes.clone().into_iter().collect(),
        };
        let staged = self.driver.driver.call(request).await;
        staged.map(drop).map_err(|error| error.to_string())
    }

    async fn publish(
        &self,
        publish_context: HashMap<String, String>,
    ) -> Result<Option<Timestamp>, String> {
        let spec = self.spec;
        if let Some(parent) = self.path.parent() {
            make_dir(parent).await?;
        }
        let (tokens, renew_at) = self.tokens().await?;
        let mut secrets = secrets(self.context, spec.secrets.publish.as_ref()).await?;
        if let Some(tokens) = tokens.as_ref().filter(|_| self.traits.tokens_in_secrets) {
            secrets.insert(TOKENS.to_owned(), tokens.clone());
        }
        let group = self.mount_group();
        let staging = self.staging();
        let request = NodePublishVolumeRequest {
            volume_id: spec.handle.clone(),
            publish_context,
            staging_target_path: staging.map(|path| self.shown(&path)).unwrap_or_default(),
            target_path: self.shown(self.path),
            volume_capability: Some(self.capability(group)),
            readonly: spec.read_only,
            secrets,
            volume_context: request::context(spec, self.traits, self.pod.pod, tokens.as_deref()),
        };
        let published = self.driver.driver.call(request).await;
        published.map_err(|error| error.to_string())?;
        let after = SignedDuration::from_secs(REPUBLISH_S);
        let next = self
            .traits
            .republish
            .then(|| Timestamp::now().saturating_add(after));
        let next = next.and_then(Result::ok);
        Ok([next, renew_at.filter(|_| self.traits.republish)]
            .into_iter()
            .flatten()
            .min())
    }

    /// The pod's tokens for the driver's audiences, and when the first is to be renewed.
    async fn tokens(&self) -> Result<(Option<String>, Option<Timestamp>), String> {
        let mut all = Vec::new();
        let mut renew_at: Option<Timestamp> = None;
        for (audience, seconds) in &self.traits.tokens {
            let wanted = Some(audience.clone()).filter(|audience| !audience.is_empty());
            let held = self
                .pod
                .tokens
                .ask(&self.context.client, self.pod.pod, wanted, *seconds);
            let held = held
                .await
                .map_err(|e| format!("failed to fetch token: {e}"))?;
            renew_at = Some(renew_at.map_or(held.renew_at, |at| at.min(held.renew_at)));
            all.push((audience.clone(), held.token, held.expires));
        }
        Ok(((!all.is_empty()).then(|| request::tokens(&all)), renew_at))
    }

    /// The group that the driver mounts with; then it is not the node's affair.
    fn mount_group(&self) -> Option<u32> {
        self.pod
            .group
            .id
            .filter(|_| self.driver.can(Capability::VolumeMountGroup))
    }

    fn capability(&self, group: Option<u32>) -> peapod_csi::v1::VolumeCapability {
        let several = self.driver.can(Capability::SingleNodeMultiWriter);
        request::capability(self.spec, several, group)
    }

    /// Gives the volume to the pod's group, if that is the node's affair.
    async fn give(&self) -> Result<(), String> {
        let (group, path) = (self.pod.group, self.path.to_owned());
        let ours = self.mount_group().is_none() && self.traits.gives_to_group(self.spec);
        let Some(id) = group.id.filter(|_| ours) else {
            return Ok(());
        };
        let give = move || ownership::give(&path, id, group.only_if_wrong);
        let given = tokio::task::spawn_blocking(give).await;
        given.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }

    fn shown(&self, path: &Path) -> String {
        self.csi.drivers.layout.shown(self.driver.view, path)
    }
}

/// What a Secret holds, as drivers take it.
pub async fn secrets(
    context: &Context,
    reference: Option<&SecretReference>,
) -> Result<HashMap<String, String>, String> {
    let Some(reference) = reference else {
        return Ok(HashMap::new());
    };
    let (namespace, name) = (
        reference.namespace.as_deref().unwrap_or_default(),
        reference.name.as_deref().unwrap_or_default(),
    );
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let found = api.get(name).await;
    let secret = found.map_err(|e| format!("cannot read secret \"{namespace}/{name}\": {e}"))?;
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(key, value)| match String::from_utf8(value.0) {
        Ok(value) => Ok((key, value)),
        Err(_) => Err(format!("secret \"{namespace}/{name}\": {key} is not UTF-8")),
    })
    .collect()
}

async fn make_dir(path: &Path) -> Result<(), String> {
    let made = tokio::fs::create_dir_all(path).await;
    made.map_err(|error| format!("cannot create {}: {error}", path.display()))
}
