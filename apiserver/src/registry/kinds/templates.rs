//! `v1 PodTemplate` and `v1 ReplicationController`.

use serde_json::Value;

use super::workload;
use crate::registry::checks;
use crate::registry::pod_spec;
use crate::registry::{
    At, Column, FieldErrors, Kind, Rules, ScalePaths, Subresource, cells, value,
};

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![pod_template(), replication_controller()]
}

fn pod_template() -> Kind {
    Kind::namespaced("", "v1", "PodTemplate", "podtemplates")
        .with_generation()
        .columns(vec![
            Column::name(),
            Column::computed("Containers", "string", |object, _| {
                cells::joined(value::list(object, "template.spec.containers"), "name").into()
            }),
            Column::computed("Images", "string", |object, _| {
                cells::joined(value::list(object, "template.spec.containers"), "image").into()
            }),
            Column::computed("Pod Labels", "string", |object, _| {
                cells::or_none(cells::labels(value::map(
                    object,
                    "template.metadata.labels",
                )))
            }),
        ])
        .rules(PodTemplates)
}

struct PodTemplates;

impl Rules for PodTemplates {
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "template");
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        pod_spec::validate_template(&root.at("template"), errors);
    }
}

fn replication_controller() -> Kind {
    let [containers, images] = cells::template_columns();
    Kind::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
        .short_names(&["rc"])
        .categories(&["all"])
        .with_generation()
        .with_status()
        .subresource(Subresource::Scale(ScalePaths::default()))
        .orphans("")
        .selectable(&["status.replicas"])
        .zero("status.replicas", "0")
        .columns(vec![
            Column::name(),
            Column::computed("Desired", "integer", |object, _| {
                cells::number(object, "spec.replicas")
            }),
            Column::computed("Current", "integer", |object, _| {
                cells::number(object, "status.replicas")
            }),
            Column::computed("Ready", "integer", |object, _| {
                cells::number(object, "status.readyReplicas")
            }),
            Column::age(),
            containers,
            images,
            Column::computed("Selector", "string", |object, _| {
                cells::or_none(cells::labels(value::map(object, "spec.selector")))
            })
            .wide(),
        ])
        .rules(ReplicationControllers)
}

struct ReplicationControllers;

impl Rules for ReplicationControllers {
    /// Without a selector or labels of its own it takes those of its template.
    fn defaults(&self, object: &mut Value) {
        workload::default_template(object, "spec.template");
        if let Some(labels) = value::at(object, "spec.template.metadata.labels").cloned() {
            value::set_default(object, "spec.selector", labels.clone());
            value::set_default(object, "metadata.labels", labels);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        workload::not_negative(&spec, &["replicas", "minReadySeconds"], errors);
        let selector = spec.at("selector");
        selector.required(errors);
        checks::labels(&selector, errors);
        let labels = spec.at("template.metadata.labels");
        let is_there =
            |(key, wanted): (&str, At<'_>)| labels.value().get(key) == Some(wanted.value());
        if !selector.entries().all(is_there) {
            labels.invalid(errors, "`selector` does not match template `labels`");
        }
        workload::validate_lasting_template(&spec, errors);
    }
}
