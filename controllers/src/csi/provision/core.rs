//! What a claim needs, the driver's request, and the volume of its answer. Pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
    SecretReference,
};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttributesClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use kube::api::ObjectMeta;
use peapod_api::quantity::Quantity;
use peapod_api::storage::{PROVISIONED_BY, SELECTED_NODE, VOLUME_PROTECTION};
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{
    CapacityRange, CreateVolumeRequest, TopologyRequirement, Volume, VolumeContentSource,
};

use crate::csi::abilities::Abilities;
use crate::csi::capability::Use;
use crate::csi::parameters::{self, Names, Secrets};
use crate::csi::topology;
use crate::volume::core::{STORAGE_PROVISIONERS, claim_reference};
use crate::volume::{local, matching};

/// Finalizer of a claim: the driver may be making a volume for it that the API does not show yet.
/// It comes before the call and goes with the volume's object, so that whatever ends in between,
/// no volume is forgotten.
pub const PROVISIONING: &str = "csi.peapod.dev/provisioning";
/// Finalizer of a volume: the driver has yet to delete it.
pub const FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";
/// Annotations of a volume: where the secret of its deletion is.
pub const DELETION_SECRET: [&str; 2] = [
    "volume.kubernetes.io/provisioner-deletion-secret-name",
    "volume.kubernetes.io/provisioner-deletion-secret-namespace",
];

/// What a claim needs of the provisioner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing; it is somebody else's, or waits for somebody else.
    Nothing,
    /// A volume.
    Provision,
    /// Another node: the selected one is gone.
    Reschedule,
    /// It is served: let it go.
    Settle,
    /// It wants no volume any more, and the driver may be making one.
    Undo,
}

/// The driver that was asked to make a claim's volume.
pub fn provisioner(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    let mut names = STORAGE_PROVISIONERS.iter();
    let name = names.find_map(|name| annotations.get(*name))?;
    Some(name.as_str()).filter(|name| !name.starts_with("kubernetes.io/"))
}

/// The node that the scheduler selected for a claim's volume.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(SELECTED_NODE).map(String::as_str)
}

/// Whether a finalizer holds an object.
pub fn is_held(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|one| one == finalizer)
}

/// Decides about a claim; `made`: the volume made for it is in the API.
pub fn step(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    node: Option<&Node>,
    made: bool,
) -> Step {
    let held = is_held(&claim.metadata, PROVISIONING);
    let bound = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref());
    let bound = bound.is_some_and(|name| !name.is_empty());
    if made || bound || claim.metadata.deletion_timestamp.is_some() {
        return match held {
            false => Step::Nothing,
            true if made => Step::Settle,
            true => Step::Undo,
        };
    }
    let Some(class) = class.filter(|class| provisioner(claim) == Some(&class.provisioner)) else {
        return Step::Nothing;
    };
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    match selected_node(claim) {
        None if waits => Step::Nothing,
        Some(_) if node.is_none() => Step::Reschedule,
        _ => Step::Provision,
    }
}

/// Everything that a request depends on.
pub struct Wish<'a> {
    /// The claim.
    pub claim: &'a PersistentVolumeClaim,
    /// Its class.
    pub class: &'a StorageClass,
    /// Its class of attributes, if it names one.
    pub attributes: Option<&'a VolumeAttributesClass>,
    /// What the driver can do.
    pub abilities: &'a Abilities,
}

// === impl Wish ===

