//! When what changed slices happened: an annotation of theirs, by which whoever programs them into
//! a kernel tells how long that took since. Pure.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use peapod_api::labels::LAST_CHANGE_TRIGGER;

use super::pack::Changes;
use crate::common::pods;

/// Writes onto changed slices when the first thing happened that none of a service's slices tells
/// of yet: a pod became ready or ceased to be, or the service was made. Where that is not known the
/// annotation goes.
pub(super) fn stamp(
    changes: &mut Changes,
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
) {
    let told = slices.iter().filter_map(|slice| stamped(slice)).max();
    let made = service.metadata.creation_timestamp.as_ref();
    let made = made.filter(|_| slices.is_empty()).map(|made| made.0);
    let changed = pods.iter().filter_map(|pod| pods::ready_changed(pod));
    let news = changed.filter(|at| told.is_none_or(|told| *at > told));
    let at = made.into_iter().chain(news).min();
    let updated = changes.update.iter_mut().map(|(_, new)| new);
    for slice in updated.chain(&mut changes.create) {
        let annotations = slice.metadata.annotations.get_or_insert_default();
        match at {
            Some(at) => annotations.insert(LAST_CHANGE_TRIGGER.to_owned(), at.to_string()),
            None => annotations.remove(LAST_CHANGE_TRIGGER),
        };
        if annotations.is_empty() {
            slice.metadata.annotations = None;
        }
    }
}

fn stamped(slice: &EndpointSlice) -> Option<Timestamp> {
    let annotations = slice.metadata.annotations.as_ref()?;
    annotations.get(LAST_CHANGE_TRIGGER)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stamps(service_at: &str, pods_at: &[&str], told: Option<&str>) -> Option<String> {
        let service = json!({"metadata": {"creationTimestamp": service_at}});
        let pod = |at: &&str| {
            let pod = json!({"status": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at}]}});
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        let slice = |at: &str| {
            let slice = json!({"metadata": {"annotations": {LAST_CHANGE_TRIGGER: at}},
                "addressType": "IPv4", "endpoints": []});
            Arc::new(serde_json::from_value::<EndpointSlice>(slice).unwrap())
        };
        let slices: Vec<_> = told.map(slice).into_iter().collect();
        let mut changes = Changes::default();
        match slices.first() {
            Some(old) => changes
                .update
                .push((old.clone(), EndpointSlice::clone(old))),
            None => changes.create.push(EndpointSlice::default()),
        }
        let pods: Vec<Arc<Pod>> = pods_at.iter().map(pod).collect();
        stamp(
            &mut changes,
            &serde_json::from_value(service).unwrap(),
            &pods,
            &slices,
        );
        let new = changes.create.pop();
        let new = new.or_else(|| changes.update.pop().map(|(_, new)| new));
        stamped(&new.unwrap()).map(|at| at.to_string())
    }

    #[test]
    fn the_first_news_is_told() {
        let at = |minute: u32| format!("2026-01-01T00:{minute:02}:00Z");
        let [one, two, three, four] = [1, 2, 3, 4].map(at);
        assert_eq!(stamps(&one, &[], None).as_deref(), Some(one.as_str()));
        assert_eq!(stamps(&two, &[&one], None).as_deref(), Some(one.as_str()));
        // What was told before is no news; of what came since the first is.
        let pods = [one.as_str(), &four, &three];
        assert_eq!(
            stamps(&one, &pods, Some(&two)).as_deref(),
            Some(three.as_str())
        );
        assert_eq!(stamps(&one, &pods, Some(&four)), None);
    }
}
