//! `resource.k8s.io/v1`: devices, and claims to them. Stored and validated; no allocator runs.

use std::collections::BTreeSet;

use peapod_api::names;
use serde_json::Value;

use crate::registry::{At, Column, FieldError, FieldErrors, Kind, Rules, value};

const GROUP: &str = "resource.k8s.io";
/// Most requests, constraints or configurations of a claim.
const LIST_MAX: usize = 32;
/// Most devices of a slice.
const DEVICES_MAX: usize = 128;
/// Most consumers of a claim.
const RESERVED_MAX: usize = 256;
/// Most conditions of a rule's status.
const CONDITIONS_MAX: usize = 8;
/// Longest CEL expression, in bytes.
const EXPRESSION_MAX: usize = 10 * 1024;

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![
        device_class(),
        resource_claim(),
        resource_claim_template(),
        resource_slice(),
        device_taint_rule(),
    ]
}

fn device_class() -> Kind {
    Kind::cluster(GROUP, "v1", "DeviceClass", "deviceclasses")
        .with_generation()
        .columns(vec![Column::name(), Column::age()])
        .rules(DeviceClasses)
}

struct DeviceClasses;

impl Rules for DeviceClasses {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        validate_selectors(&spec.at("selectors"), errors);
        at_most(&spec.at("config"), LIST_MAX, errors);
        for config in spec.at("config").items() {
            validate_config(&config, errors);
        }
        spec.at("extendedResourceName")
            .follows(errors, names::qualified_name);
    }
}

fn resource_claim() -> Kind {
    Kind::namespaced(GROUP, "v1", "ResourceClaim", "resourceclaims")
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("State", "string", |claim, _| state(claim).into()),
            Column::age(),
        ])
        .rules(ResourceClaims)
}

