//! What a controller asks of a pod: is it active, ready, available, and since when.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, Volume};
use peapod_api::conditions;

use super::Key;

/// The phase, `""` before it is set.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod has run to its end, well or not.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether deletion has been asked for.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod counts towards its owner's replicas: neither finished nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// The node's name, `""` until scheduled.
pub fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// The pod's conditions.
pub fn conditions(pod: &Pod) -> &[PodCondition] {
    pod.status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

/// Whether the condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    conditions::is_true(conditions(pod), "Ready")
}

/// When the pod last became ready, or ceased to be.
pub fn ready_changed(pod: &Pod) -> Option<Timestamp> {
    let ready = conditions::find(conditions(pod), "Ready")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When the pod became ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = conditions::find(conditions(pod), "Ready").filter(|c| c.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// Whether the pod has been ready for `minReadySeconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready_seconds <= 0 || available_in(pod, min_ready_seconds, now).is_none())
}

/// How long until a ready pod becomes available; `None` when it already is, or is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    until(since, i64::from(min_ready_seconds), now)
}

/// The time left until `seconds` after `start`; `None` when it has passed.
pub fn until(start: Timestamp, seconds: i64, now: Timestamp) -> Option<Duration> {
    let passed_ms = now.as_millisecond() - start.as_millisecond();
    let left_ms = seconds.saturating_mul(1000).saturating_sub(passed_ms);
    (left_ms > 0).then(|| Duration::from_millis(left_ms.unsigned_abs()))
}

/// The name of the claim of a pod's generic ephemeral volume.
pub fn claim_name(pod: &Pod, volume: &Volume) -> String {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", volume.name)
}

/// The claims that the pod's volumes name, generic ephemeral ones included.
pub fn claims(pod: &Pod) -> Vec<Key> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(Key::new(namespace, &source.claim_name)),
            None if volume.ephemeral.is_some() => {
                Some(Key::new(namespace, claim_name(pod, volume)))
            }
            None => None,
        })
        .collect()
}
