//! Whether a status is worth a write. Pure.

use k8s_openapi::api::core::v1::PodStatus;
use peapod_api::k8s_openapi;
use serde_json::Value;

/// Whether two statuses say the same to the API, which keeps no fractions of seconds and nothing that is
/// empty; the order of conditions says nothing.
pub(super) fn same(written: &PodStatus, new: &PodStatus) -> bool {
    written == new || told(written) == told(new)
}

fn told(status: &PodStatus) -> Value {
    let mut status = status.clone();
    if let Some(conditions) = &mut status.conditions {
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    }
    status.qos_class = None;
    let mut told = serde_json::to_value(status).unwrap_or_default();
    prune(&mut told);
    told
}

/// Takes away what is empty, from the inside.
fn prune(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(prune);
            fields.retain(|_, field| !is_empty(field));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_api_keeps_of_a_status_is_the_same_status() {
        let parse = |value| serde_json::from_value::<PodStatus>(value).unwrap();
        let own = parse(json!({
            "qosClass": "Burstable", "startTime": "2026-11-30T12:40:01.5Z",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "A", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
                "restartCount": 0, "lastState": {}, "resources": {"limits": {}},
                "state": {"running": {"startedAt": "2026-11-30T12:40:01.123456789Z"}}}],
        }));
        let kept = parse(json!({
            "startTime": "2026-11-30T12:40:01Z",
            "conditions": [{"type": "A", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true,
                "restartCount": 0, "resources": {},
                "state": {"running": {"startedAt": "2026-11-30T12:40:01Z"}}}],
        }));
        assert!(same(&own, &kept));
        let mut other = kept.clone();
        other.container_statuses.as_mut().unwrap()[0].restart_count = 1;
        assert!(!same(&own, &other));
        let mut later = kept;
        later.start_time = serde_json::from_value(json!("2026-11-30T12:40:02Z")).ok();
        assert!(!same(&own, &later));
    }
}