impl Wish<'_> {
    fn parameters(&self) -> BTreeMap<String, String> {
        self.class.parameters.clone().unwrap_or_default()
    }

    /// Where a secret of the class is.
    pub fn secret(&self, secrets: Secrets) -> Result<Option<SecretReference>, String> {
        let name = local::name(self.claim);
        secrets.of(&self.parameters(), names(self.claim, &name))
    }

    /// The bytes that are asked for.
    fn size(&self) -> i64 {
        matching::request(self.claim).units()
    }

    /// The request, but for secrets.
    pub fn request(
        &self,
        source: Option<VolumeContentSource>,
        place: Option<TopologyRequirement>,
    ) -> Result<CreateVolumeRequest, String> {
        let spec = self.claim.spec.clone().unwrap_or_default();
        if spec.selector.is_some() {
            return Err("claim Selector is not supported".to_owned());
        }
        let parameters = self.parameters();
        let name = local::name(self.claim);
        let kind = Use {
            block: spec.volume_mode.as_deref() == Some("Block"),
            fs_type: parameters::fs_type(&parameters)?,
            mount_options: self.class.mount_options.as_deref().unwrap_or_default(),
        };
        let finer = self.abilities.can(Call::SingleNodeMultiWriter);
        let modes = spec.access_modes.unwrap_or_default();
        Ok(CreateVolumeRequest {
            capacity_range: Some(CapacityRange {
                required_bytes: self.size(),
                limit_bytes: 0,
            }),
            volume_capabilities: kind.each(&modes, finer)?,
            parameters: parameters::with_names(
                parameters::for_driver(&parameters)?,
                names(self.claim, &name),
            ),
            secrets: HashMap::new(),
            volume_content_source: source,
            accessibility_requirements: place,
            mutable_parameters: self.mutable()?,
            name,
        })
    }

    fn mutable(&self) -> Result<HashMap<String, String>, String> {
        let spec = self.claim.spec.as_ref();
        let wanted = spec.and_then(|spec| spec.volume_attributes_class_name.as_deref());
        let Some(name) = wanted.filter(|name| !name.is_empty()) else {
            return Ok(HashMap::new());
        };
        let Some(class) = self.attributes else {
            return Err(format!(
                "volumeattributesclass.storage.k8s.io \"{name}\" not found"
            ));
        };
        if class.driver_name != self.class.provisioner {
            return Err(format!(
                "VolumeAttributesClass {name} is of driver {}, not {}",
                class.driver_name, self.class.provisioner
            ));
        }
        if !self.abilities.can(Call::ModifyVolume) {
            return Err("the driver has no VolumeAttributesClasses: its controller capability MODIFY_VOLUME is not reported".to_owned());
        }
        Ok(class
            .parameters
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect())
    }

    /// Why what the driver made will not do.
    pub fn fault(&self, made: &Volume, from_source: bool) -> Option<String> {
        let (has, wants) = (made.capacity_bytes, self.size());
        if has != 0 && has < wants {
            return Some(format!(
                "created volume capacity {has} less than requested capacity {wants}"
            ));
        }
        (from_source && made.content_source.is_none())
            .then(|| "volume content source missing".to_owned())
    }

    /// The volume's object.
    pub fn volume(&self, made: &Volume) -> Result<PersistentVolume, String> {
        let spec = self.claim.spec.clone().unwrap_or_default();
        let parameters = self.parameters();
        let block = spec.volume_mode.as_deref() == Some("Block");
        let fs_type = parameters::fs_type(&parameters)?;
        // A driver may not know how large what it made is.
        let size = match made.capacity_bytes {
            0 => self.size(),
            bytes => bytes,
        };
        let context: BTreeMap<_, _> = made.volume_context.clone().into_iter().collect();
        let read_only = spec.access_modes.as_deref() == Some(&["ReadOnlyMany".to_owned()])
            && self.abilities.can(Call::PublishReadonly);
        let source = CSIPersistentVolumeSource {
            driver: self.class.provisioner.clone(),
            volume_handle: made.volume_id.clone(),
            volume_attributes: Some(context).filter(|all| !all.is_empty()),
            fs_type: Some(fs_type.to_owned()).filter(|kind| !block && !kind.is_empty()),
            read_only: read_only.then_some(true),
            controller_publish_secret_ref: self.secret(Secrets::ControllerPublish)?,
            controller_expand_secret_ref: self.secret(Secrets::ControllerExpand)?,
            node_stage_secret_ref: self.secret(Secrets::NodeStage)?,
            node_publish_secret_ref: self.secret(Secrets::NodePublish)?,
            node_expand_secret_ref: self.secret(Secrets::NodeExpand)?,
        };
        let policy = self.class.reclaim_policy.clone();
        let policy = policy.unwrap_or_else(|| "Delete".to_owned());
        let mut finalizers = vec![VOLUME_PROTECTION.to_owned()];
        if policy == "Delete" {
            finalizers.push(FINALIZER.to_owned());
        }
        Ok(PersistentVolume {
            metadata: ObjectMeta {
                name: Some(local::name(self.claim)),
                annotations: Some(self.annotations()?),
                finalizers: Some(finalizers),
                ..Default::default()
            },
            spec: Some(PersistentVolumeSpec {
                access_modes: spec.access_modes,
                capacity: Some([("storage".to_owned(), bytes(size))].into()),
                claim_ref: Some(claim_reference(self.claim)),
                csi: Some(source),
                mount_options: self.class.mount_options.clone(),
                node_affinity: topology::affinity(&made.accessible_topology),
                persistent_volume_reclaim_policy: Some(policy),
                storage_class_name: self.class.metadata.name.clone(),
                volume_attributes_class_name: spec
                    .volume_attributes_class_name
                    .filter(|name| !name.is_empty()),
                volume_mode: Some(spec.volume_mode.unwrap_or_else(|| "Filesystem".to_owned())),
                ..Default::default()
            }),
            status: None,
        })
    }

    fn annotations(&self) -> Result<BTreeMap<String, String>, String> {
        let secret = self.secret(Secrets::Provisioner)?.unwrap_or_default();
        let parts = [secret.name, secret.namespace].map(Option::unwrap_or_default);
        let secrets = DELETION_SECRET.map(str::to_owned).into_iter().zip(parts);
        let by = (PROVISIONED_BY.to_owned(), self.class.provisioner.clone());
        Ok(secrets.chain([by]).collect())
    }
}

