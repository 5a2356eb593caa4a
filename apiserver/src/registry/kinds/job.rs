//! `batch/v1 Job`

use jiff::Timestamp;
use serde_json::Value;

use super::{job_policies, workload};
use crate::registry::pod_spec;
use crate::registry::{At, Column, FieldErrors, Kind, Rules, cells, columns, value};

/// Upstream's warning.
const ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// The declaration.
pub fn kind() -> Kind {
    let mut columns = vec![
        Column::name(),
        Column::computed("Status", "string", |object, _| status(object).into()),
        Column::computed("Completions", "string", |object, _| {
            completions(object).into()
        }),
        Column::computed("Duration", "string", |object, now| {
            duration(object, now).into()
        }),
        Column::age(),
    ];
    columns.extend(cells::workload_columns());
    Kind::namespaced("batch", "v1", "Job", "jobs")
        .categories(&["all"])
        .with_generation()
        .with_status()
        .orphans(ORPHANS)
        .selectable_from(
            &["status.succeeded"],
            &[("status.successful", &["status.succeeded"])],
        )
        .zero("status.succeeded", "0")
        .columns(columns)
        .rules(Jobs)
}

struct Jobs;

impl Rules for Jobs {
    fn defaults(&self, object: &mut Value) {
        default_spec(object, "spec");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = serde_json::json!({});
        if !value::truth(object, "spec.manualSelector") {
            select_own_pods(object);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        validate_spec(&spec, errors);
        if spec.at("selector").is_set() {
            workload::validate_selector(&spec, errors);
        } else {
            spec.at("selector").missing(errors, "");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let root = At::root(new);
        for field in [
            "spec.selector",
            "spec.completionMode",
            "spec.podFailurePolicy",
            "spec.backoffLimitPerIndex",
            "spec.successPolicy",
            "spec.managedBy",
        ] {
            root.at(field).unchanged(old, errors);
        }
        validate_completions(&root.at("spec"), old, errors);
        if !value::truth(old, "spec.suspend") {
            root.at("spec.template").unchanged(old, errors);
        }
    }
}

/// The completions of an indexed job may change together with its parallelism, others not.
fn validate_completions(spec: &At<'_>, old: &Value, errors: &mut FieldErrors) {
    let completions = spec.at("completions");
    if completions.int() == value::integer(old, "spec.completions") {
        return;
    }
    if spec.at("completionMode").text() != "Indexed" || !completions.is_set() {
        return completions.unchanged(old, errors);
    }
    if completions.int() != spec.at("parallelism").int() {
        let why = "can only be modified in tandem with spec.parallelism";
        completions.invalid(errors, why);
    }
}

/// Fills the defaults of a job's specification, here or in a CronJob's template.
pub(super) fn default_spec(object: &mut Value, path: &str) {
    workload::default_template(object, &format!("{path}.template"));
    let Some(spec) = value::at_mut(object, path) else {
        return;
    };
    let is_set = |field: &str| value::at(spec, field).is_some();
    if !is_set("completions") && !is_set("parallelism") {
        spec["completions"] = 1.into();
    }
    value::set_default(spec, "parallelism", 1);
    let replacement = match value::at(spec, "podFailurePolicy") {
        Some(_) => "Failed",
        None => "TerminatingOrFailed",
    };
    value::set_default(spec, "podReplacementPolicy", replacement);
}

/// Checks a job's specification, but for its selector.
pub(super) fn validate_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let counts = [
        "parallelism",
        "completions",
        "backoffLimit",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    workload::not_negative(spec, &counts, errors);
    let mode = spec.at("completionMode");
    mode.one_of(errors, &["NonIndexed", "Indexed"]);
    let completions = spec.at("completions");
    if mode.text() == "Indexed" && !completions.is_set() {
        completions.missing(errors, "when completion mode is Indexed");
    }
    let per_index = spec.at("backoffLimitPerIndex");
    if per_index.is_set() && mode.text() != "Indexed" {
        per_index.invalid(errors, "requires indexed completion mode");
    }
    if spec.at("maxFailedIndexes").is_set() && !per_index.is_set() {
        per_index.missing(errors, "when maxFailedIndexes is specified");
    }
    let replacement = spec.at("podReplacementPolicy");
    match spec.at("podFailurePolicy").is_set() {
        true => replacement.one_of(errors, &["Failed"]),
        false => replacement.one_of(errors, &["Failed", "TerminatingOrFailed"]),
    }
    let template = spec.at("template");
    pod_spec::validate_template(&template, errors);
    let policy = template.at("spec.restartPolicy");
    match policy.text() {
        "" | "OnFailure" | "Never" => {}
        "Always" => policy.missing(errors, "valid values: \"OnFailure\", \"Never\""),
        _ => policy.one_of(errors, &["OnFailure", "Never"]),
    }
    job_policies::validate_failure_policy(spec, errors);
    job_policies::validate_success_policy(spec, errors);
}

/// Labels the pods of a job with its UID, and selects by that.
fn select_own_pods(object: &mut Value) {
    let uid = value::text(object, "metadata.uid").to_owned();
    let name = value::text(object, "metadata.name").to_owned();
    if uid.is_empty() {
        return;
    }
    let labels = value::entry(object, "spec.template.metadata.labels");
    if !labels.is_object() {
        *labels = serde_json::json!({});
    }
    for prefix in ["", "batch.kubernetes.io/"] {
        labels[format!("{prefix}controller-uid")] = uid.clone().into();
        labels[format!("{prefix}job-name")] = name.clone().into();
    }
    let selected = serde_json::json!({"batch.kubernetes.io/controller-uid": uid});
    value::set(
        object,
        "spec.selector",
        serde_json::json!({"matchLabels": selected}),
    );
}

fn status(job: &Value) -> &'static str {
    let has = |kind: &str| {
        value::list(job, "status.conditions")
            .iter()
            .any(|condition| {
                value::text(condition, "type") == kind && value::text(condition, "status") == "True"
            })
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if value::at(job, "metadata.deletionTimestamp").is_some() => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let done = value::integer(job, "status.succeeded").unwrap_or(0);
    match value::integer(job, "spec.completions") {
        Some(wanted) => format!("{done}/{wanted}"),
        None => match value::integer(job, "spec.parallelism") {
            Some(parallel) if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(job: &Value, now: Timestamp) -> String {
    let time = |path: &str| value::text(job, path).parse::<Timestamp>().ok();
    let Some(start) = time("status.startTime") else {
        return String::new();
    };
    let end = time("status.completionTime").unwrap_or(now);
    columns::human_duration(end.as_second() - start.as_second())
}
