//! `v1 PersistentVolume`

use serde_json::{Value, json};

use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells, pod_spec, value};

pub(super) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// The fields of the specification that are no source.
const NO_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster("", "v1", "PersistentVolume", "persistentvolumes")
        .short_names(&["pv"])
        .with_status()
        .columns(vec![
            Column::name(),
            Column::path("Capacity", "string", "spec.capacity.storage"),
            Column::computed("Access Modes", "string", |volume, _| {
                cells::access_modes(volume, "spec.accessModes")
            }),
            Column::path(
                "Reclaim Policy",
                "string",
                "spec.persistentVolumeReclaimPolicy",
            ),
            Column::computed("Status", "string", |volume, _| phase(volume)),
            Column::computed("Claim", "string", |volume, _| claim(volume).into()),
            Column::path("StorageClass", "string", "spec.storageClassName"),
            Column::computed("VolumeAttributesClass", "string", |volume, _| {
                attributes_class(volume)
            }),
            Column::path("Reason", "string", "status.reason"),
            Column::age(),
            Column::computed("VolumeMode", "string", |volume, _| volume_mode(volume)).wide(),
        ])
        .rules(PersistentVolumes)
}

/// The phase; `Terminating` once it is being deleted.
pub(super) fn phase(object: &Value) -> Value {
    match value::at(object, "metadata.deletionTimestamp") {
        Some(_) => "Terminating".into(),
        None => value::text(object, "status.phase").into(),
    }
}

pub(super) fn attributes_class(object: &Value) -> Value {
    match value::text(object, "spec.volumeAttributesClassName") {
        "" => "<unset>".into(),
        class => class.into(),
    }
}

pub(super) fn volume_mode(object: &Value) -> Value {
    match value::text(object, "spec.volumeMode") {
        "" => "<unset>".into(),
        mode => mode.into(),
    }
}

fn claim(volume: &Value) -> String {
    match value::at(volume, "spec.claimRef") {
        None => String::new(),
        Some(claim) => {
            let (namespace, name) = (value::text(claim, "namespace"), value::text(claim, "name"));
            format!("{namespace}/{name}")
        }
    }
}

struct PersistentVolumes;

impl Rules for PersistentVolumes {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        validate_modes(&spec, errors);
        let capacity = spec.at("capacity");
        if capacity.value().get("storage").is_none() {
            capacity.missing(errors, "");
        }
        for (_, quantity) in capacity.entries() {
            checks::quantity_not_negative(&quantity, errors);
        }
        let policies = ["Delete", "Recycle", "Retain"];
        spec.at("persistentVolumeReclaimPolicy")
            .one_of(errors, &policies);
        spec.at("volumeMode")
            .one_of(errors, &["Block", "Filesystem"]);
        let affinity = spec.at("nodeAffinity.required");
        if affinity.is_set() {
            pod_spec::node_selector(&affinity, errors);
        }
        validate_source(&spec, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        if source(&new["spec"]) != source(&old["spec"]) {
            let at = root.at("spec.persistentvolumesource");
            let why = "spec.persistentvolumesource is immutable after creation";
            at.forbidden(errors, why);
        }
        root.at("spec.volumeMode").unchanged(old, errors);
        if value::at(old, "spec.nodeAffinity").is_some() {
            root.at("spec.nodeAffinity").unchanged(old, errors);
        }
    }
}

/// Checks the access modes of a volume or of a claim.
pub(super) fn validate_modes(spec: &At<'_>, errors: &mut FieldErrors) {
    let modes = spec.at("accessModes");
    if modes.is_empty() {
        modes.missing(errors, "at least 1 access mode is required");
    }
    let mut alone = false;
    for mode in modes.items() {
        mode.one_of(errors, ACCESS_MODES);
        alone |= mode.text() == "ReadWriteOncePod";
    }
    if alone && modes.value().as_array().is_some_and(|list| list.len() > 1) {
        let why = "may not use ReadWriteOncePod with other access modes";
        modes.forbidden(errors, why);
    }
}

/// What holds the volume's data.
fn source(spec: &Value) -> Vec<(&String, &Value)> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !NO_SOURCE.contains(&name.as_str()))
        .collect()
}

fn validate_source(spec: &At<'_>, errors: &mut FieldErrors) {
    let sources = source(spec.value());
    if sources.is_empty() {
        spec.missing(errors, "must specify a volume type");
    }
    for (name, _) in sources.iter().skip(1) {
        spec.at(name)
            .forbidden(errors, "may not specify more than 1 volume type");
    }
    let (host, local) = (spec.at("hostPath"), spec.at("local"));
    if host.is_set() {
        pod_spec::host_path(&host, errors);
    }
    if local.is_set() {
        local.at("path").required(errors);
        let affinity = spec.at("nodeAffinity");
        if !affinity.is_set() {
            affinity.missing(errors, "Local volume requires node affinity");
        }
    }
    if spec.at("csi").is_set() {
        spec.at("csi.driver").required(errors);
        spec.at("csi.volumeHandle").required(errors);
    }
}
