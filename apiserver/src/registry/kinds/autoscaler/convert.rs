//! Between the versions. v1 knows of metrics only the pods' CPU; what else a v2 object says is
//! kept in annotations of its v1 view, so that nothing is lost on the way there and back.

use serde_json::{Value, json};

use crate::registry::value;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CPU: &str = "spec.targetCPUUtilizationPercentage";
const CURRENT_CPU: &str = "status.currentCPUUtilizationPercentage";

/// What a v1 annotation holds: the annotation, the v2 field.
const KEPT: [(&str, &str); 4] = [
    (METRICS, "spec.metrics"),
    ("autoscaling.alpha.kubernetes.io/behavior", "spec.behavior"),
    (
        "autoscaling.alpha.kubernetes.io/current-metrics",
        "status.currentMetrics",
    ),
    (
        "autoscaling.alpha.kubernetes.io/conditions",
        "status.conditions",
    ),
];

/// The field of a metric that holds its source.
pub fn source_field(kind: &str) -> &'static str {
    match kind {
        "Object" => "object",
        "Pods" => "pods",
        "ContainerResource" => "containerResource",
        "External" => "external",
        _ => "resource",
    }
}

/// Whether a v1 object names metrics beside the CPU.
pub fn has_metrics(object: &Value) -> bool {
    let annotations = value::map(object, "metadata.annotations");
    annotations.is_some_and(|all| all.contains_key(METRICS))
}

/// Makes a v1 object of a v2 one.
pub fn to_v1(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v1".into();
    let is_cpu = |metric: &Value| {
        value::text(metric, "type") == "Resource" && value::text(metric, "resource.name") == "cpu"
    };
    for (list, field, place) in [
        ("spec.metrics", "resource.target.averageUtilization", CPU),
        (
            "status.currentMetrics",
            "resource.current.averageUtilization",
            CURRENT_CPU,
        ),
    ] {
        let Some(Value::Array(metrics)) = value::at_mut(object, list) else {
            continue;
        };
        let percent = |metric: &Value| value::integer(metric, field).filter(|_| is_cpu(metric));
        if let Some(index) = metrics.iter().position(|metric| percent(metric).is_some()) {
            let found = percent(&metrics.remove(index));
            value::set_or_remove(object, place, found.map(Value::from));
        }
    }
    for (annotation, field) in KEPT {
        let Some(rest) = value::remove(object, field) else {
            continue;
        };
        if rest.as_array().is_none_or(|list| !list.is_empty()) && !rest.is_null() {
            let annotations = value::entry(object, "metadata.annotations");
            if !annotations.is_object() {
                *annotations = json!({});
            }
            annotations[annotation] = rest.to_string().into();
        }
    }
}

/// Makes a v2 object of a v1 one. An annotation that cannot be read is left as it is.
pub fn to_v2(object: &mut Value) {
    object["apiVersion"] = "autoscaling/v2".into();
    for (annotation, field) in KEPT {
        let annotations = value::at_mut(object, "metadata.annotations");
        let Some(annotations) = annotations.and_then(Value::as_object_mut) else {
            continue;
        };
        let text = annotations.get(annotation).and_then(Value::as_str);
        let Some(kept) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
            continue;
        };
        annotations.remove(annotation);
        value::set(object, field, kept);
    }
    let none_left = |all: &Value| all.as_object().is_some_and(serde_json::Map::is_empty);
    if value::at(object, "metadata.annotations").is_some_and(none_left) {
        value::remove(object, "metadata.annotations");
    }
    if let Some(percent) = value::remove(object, CPU) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        let resource = json!({"name": "cpu", "target": target});
        let metric = json!({"type": "Resource", "resource": resource});
        put_first(object, "spec.metrics", metric);
    }
    if let Some(percent) = value::remove(object, CURRENT_CPU) {
        let current = json!({"averageUtilization": percent, "averageValue": "0"});
        let resource = json!({"name": "cpu", "current": current});
        let metric = json!({"type": "Resource", "resource": resource});
        put_first(object, "status.currentMetrics", metric);
    }
}

fn put_first(object: &mut Value, list: &str, item: Value) {
    match value::entry(object, list) {
        Value::Array(items) => items.insert(0, item),
        other => *other = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_on_the_way_there_and_back() {
        let newer = json!({
            "apiVersion": "autoscaling/v2",
            "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "behavior": {"scaleUp": {"selectPolicy": "Max"}},
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                    {"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
                ],
            },
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let mut object = newer.clone();
        to_v1(&mut object);
        assert_eq!(
            object["spec"],
            json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50})
        );
        assert!(has_metrics(&object));
        to_v2(&mut object);
        assert_eq!(object, newer);
    }
}
