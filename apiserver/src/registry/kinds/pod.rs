//! `v1 Pod`

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{pod_cells, pod_parts};
use crate::registry::pod_spec::{self, all_containers};
use crate::registry::{At, FieldErrors, Kind, Rules, Subresource, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::namespaced("", "v1", "Pod", "pods")
        .short_names(&["po"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Binding)
        .subresource(Subresource::Eviction)
        .subresource(Subresource::EphemeralContainers)
        .subresource(Subresource::Resize)
        .subresource(Subresource::Log)
        .subresource(Subresource::Exec)
        .subresource(Subresource::Attach)
        .subresource(Subresource::PortForward)
        .subresource(Subresource::Proxy("PodProxyOptions"))
        .selectable(&[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ])
        .zero("spec.hostNetwork", "false")
        .indexed(&["spec.nodeName"])
        .columns(pod_cells::columns())
        .rules(Pods)
}

struct Pods;

impl Rules for Pods {
    fn defaults(&self, object: &mut Value) {
        pod_spec::default_pod(&mut object["spec"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        let mut status = json!({"phase": "Pending", "qosClass": qos_class(object)});
        if !value::list(object, "spec.schedulingGates").is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        object["status"] = status;
    }

    fn prepare_status(&self, new: &mut Value, old: &Value) {
        // What a client does not know of, it does not take away.
        if value::at(new, "status.qosClass").is_none() {
            let kept = value::at(old, "status.qosClass").cloned();
            value::set_or_remove(new, "status.qosClass", kept);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        pod_spec::validate(&root.at("spec"), errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let spec = root.at("spec");
        if allowed(&new["spec"], &old["spec"]) != old["spec"] {
            spec.forbidden(errors, UPDATE_RULE);
        }
        for container in spec.at("containers").items() {
            container.at("image").required(errors);
        }
        let deadline = spec.at("activeDeadlineSeconds");
        match (
            value::integer(old, "spec.activeDeadlineSeconds"),
            deadline.int(),
        ) {
            (Some(_), None) => deadline.invalid(
                errors,
                "must not update from a positive integer to nil value",
            ),
            (Some(before), Some(now)) if now > before => {
                let why = format!("must be less than or equal to previous value: {before}");
                deadline.invalid(errors, why);
            }
            _ => {}
        }
        let kept = |toleration| value::list(new, "spec.tolerations").contains(toleration);
        if !value::list(old, "spec.tolerations").iter().all(kept) {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            spec.at("tolerations").forbidden(errors, why);
        }
    }

    fn validate_status(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        let name = root.at("spec.nodeName");
        name.unchanged(old, errors);
        for field in ["podIPs", "hostIPs"] {
            let mut seen = BTreeSet::new();
            let list = root.at("status");
            for entry in list.at(field).items() {
                let ip = entry.at("ip");
                crate::registry::checks::ip(&ip, errors);
                if !seen.insert(ip.text().to_owned()) {
                    entry.duplicate(errors);
                }
            }
        }
    }

    fn validate_part(&self, part: &str, new: &Value, old: &Value, errors: &mut FieldErrors) {
        match part {
            "resize" => pod_parts::validate_resize(new, old, errors),
            "ephemeralcontainers" => pod_parts::validate_debuggers(new, old, errors),
            _ => {}
        }
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        let wanted = asked
            .or_else(|| value::integer(object, "spec.terminationGracePeriodSeconds"))
            .unwrap_or(30);
        let unassigned = value::text(object, "spec.nodeName").is_empty();
        let ended = matches!(value::text(object, "status.phase"), "Failed" | "Succeeded");
        match (unassigned || ended, wanted) {
            (true, _) => Some(0),
            (false, ..0) => Some(1),
            (false, wanted) => Some(wanted),
        }
    }

    fn returns_deleted(&self) -> bool {
        true
    }
}

const UPDATE_RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The new specification with what an update may change as it was.
fn allowed(new: &Value, old: &Value) -> Value {
    let mut new = new.clone();
    for field in ["containers", "initContainers"] {
        let before = value::list(old, field);
        let after = new.get_mut(field).and_then(Value::as_array_mut);
        for (container, before) in after.into_iter().flatten().zip(before) {
            value::set_or_remove(container, "image", before.get("image").cloned());
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        value::set_or_remove(&mut new, field, old.get(field).cloned());
    }
    let grace = "terminationGracePeriodSeconds";
    if value::integer(old, grace).is_some_and(|s| s < 0) && value::integer(&new, grace) == Some(1) {
        value::set_or_remove(&mut new, grace, old.get(grace).cloned());
    }
    // Gates may be taken away, never added.
    let gates = value::list(old, "schedulingGates");
    if value::list(&new, "schedulingGates")
        .iter()
        .all(|gate| gates.contains(gate))
    {
        let kept = old.get("schedulingGates").cloned();
        value::set_or_remove(&mut new, "schedulingGates", kept);
    }
    new
}

/// How the pod is treated when its node runs short.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let spec = &pod["spec"];
    // What a pod has as a whole decides alone.
    let whole =
        Some(spec).filter(|spec| value::map(spec, "resources").is_some_and(|own| !own.is_empty()));
    let containers = whole.is_none().then(|| all_containers(spec));
    for container in whole.into_iter().chain(containers.into_iter().flatten()) {
        for resource in ["cpu", "memory"] {
            let limit = value::text(container, &format!("resources.limits.{resource}"));
            let request = value::text(container, &format!("resources.requests.{resource}"));
            let something = |text: &str| !matches!(text, "" | "0");
            any |= something(limit) || something(request);
            guaranteed &= something(limit) && (limit == request || request.is_empty());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
