//! `v1 Node`

use std::collections::BTreeSet;

use peapod_api::names;
use serde_json::Value;

use crate::registry::cells::{self, NONE};
use crate::registry::checks;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, Subresource, value};

const ROLE: &str = "node-role.kubernetes.io/";

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster("", "v1", "Node", "nodes")
        .short_names(&["no"])
        .with_status_kept_on_create()
        .subresource(Subresource::Proxy("NodeProxyOptions"))
        .selectable(&["spec.unschedulable"])
        .zero("spec.unschedulable", "false")
        .columns(vec![
            Column::name(),
            Column::computed("Status", "string", |node, _| status(node).into()),
            Column::computed("Roles", "string", |node, _| roles(node)),
            Column::age(),
            Column::path("Version", "string", "status.nodeInfo.kubeletVersion"),
            Column::computed("Internal-IP", "string", |node, _| {
                address(node, "InternalIP")
            })
            .wide(),
            Column::computed("External-IP", "string", |node, _| {
                address(node, "ExternalIP")
            })
            .wide(),
            Column::computed("OS-Image", "string", |node, _| info(node, "osImage")).wide(),
            Column::computed("Kernel-Version", "string", |node, _| {
                info(node, "kernelVersion")
            })
            .wide(),
            Column::computed("Container-Runtime", "string", |node, _| {
                info(node, "containerRuntimeVersion")
            })
            .wide(),
        ])
        .rules(Nodes)
}

struct Nodes;

impl Rules for Nodes {
    fn defaults(&self, object: &mut Value) {
        let one = value::text(object, "spec.podCIDR").to_owned();
        let first = value::list(object, "spec.podCIDRs").first().cloned();
        match first {
            None if !one.is_empty() => value::set(object, "spec.podCIDRs", vec![one]),
            Some(first) if one.is_empty() => value::set(object, "spec.podCIDR", first),
            _ => {}
        }
        if let Some(capacity) = value::at(object, "status.capacity").cloned() {
            value::set_default(object, "status.allocatable", capacity);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let mut taken = BTreeSet::new();
        for taint in root.at("spec.taints").items() {
            let (key, effect) = (taint.at("key"), taint.at("effect"));
            if let Err(fault) = names::qualified_name(key.text()) {
                key.invalid(errors, fault.to_string());
            }
            taint.at("value").follows(errors, names::label_value);
            effect.require_one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            if !taken.insert((key.text().to_owned(), effect.text().to_owned())) {
                taint.duplicate(errors);
            }
        }
        let cidrs = root.at("spec.podCIDRs");
        cidrs.items().for_each(|cidr| checks::cidr(&cidr, errors));
        let first = cidrs.value().get(0).and_then(Value::as_str);
        if first.is_some_and(|first| first != root.at("spec.podCIDR").text()) {
            let why = "podCIDRs[0] must match podCIDR";
            cidrs.invalid(errors, why);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let before = value::list(old, "spec.podCIDRs");
        if !before.is_empty() && before != value::list(new, "spec.podCIDRs") {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            root.at("spec.podCIDRs").forbidden(errors, why);
        }
        let before = value::text(old, "spec.providerID");
        if !before.is_empty() && before != value::text(new, "spec.providerID") {
            let why = "node updates may not change providerID except from \"\" to valid";
            root.at("spec.providerID").forbidden(errors, why);
        }
    }
}

fn status(node: &Value) -> String {
    let conditions = value::list(node, "status.conditions").iter();
    let ready = conditions
        .into_iter()
        .find(|one| value::text(one, "type") == "Ready");
    let state = match ready.map(|one| value::text(one, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    match value::truth(node, "spec.unschedulable") {
        true => format!("{state},SchedulingDisabled"),
        false => state.to_owned(),
    }
}

fn roles(node: &Value) -> Value {
    let labels = value::map(node, "metadata.labels").into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, text)| match key.strip_prefix(ROLE) {
            Some("") => None,
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => text.as_str(),
            None => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    cells::or_none(roles.join(","))
}

fn address(node: &Value, kind: &str) -> Value {
    let addresses = value::list(node, "status.addresses").iter();
    let found = addresses
        .into_iter()
        .find(|one| value::text(one, "type") == kind);
    cells::or_none(found.map_or(NONE, |one| value::text(one, "address")))
}

fn info(node: &Value, field: &str) -> Value {
    match value::text(&node["status"]["nodeInfo"], field) {
        "" => "<unknown>".into(),
        text => text.into(),
    }
}
