//! `flowcontrol.apiserver.k8s.io/v1`: which requests wait in which queues.

use peapod_api::names;
use serde_json::{Value, json};

use crate::registry::{At, Column, FieldErrors, Kind, Rules, object_meta, value};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![flow_schema(), priority_level()]
}

fn flow_schema() -> Kind {
    Kind::cluster(GROUP, "v1", "FlowSchema", "flowschemas")
        .with_generation()
        .with_status()
        .columns(vec![
            Column::name(),
            Column::path(
                "PriorityLevel",
                "string",
                "spec.priorityLevelConfiguration.name",
            ),
            Column::path("MatchingPrecedence", "integer", "spec.matchingPrecedence"),
            Column::computed(
                "DistinguisherMethod",
                "string",
                |schema, _| match value::text(schema, "spec.distinguisherMethod.type") {
                    "" => "<none>".into(),
                    kind => kind.into(),
                },
            ),
            Column::age(),
            Column::computed("MissingPL", "string", |schema, _| {
                let all = value::list(schema, "status.conditions").iter();
                let dangling = all.filter(|one| one["type"] == "Dangling");
                let status = dangling.map(|one| value::text(one, "status")).next();
                status.unwrap_or("?").into()
            }),
        ])
        .rules(FlowSchemas)
}

struct FlowSchemas;

impl Rules for FlowSchemas {
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object_meta::keep(new, old);
    }

    fn defaults(&self, object: &mut Value) {
        if value::integer(object, "spec.matchingPrecedence").unwrap_or(0) == 0 {
            value::set(object, "spec.matchingPrecedence", 1000);
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let precedence = spec.at("matchingPrecedence");
        match precedence.int().unwrap_or(0) {
            ..=0 => precedence.invalid(errors, "must be a positive value"),
            1 if root.at("metadata.name").text() != "exempt" => {
                let why = "only the schema named 'exempt' may have matchingPrecedence 1";
                precedence.invalid(errors, why);
            }
            number if number > PRECEDENCE_MAX => {
                precedence.invalid(errors, "must not be greater than 10000");
            }
            _ => {}
        }
        let method = spec.at("distinguisherMethod");
        if method.is_set() {
            let kinds = ["ByNamespace", "ByUser"];
            method.at("type").require_one_of(errors, &kinds);
        }
        let level = spec.at("priorityLevelConfiguration.name");
        match level.is_empty() {
            true => level.missing(errors, "must reference a priority level"),
            false => level.follows(errors, names::dns_subdomain),
        }
        for rule in spec.at("rules").items() {
            validate_rule(&rule, errors);
        }
    }
}