fn state(claim: &Value) -> String {
    let mut states = Vec::new();
    let is_set = |path: &str| value::at(claim, path).is_some();
    if is_set("metadata.deletionTimestamp") {
        states.push("deleted");
    }
    if !is_set("status.allocation") {
        if !is_set("metadata.deletionTimestamp") {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if !value::list(claim, "status.reservedFor").is_empty() {
            states.push("reserved");
        }
    }
    states.join(",")
}

struct ResourceClaims;

impl Rules for ResourceClaims {
    fn defaults(&self, object: &mut Value) {
        default_requests(object, "spec.devices.requests");
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validate_claim(&At::root(object).at("spec.devices"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec").unchanged(old, errors);
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let (allocation, reserved) = (root.at("status.allocation"), root.at("status.reservedFor"));
        at_most(&reserved, RESERVED_MAX, errors);
        for consumer in reserved.items() {
            for field in ["resource", "name", "uid"] {
                consumer.at(field).required(errors);
            }
        }
        if !reserved.is_empty() {
            if !allocation.is_set() {
                reserved.forbidden(errors, "may not be specified when `allocated` is not set");
            } else if value::at(new, "metadata.deletionTimestamp").is_some()
                && value::list(new, "status.reservedFor").len()
                    > value::list(old, "status.reservedFor").len()
            {
                let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
                reserved.forbidden(errors, why);
            }
        }
        if value::at(old, "status.allocation").is_some() && allocation.is_set() {
            allocation.unchanged(old, errors);
        }
    }
}

fn resource_claim_template() -> Kind {
    let plural = "resourceclaimtemplates";
    Kind::namespaced(GROUP, "v1", "ResourceClaimTemplate", plural)
        .columns(vec![Column::name(), Column::age()])
        .rules(ResourceClaimTemplates)
}

struct ResourceClaimTemplates;

impl Rules for ResourceClaimTemplates {
    fn defaults(&self, object: &mut Value) {
        default_requests(object, "spec.spec.devices.requests");
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validate_claim(&At::root(object).at("spec.spec.devices"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        At::root(new).at("spec").unchanged(old, errors);
    }
}

/// A request that does not say how many asks for one.
fn default_requests(object: &mut Value, path: &str) {
    let requests = value::at_mut(object, path).and_then(Value::as_array_mut);
    for request in requests.into_iter().flatten() {
        if let Some(exact) = value::at_mut(request, "exactly") {
            default_count(exact);
        }
        let alternatives = request.get_mut("firstAvailable");
        let alternatives = alternatives.and_then(Value::as_array_mut);
        alternatives.into_iter().flatten().for_each(default_count);
    }
}

fn default_count(request: &mut Value) {
    value::set_default(request, "allocationMode", "ExactCount");
    if value::text(request, "allocationMode") == "ExactCount"
        && value::integer(request, "count").unwrap_or(0) == 0
    {
        value::set(request, "count", 1);
    }
}

fn validate_claim(devices: &At<'_>, errors: &mut FieldErrors) {
    let mut names = BTreeSet::new();
    let requests = devices.at("requests");
    at_most(&requests, LIST_MAX, errors);
    for request in requests.items() {
        let name = request.at("name");
        name.require_name(errors, names::dns_label);
        if !names.insert(name.text().to_owned()) {
            name.duplicate(errors);
        }
        validate_request(&request, &mut names, errors);
    }
    for field in ["constraints", "config"] {
        at_most(&devices.at(field), LIST_MAX, errors);
        for item in devices.at(field).items() {
            for request in item.at("requests").items() {
                if !names.contains(request.text()) {
                    let why = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
                    request.invalid(errors, why);
                }
            }
        }
    }
    for constraint in devices.at("constraints").items() {
        let (same, distinct) = (
            constraint.at("matchAttribute"),
            constraint.at("distinctAttribute"),
        );
        if !same.is_set() && !distinct.is_set() {
            let why = "exactly one of `matchAttribute` or `distinctAttribute` is required";
            constraint.missing(errors, why);
        }
        same.follows(errors, names::qualified_name);
        distinct.follows(errors, names::qualified_name);
    }
    for config in devices.at("config").items() {
        validate_config(&config, errors);
    }
}

fn validate_request(request: &At<'_>, names: &mut BTreeSet<String>, errors: &mut FieldErrors) {
    let (exact, alternatives) = (request.at("exactly"), request.at("firstAvailable"));
    match (exact.is_set(), !alternatives.is_empty()) {
        (true, true) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            request.invalid(errors, why);
        }
        (false, false) => request.missing(
            errors,
            "exactly one of `exactly` or `firstAvailable` is required",
        ),
        (true, false) => validate_exact(&exact, errors),
        (false, true) => {
            for alternative in alternatives.items() {
                let name = alternative.at("name");
                name.require_name(errors, names::dns_label);
                let full = format!("{}/{}", request.at("name").text(), name.text());
                if !names.insert(full) {
                    name.duplicate(errors);
                }
                validate_exact(&alternative, errors);
            }
        }
    }
}

fn validate_exact(request: &At<'_>, errors: &mut FieldErrors) {
    request
        .at("deviceClassName")
        .require_name(errors, names::dns_subdomain);
    validate_selectors(&request.at("selectors"), errors);
    let (mode, count) = (request.at("allocationMode"), request.at("count"));
    match mode.text() {
        "All" if count.int().unwrap_or(0) != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            count.invalid(errors, why);
        }
        "All" => {}
        "ExactCount" => {
            if count.int().unwrap_or(0) <= 0 {
                count.invalid(errors, "must be greater than zero");
            }
        }
        _ => mode.one_of(errors, &["All", "ExactCount"]),
    }
}

fn validate_selectors(selectors: &At<'_>, errors: &mut FieldErrors) {
    at_most(selectors, LIST_MAX, errors);
    for selector in selectors.items() {
        let cel = selector.at("cel");
        if !cel.is_set() {
            cel.missing(errors, "");
            continue;
        }
        let expression = cel.at("expression");
        if expression.required(errors) && expression.text().len() > EXPRESSION_MAX {
            errors.push(FieldError::too_long(expression, EXPRESSION_MAX));
        }
    }
}

fn validate_config(config: &At<'_>, errors: &mut FieldErrors) {
    let opaque = config.at("opaque");
    if !opaque.is_set() {
        return opaque.missing(errors, "");
    }
    opaque
        .at("driver")
        .require_name(errors, names::dns_subdomain);
    let parameters = opaque.at("parameters");
    if !parameters.is_set() {
        parameters.missing(errors, "");
    } else if !parameters.value().is_object() {
        parameters.invalid(errors, "parameters must be a valid JSON object");
    }
}

fn at_most(list: &At<'_>, most: usize, errors: &mut FieldErrors) {
    let count = list.items().count();
    if count > most {
        errors.push(FieldError::too_many(list, count, most));
    }
}

fn resource_slice() -> Kind {
    Kind::cluster(GROUP, "v1", "ResourceSlice", "resourceslices")
        .with_generation()
        .selectable(&["spec.nodeName", "spec.driver"])
        .columns(vec![
            Column::name(),
            Column::computed("Node", "string", |slice, _| node(slice).into()),
            Column::path("Driver", "string", "spec.driver"),
            Column::path("Pool", "string", "spec.pool.name"),
            Column::age(),
        ])
        .rules(ResourceSlices)
}

fn node(slice: &Value) -> String {
    let spec = &slice["spec"];
    match value::text(spec, "nodeName") {
        "" if value::truth(spec, "allNodes") => "<all nodes>".to_owned(),
        "" if value::truth(spec, "perDeviceNodeSelection") => "<per device>".to_owned(),
        "" => "<some nodes>".to_owned(),
        name => name.to_owned(),
    }
}

struct ResourceSlices;

impl Rules for ResourceSlices {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        spec.at("driver").require_name(errors, names::dns_subdomain);
        validate_place(&spec, errors);
        let pool = spec.at("pool");
        pool.at("name").required(errors);
        pool.at("generation").not_negative(errors);
        if pool.at("resourceSliceCount").int().unwrap_or(0) <= 0 {
            pool.at("resourceSliceCount")
                .invalid(errors, "must be greater than zero");
        }
        let (devices, mut taken) = (spec.at("devices"), BTreeSet::new());
        at_most(&devices, DEVICES_MAX, errors);
        for device in devices.items() {
            let name = device.at("name");
            name.require_name(errors, names::dns_label);
            if !taken.insert(name.text().to_owned()) {
                name.duplicate(errors);
            }
            validate_attributes(&device, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in ["spec.driver", "spec.pool.name", "spec.nodeName"] {
            root.at(field).unchanged(old, errors);
        }
    }
}

/// Where the devices of a slice are is told in exactly one way.
fn validate_place(spec: &At<'_>, errors: &mut FieldErrors) {
    let ways = [
        !spec.at("nodeName").is_empty(),
        spec.at("nodeSelector").is_set(),
        spec.at("allNodes").is_true(),
        spec.at("perDeviceNodeSelection").is_true(),
    ];
    let names = "`nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection`";
    match ways.iter().filter(|way| **way).count() {
        1 => {}
        0 => spec.missing(errors, format!("exactly one of {names} is required")),
        _ => {
            let why = format!("exactly one of {names} is required, but multiple fields are set");
            spec.invalid(errors, why);
        }
    }
}

fn validate_attributes(device: &At<'_>, errors: &mut FieldErrors) {
    for (_, attribute) in device.at("attributes").entries() {
        let set = attribute
            .value()
            .as_object()
            .map_or(0, serde_json::Map::len);
        if set != 1 {
            attribute.invalid(errors, "exactly one value must be specified");
        }
    }
    for taint in device.at("taints").items() {
        validate_taint(&taint, errors);
    }
}

fn validate_taint(taint: &At<'_>, errors: &mut FieldErrors) {
    taint.at("key").require_name(errors, names::qualified_name);
    taint.at("value").follows(errors, names::label_value);
    taint
        .at("effect")
        .require_one_of(errors, &["NoExecute", "NoSchedule", "None"]);
}

fn device_taint_rule() -> Kind {
    Kind::cluster(GROUP, "v1", "DeviceTaintRule", "devicetaintrules")
        .with_generation()
        .with_status()
        .columns(vec![Column::name(), Column::age()])
        .rules(DeviceTaintRules)
}

struct DeviceTaintRules;

impl Rules for DeviceTaintRules {
    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        validate_taint(&spec.at("taint"), errors);
        let selector = spec.at("deviceSelector");
        selector.at("driver").follows(errors, names::dns_subdomain);
        selector.at("device").follows(errors, names::dns_label);
    }

    fn validate_status(&self, new: &Value, _old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        at_most(&root.at("status.conditions"), CONDITIONS_MAX, errors);
    }
}
