//! `autoscaling HorizontalPodAutoscaler`: kept as v2; v1 is an older view of the same objects.

mod convert;
mod validation;

use serde_json::{Value, json};

use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells, value};

const GROUP: &str = "autoscaling";
const PLURAL: &str = "horizontalpodautoscalers";
/// The share of the requested CPU that pods should use when nothing is asked for, in percent.
const DEFAULT_CPU_PERCENT: i64 = 80;

/// The declarations; the first is the preferred version.
pub fn kinds() -> Vec<Kind> {
    let common = |version: &str| {
        Kind::namespaced(GROUP, version, "HorizontalPodAutoscaler", PLURAL)
            .short_names(&["hpa"])
            .categories(&["all"])
            .with_status()
            .columns(columns())
    };
    vec![
        common("v2").rules(V2),
        common("v1")
            .stored_as(GROUP, PLURAL)
            .stored_version("v2")
            .rules(V1),
    ]
}

struct V2;

impl Rules for V2 {
    fn defaults(&self, object: &mut Value) {
        value::set_default(object, "spec.minReplicas", 1);
        if value::list(object, "spec.metrics").is_empty() {
            let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_CPU_PERCENT});
            let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
            value::set(object, "spec.metrics", json!([cpu]));
        }
        if let Some(behavior) = value::at_mut(object, "spec.behavior") {
            default_behavior(behavior);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        validation::validate(&At::root(object).at("spec"), errors);
    }
}

struct V1;

impl Rules for V1 {
    fn defaults(&self, object: &mut Value) {
        value::set_default(object, "spec.minReplicas", 1);
        let cpu = "spec.targetCPUUtilizationPercentage";
        if value::at(object, cpu).is_none() && !convert::has_metrics(object) {
            value::set(object, cpu, DEFAULT_CPU_PERCENT);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let mut newer = object.clone();
        convert::to_v2(&mut newer);
        validation::validate(&At::root(&newer).at("spec"), errors);
    }

    fn from_stored(&self, object: &mut Value) {
        convert::to_v1(object);
    }

    fn to_stored(&self, object: &mut Value) {
        convert::to_v2(object);
    }
}

/// Upwards as fast as doubling or four pods in 15 seconds, downwards as fast as all at once, but
/// only what was too much for five minutes (which is the autoscaler's own setting).
fn default_behavior(behavior: &mut Value) {
    let policy =
        |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    let up = json!({
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [policy("Pods", 4), policy("Percent", 100)],
    });
    let down = json!({"selectPolicy": "Max", "policies": [policy("Percent", 100)]});
    for (direction, rules) in [("scaleUp", up), ("scaleDown", down)] {
        for (field, default) in rules.as_object().into_iter().flatten() {
            value::set_default(behavior, &format!("{direction}.{field}"), default.clone());
        }
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::computed("Reference", "string", |scaler, _| {
            let part = |field: &str| value::text(&scaler["spec"]["scaleTargetRef"], field);
            format!("{}/{}", part("kind"), part("name")).into()
        }),
        Column::computed("Targets", "string", |scaler, _| targets(scaler).into()),
        Column::computed("MinPods", "string", |scaler, _| {
            match value::integer(scaler, "spec.minReplicas") {
                Some(least) => least.to_string().into(),
                None => "<unset>".into(),
            }
        }),
        Column::computed("MaxPods", "integer", |scaler, _| {
            cells::number(scaler, "spec.maxReplicas")
        }),
        Column::computed("Replicas", "integer", |scaler, _| {
            cells::number(scaler, "status.currentReplicas")
        }),
        Column::age(),
    ]
}

/// How many metrics are shown one by one.
const SHOWN_MAX: usize = 2;

/// What is of what should be, per metric: `cpu: 10%/80%`.
fn targets(scaler: &Value) -> String {
    let mut newer = scaler.clone();
    if value::text(scaler, "apiVersion") == "autoscaling/v1" {
        convert::to_v2(&mut newer);
    }
    let metrics = value::list(&newer, "spec.metrics");
    let current = value::list(&newer, "status.currentMetrics");
    if metrics.is_empty() {
        return cells::NONE.to_owned();
    }
    let shown = metrics.iter().zip((0..).map(|index| current.get(index)));
    let mut parts: Vec<String> = shown
        .map(|(metric, now)| shown_target(metric, now))
        .collect();
    let more = parts.len().saturating_sub(SHOWN_MAX);
    if more > 0 {
        parts.truncate(SHOWN_MAX);
        parts.push(format!("{more} more..."));
    }
    parts.join(", ")
}

fn shown_target(metric: &Value, now: Option<&Value>) -> String {
    let kind = value::text(metric, "type");
    let field = convert::source_field(kind);
    let (target, now) = (
        &metric[field]["target"],
        now.map_or(&Value::Null, |now| &now[field]["current"]),
    );
    let text = |of: &Value, name: &str| match of.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => "<unknown>".to_owned(),
    };
    let (name, suffix, average) = match target {
        target if target.get("averageUtilization").is_some() => ("averageUtilization", "%", ""),
        target if target.get("averageValue").is_some() && kind != "Resource" => {
            ("averageValue", "", " (avg)")
        }
        target if target.get("averageValue").is_some() => ("averageValue", "", ""),
        _ => ("value", "", ""),
    };
    let percent = |text: String| match text.as_str() {
        "<unknown>" => text,
        _ => format!("{text}{suffix}"),
    };
    let resource = match kind {
        "Resource" | "ContainerResource" => format!("{}: ", value::text(&metric[field], "name")),
        _ => String::new(),
    };
    let (is, should) = (percent(text(now, name)), percent(text(target, name)));
    format!("{resource}{is}/{should}{average}")
}