fn validate_rule(rule: &At<'_>, errors: &mut FieldErrors) {
    let subjects = rule.at("subjects");
    if subjects.is_empty() {
        subjects.missing(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        validate_subject(&subject, errors);
    }
    let (resources, paths) = (rule.at("resourceRules"), rule.at("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        rule.missing(errors, why);
    }
    for resource in resources.items() {
        for field in ["verbs", "apiGroups", "resources"] {
            require_some(&resource, field, errors);
        }
        let (cluster, namespaces) = (resource.at("clusterScope"), resource.at("namespaces"));
        if namespaces.is_empty() && !cluster.is_true() {
            let why =
                "resource rules that are not cluster scoped must supply at least one namespace";
            namespaces.missing(errors, why);
        }
    }
    for path in paths.items() {
        for field in ["verbs", "nonResourceURLs"] {
            require_some(&path, field, errors);
        }
    }
}

/// Demands a list with something in it, and `*` only on its own.
fn require_some(rule: &At<'_>, field: &str, errors: &mut FieldErrors) {
    let list = rule.at(field);
    if list.is_empty() {
        return list.missing(errors, format!("{field} must contain at least one value"));
    }
    let star = list.items().any(|item| item.text() == "*");
    if star && list.items().count() > 1 {
        let why = format!("if '*' is present, must not specify other {field}");
        list.invalid(errors, why);
    }
}

fn validate_subject(subject: &At<'_>, errors: &mut FieldErrors) {
    const KINDS: [(&str, &str); 3] = [
        ("Group", "group"),
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
    ];
    let kind = subject.at("kind");
    kind.require_one_of(errors, &KINDS.map(|(kind, _)| kind));
    for (name, field) in KINDS {
        let source = subject.at(field);
        match (kind.text() == name, source.is_set()) {
            (true, false) => {
                let why = format!("{field} is required when subject kind is '{name}'");
                source.missing(errors, why);
            }
            (false, true) => {
                let why = format!("{field} is forbidden when subject kind is not '{name}'");
                source.forbidden(errors, why);
            }
            (true, true) => {
                source.at("name").required(errors);
                if field == "serviceAccount" {
                    source.at("namespace").required(errors);
                }
            }
            (false, false) => {}
        }
    }
}

fn priority_level() -> Kind {
    let queuing = |field: &'static str, path: &'static str| Column::path(field, "integer", path);
    Kind::cluster(
        GROUP,
        "v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
    )
    .with_generation()
    .with_status()
    .columns(vec![
        Column::name(),
        Column::path("Type", "string", "spec.type"),
        queuing(
            "NominalConcurrencyShares",
            "spec.limited.nominalConcurrencyShares",
        ),
        queuing("Queues", "spec.limited.limitResponse.queuing.queues"),
        queuing("HandSize", "spec.limited.limitResponse.queuing.handSize"),
        queuing(
            "QueueLengthLimit",
            "spec.limited.limitResponse.queuing.queueLengthLimit",
        ),
        Column::age(),
    ])
    .rules(PriorityLevels)
}

struct PriorityLevels;

impl Rules for PriorityLevels {
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        object_meta::keep(new, old);
    }

    fn defaults(&self, object: &mut Value) {
        if value::text(object, "spec.type") == "Exempt" {
            value::set_default(object, "spec.exempt", json!({}));
        }
        for (kind, shares) in [("exempt", 0), ("limited", 30)] {
            if let Some(level) = value::at_mut(&mut object["spec"], kind) {
                value::set_default(level, "nominalConcurrencyShares", shares);
                value::set_default(level, "lendablePercent", 0);
            }
        }
        if let Some(queuing) = value::at_mut(object, "spec.limited.limitResponse.queuing") {
            for (field, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if value::integer(queuing, field).unwrap_or(0) == 0 {
                    value::set(queuing, field, default);
                }
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        let (exempt, limited) = (spec.at("exempt"), spec.at("limited"));
        spec.at("type")
            .require_one_of(errors, &["Exempt", "Limited"]);
        match spec.at("type").text() {
            "Exempt" if limited.is_set() => {
                limited.forbidden(errors, "must be nil if the type is not Limited");
            }
            "Limited" if exempt.is_set() => {
                exempt.forbidden(errors, "must be nil if the type is Limited");
            }
            "Limited" if !limited.is_set() => {
                limited.missing(errors, "must not be empty when type is Limited");
            }
            _ => {}
        }
        for level in [&exempt, &limited] {
            let shares = level.at("nominalConcurrencyShares");
            if shares.int().is_some_and(|shares| shares < 0) {
                shares.invalid(errors, "must be a non-negative integer");
            }
            level.at("lendablePercent").within(errors, 0..=100);
        }
        let borrowing = limited.at("borrowingLimitPercent");
        if borrowing.int().is_some_and(|percent| percent < 0) {
            let why = "if specified, must be a non-negative integer";
            borrowing.invalid(errors, why);
        }
        if limited.is_set() {
            validate_response(&limited.at("limitResponse"), errors);
        }
    }
}

fn validate_response(response: &At<'_>, errors: &mut FieldErrors) {
    let (kind, queuing) = (response.at("type"), response.at("queuing"));
    kind.require_one_of(errors, &["Queue", "Reject"]);
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden(
                errors,
                "must be nil if limited.limitResponse.type is not Limited",
            );
        }
        "Queue" if !queuing.is_set() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            queuing.missing(errors, why);
        }
        _ => {}
    }
    if !queuing.is_set() {
        return;
    }
    for field in ["queueLengthLimit", "queues", "handSize"] {
        let number = queuing.at(field);
        if number.int().unwrap_or(0) <= 0 {
            number.invalid(errors, "must be positive");
        }
    }
    let (queues, hand) = (queuing.at("queues"), queuing.at("handSize"));
    let count = queues.int().unwrap_or(0);
    if count > QUEUES_MAX {
        queues.invalid(errors, format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand.int().is_some_and(|size| size > count) {
        hand.invalid(
            errors,
            format!("should not be greater than queues ({count})"),
        );
    }
}
