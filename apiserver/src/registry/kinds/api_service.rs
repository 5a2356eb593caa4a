//! `apiregistration.k8s.io/v1 APIService`

use peapod_api::names;
use serde_json::Value;

use crate::aggregation::{GROUP, PLURAL};
use crate::registry::{At, Column, FieldErrors, Kind, Rules, checks, object_meta, value};

/// The declaration.
pub fn kind() -> Kind {
    Kind::cluster(GROUP, "v1", "APIService", PLURAL)
        .conditional_update()
        .categories(&["api-extensions"])
        // That of the core group ends with a point.
        .name_rule(names::path_segment)
        .with_status()
        .columns(vec![
            Column::name(),
            Column::computed("Service", "string", |service, _| {
                let reference = &service["spec"]["service"];
                match (
                    value::text(reference, "namespace"),
                    value::text(reference, "name"),
                ) {
                    (_, "") => "Local".into(),
                    (namespace, name) => format!("{namespace}/{name}").into(),
                }
            }),
            Column::computed("Available", "string", |service, _| {
                let all = value::list(service, "status.conditions").iter();
                let mut found = all.filter(|one| one["type"] == "Available");
                match found
                    .next()
                    .map(|one| (value::text(one, "status"), value::text(one, "reason")))
                {
                    Some(("True", _)) => "True".into(),
                    Some((status, reason)) => format!("{status} ({reason})").into(),
                    None => "Unknown".into(),
                }
            }),
            Column::age(),
        ])
        .rules(ApiServices)
}

struct ApiServices;

impl Rules for ApiServices {
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object_meta::keep(new, old);
    }

    fn defaults(&self, object: &mut Value) {
        if let Some(service) = value::at_mut(object, "spec.service") {
            value::set_default(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let wanted = format!("{}.{}", spec.at("version").text(), spec.at("group").text());
        let name = root.at("metadata.name");
        if name.text() != wanted {
            name.invalid(
                errors,
                format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"),
            );
        }
        spec.at("version").required(errors);
        for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let priority = spec.at(field);
            if !priority
                .int()
                .is_some_and(|number| (1..=most).contains(&number))
            {
                priority.invalid(
                    errors,
                    format!("must be positive and less than {}", most + 1),
                );
            }
        }
        let service = spec.at("service");
        let (bundle, insecure) = (spec.at("caBundle"), spec.at("insecureSkipTLSVerify"));
        if !service.is_set() {
            if !bundle.is_empty() {
                bundle.invalid(errors, "local APIServices may not have a caBundle");
            }
            if insecure.is_true() {
                insecure.invalid(
                    errors,
                    "local APIServices may not have insecureSkipTLSVerify",
                );
            }
            return;
        }
        service.at("namespace").required(errors);
        service.at("name").required(errors);
        checks::port(&service.at("port"), errors);
        if insecure.is_true() && !bundle.is_empty() {
            insecure.invalid(errors, "may not be true if caBundle is present");
        }
    }
}
