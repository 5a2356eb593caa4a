//! `v1 PersistentVolumeClaim`

use peapod_api::names;
use peapod_api::quantity::Quantity;
use serde_json::{Value, json};

use super::persistent_volume::{attributes_class, phase, validate_modes, volume_mode};
use crate::registry::checks;
use crate::registry::{At, Column, FieldError, FieldErrors, Kind, Rules, cells, value};

const UPDATE_RULE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short_names(&["pvc"])
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Status", "string", |claim, _| phase(claim)),
            Column::path("Volume", "string", "spec.volumeName"),
            Column::computed("Capacity", "string", |claim, _| match is_bound(claim) {
                true => value::text(claim, "status.capacity.storage").into(),
                false => "".into(),
            }),
            Column::computed("Access Modes", "string", |claim, _| match is_bound(claim) {
                true => cells::access_modes(claim, "status.accessModes"),
                false => "".into(),
            }),
            Column::path("StorageClass", "string", "spec.storageClassName"),
            Column::computed("VolumeAttributesClass", "string", |claim, _| {
                attributes_class(claim)
            }),
            Column::age(),
            Column::computed("VolumeMode", "string", |claim, _| volume_mode(claim)).wide(),
        ])
        .rules(PersistentVolumeClaims)
}

fn is_bound(claim: &Value) -> bool {
    !value::text(claim, "spec.volumeName").is_empty()
}

struct PersistentVolumeClaims;

impl Rules for PersistentVolumeClaims {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        validate_modes(&spec, errors);
        checks::label_selector(&spec.at("selector"), errors);
        let requests = spec.at("resources.requests");
        match requests.value().get("storage").and_then(Value::as_str) {
            None => errors.push(FieldError::required("spec.resources[storage]", "")),
            Some(text) => {
                let size: Option<Quantity> = text.parse().ok();
                if size.is_none_or(|size| size.is_zero() || size.is_negative()) {
                    let why = "must be greater than zero";
                    let place = "spec.resources[storage]";
                    errors.push(FieldError::invalid(place, text, why));
                }
            }
        }
        for field in ["storageClassName", "volumeAttributesClassName"] {
            spec.at(field).follows(errors, names::dns_subdomain);
        }
        spec.at("volumeMode")
            .one_of(errors, &["Block", "Filesystem"]);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        if fixed(new, old) != fixed(old, old) {
            root.at("spec").forbidden(errors, UPDATE_RULE);
        }
        let size = |object| -> Option<Quantity> {
            value::text(object, "spec.resources.requests.storage")
                .parse()
                .ok()
        };
        let held: Option<Quantity> = value::text(old, "status.capacity.storage").parse().ok();
        if size(new) < size(old) && held.is_none_or(|held| size(new) < Some(held)) {
            let at = root.at("spec.resources.requests.storage");
            at.forbidden(errors, "field can not be less than status.capacity");
        }
    }
}

/// The specification without what an update of the old claim may change.
fn fixed(object: &Value, old: &Value) -> Value {
    let mut spec = object["spec"].clone();
    let bound = value::text(old, "status.phase") == "Bound";
    if bound {
        value::remove(&mut spec, "resources.requests.storage");
        value::remove(&mut spec, "volumeAttributesClassName");
    }
    if !is_bound(old) {
        value::remove(&mut spec, "volumeName");
    }
    // A default class may be filled in later.
    if value::at(old, "spec.storageClassName").is_none() {
        value::remove(&mut spec, "storageClassName");
    }
    spec
}