/// Bytes as a quantity, in the largest unit that is exact.
pub fn bytes(bytes: i64) -> Text {
    Text(Quantity::from_bytes(bytes).to_string())
}

fn names<'a>(claim: &'a PersistentVolumeClaim, volume: &'a str) -> Names<'a> {
    let text = |field: &'a Option<String>| field.as_deref().unwrap_or_default();
    Names {
        volume,
        claim: (text(&claim.metadata.namespace), text(&claim.metadata.name)),
        annotations: claim.metadata.annotations.as_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};

    /// A class, claims, nodes and volumes; for each claim its step, and for those that are to be
    /// provisioned what the driver is asked and the volume made of its answer.
    fn run(input: &str) -> String {
        let classes: Vec<StorageClass> = objects(input, "StorageClass");
        let nodes: Vec<Node> = objects(input, "Node");
        let volumes: Vec<PersistentVolume> = objects(input, "PersistentVolume");
        let attributes: Vec<VolumeAttributesClass> = objects(input, "VolumeAttributesClass");
        let mut out = Vec::new();
        for claim in objects::<PersistentVolumeClaim>(input, "PersistentVolumeClaim") {
            let name = claim.metadata.name.clone().unwrap();
            let class = classes
                .iter()
                .find(|class| class.metadata.name.as_deref() == matching::claim_class(&claim));
            let node = nodes
                .iter()
                .find(|node| node.metadata.name.as_deref() == selected_node(&claim));
            let made = volumes
                .iter()
                .any(|volume| volume.metadata.name.as_deref() == Some(&local::name(&claim)));
            let step = step(&claim, class, node, made);
            out.push(format!("{name}: {step:?}"));
            if step == Step::Provision {
                let wish = Wish {
                    claim: &claim,
                    class: class.unwrap(),
                    attributes: attributes.first(),
                    abilities: &Abilities::default(),
                };
                out.push(described(&wish));
            }
        }
        out.join("\n")
    }

    fn described(wish: &Wish<'_>) -> String {
        let request = match wish.request(None, None) {
            Ok(request) => request,
            Err(fault) => return format!("  refused: {fault}"),
        };
        let parameters: BTreeMap<_, _> = request.parameters.iter().collect();
        let modes: Vec<_> = request
            .volume_capabilities
            .iter()
            .map(|capability| {
                capability
                    .access_mode
                    .as_ref()
                    .unwrap()
                    .mode()
                    .as_str_name()
            })
            .collect();
        let made = Volume {
            volume_id: "vol-1".to_owned(),
            capacity_bytes: request.capacity_range.unwrap().required_bytes,
            accessible_topology: vec![topology::said([("zone".to_owned(), "a".to_owned())].into())],
            ..Volume::default()
        };
        let volume = match wish.volume(&made) {
            Ok(volume) => serde_json::to_string(&volume).unwrap(),
            Err(fault) => fault,
        };
        format!(
            "  {} of {} bytes, {modes:?}, {parameters:?}\n  {volume}",
            request.name,
            wish.size()
        )
    }

    #[test]
    fn golden_cases() {
        golden("csi_provision", run);
    }

    #[test]
    fn what_the_driver_made_must_do() {
        let claim = serde_json::json!({"metadata": {"uid": "u"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        let class: StorageClass =
            serde_json::from_value(serde_json::json!({"metadata": {}, "provisioner": "d"}))
                .unwrap();
        let wish = Wish {
            claim: &claim,
            class: &class,
            attributes: None,
            abilities: &Abilities::default(),
        };
        let made = |capacity_bytes| Volume {
            capacity_bytes,
            ..Volume::default()
        };
        assert_eq!(wish.fault(&made(0), false), None);
        assert_eq!(wish.fault(&made(1 << 30), false), None);
        assert!(wish.fault(&made(5), false).unwrap().contains("less than"));
        assert!(wish.fault(&made(0), true).unwrap().contains("source"));
        let volume = wish.volume(&made(0)).unwrap();
        assert_eq!(volume.spec.unwrap().capacity.unwrap()["storage"].0, "1Gi");
    }
}
