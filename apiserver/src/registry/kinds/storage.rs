//! `storage.k8s.io/v1`, but for classes: what drivers of volumes say of themselves.

use std::collections::BTreeSet;

use peapod_api::names;
use serde_json::{Map, Value};

use crate::registry::{At, Column, FieldErrors, Kind, Rules, value};

const GROUP: &str = "storage.k8s.io";
/// Longest name of a driver.
const DRIVER_NAME_MAX: usize = 63;

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![
        csi_driver(),
        csi_node(),
        csi_storage_capacity(),
        volume_attachment(),
        volume_attributes_class(),
    ]
}

fn csi_driver() -> Kind {
    Kind::cluster(GROUP, "v1", "CSIDriver", "csidrivers")
        .conditional_update()
        .with_generation()
        .columns(vec![
            Column::name(),
            Column::path("AttachRequired", "boolean", "spec.attachRequired"),
            Column::path("PodInfoOnMount", "boolean", "spec.podInfoOnMount"),
            Column::path("StorageCapacity", "boolean", "spec.storageCapacity"),
            Column::computed("TokenRequests", "string", |driver, _| {
                let requests = value::list(driver, "spec.tokenRequests").iter();
                let audiences = requests.map(|request| value::text(request, "audience"));
                match audiences.collect::<Vec<_>>().join(",") {
                    none if none.is_empty() => "<unset>".into(),
                    some => some.into(),
                }
            }),
            Column::path("RequiresRepublish", "boolean", "spec.requiresRepublish"),
            Column::computed("Modes", "string", |driver, _| {
                let modes = value::list(driver, "spec.volumeLifecycleModes").iter();
                modes
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(",")
                    .into()
            }),
            Column::age(),
        ])
        .rules(CsiDrivers)
}

struct CsiDrivers;

impl Rules for CsiDrivers {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        validate_driver(&root.at("metadata.name"), errors);
        for mode in root.at("spec.volumeLifecycleModes").items() {
            mode.one_of(errors, &["Ephemeral", "Persistent"]);
        }
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        root.at("spec.fsGroupPolicy").one_of(errors, &policies);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["spec.attachRequired", "spec.volumeLifecycleModes"] {
            root.at(field).unchanged(old, errors);
        }
    }
}

fn validate_driver(name: &At<'_>, errors: &mut FieldErrors) {
    if name.text().len() > DRIVER_NAME_MAX {
        let why = format!("may not be more than {DRIVER_NAME_MAX} bytes");
        name.invalid(errors, why);
    }
}

fn csi_node() -> Kind {
    Kind::cluster(GROUP, "v1", "CSINode", "csinodes")
        .conditional_update()
        .columns(vec![
            Column::name(),
            Column::computed("Drivers", "integer", |node, _| {
                value::list(node, "spec.drivers").len().into()
            }),
            Column::age(),
        ])
        .rules(CsiNodes)
}

struct CsiNodes;

impl Rules for CsiNodes {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let mut taken = BTreeSet::new();
        for driver in root.at("spec.drivers").items() {
            let name = driver.at("name");
            name.required(errors);
            validate_driver(&name, errors);
            if !taken.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
            driver.at("nodeID").required(errors);
            driver.at("allocatable.count").not_negative(errors);
            for key in driver.at("topologyKeys").items() {
                key.require_name(errors, names::qualified_name);
            }
        }
    }
}

fn csi_storage_capacity() -> Kind {
    Kind::namespaced(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities")
        .columns(vec![
            Column::name(),
            Column::path("StorageClassName", "string", "storageClassName"),
            Column::path("Capacity", "string", "capacity"),
        ])
        .rules(CsiStorageCapacities)
}

struct CsiStorageCapacities;

impl Rules for CsiStorageCapacities {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        root.at("storageClassName")
            .require_name(errors, names::dns_subdomain);
        for field in ["capacity", "maximumVolumeSize"] {
            crate::registry::checks::quantity_not_negative(&root.at(field), errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["nodeTopology", "storageClassName"] {
            root.at(field).unchanged(old, errors);
        }
    }
}

fn volume_attachment() -> Kind {
    Kind::cluster(GROUP, "v1", "VolumeAttachment", "volumeattachments")
        .with_status()
        .conditional_update()
        .columns(vec![
            Column::name(),
            Column::path("Attacher", "string", "spec.attacher"),
            Column::path("PV", "string", "spec.source.persistentVolumeName"),
            Column::path("Node", "string", "spec.nodeName"),
            Column::computed("Attached", "boolean", |attachment, _| {
                value::truth(attachment, "status.attached").into()
            }),
            Column::age(),
        ])
        .rules(VolumeAttachments)
}

struct VolumeAttachments;

impl Rules for VolumeAttachments {
    fn prepare_create(&self, object: &mut Value) {
        say_whether_attached(object);
    }

    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        say_whether_attached(new);
    }

    fn prepare_status(&self, new: &mut Value, _old: &Value) {
        say_whether_attached(new);
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        spec.at("attacher").required(errors);
        spec.at("nodeName")
            .require_name(errors, names::dns_subdomain);
        let source = spec.at("source");
        if source.value().as_object().is_none_or(Map::is_empty) {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            source.missing(errors, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec").unchanged(old, errors);
    }
}

/// Clients rely on `attached`, which is never left out.
fn say_whether_attached(object: &mut Value) {
    if value::at(object, "status.attached").is_none() {
        value::set(object, "status.attached", false);
    }
}

fn volume_attributes_class() -> Kind {
    Kind::cluster(
        GROUP,
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
    )
    .short_names(&["vac"])
    .columns(vec![
        Column::name(),
        Column::path("DriverName", "string", "driverName"),
        Column::age(),
    ])
    .rules(VolumeAttributesClasses)
}

struct VolumeAttributesClasses;

impl Rules for VolumeAttributesClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let driver = root.at("driverName");
        if driver.required(errors) {
            validate_driver(&driver, errors);
        }
        let parameters = root.at("parameters");
        if parameters.is_empty() {
            let why = "must contain at least one key/value pair";
            parameters.missing(errors, why);
        } else if parameters.value().get("").is_some() {
            parameters.invalid(errors, "field can not be empty.");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["driverName", "parameters"] {
            root.at(field).unchanged(old, errors);
        }
    }
}
