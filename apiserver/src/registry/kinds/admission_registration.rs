//! `admissionregistration.k8s.io/v1`: the webhooks and policies that are asked about writes.

use peapod_api::names;
use serde_json::{Value, json};

use crate::admission::expressions;
use crate::registry::{At, Column, FieldError, FieldErrors, Kind, Rules, checks, value};

const GROUP: &str = "admissionregistration.k8s.io";
/// Most expressions of a kind in one object, as upstream.
const CONDITIONS_MAX: usize = 64;
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// The declarations.
pub fn kinds() -> Vec<Kind> {
    vec![
        webhooks(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            true,
        ),
        webhooks(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            false,
        ),
        policy("ValidatingAdmissionPolicy", "validatingadmissionpolicies")
            .with_status()
            .columns(vec![
                Column::name(),
                Column::computed("Validations", "integer", |policy, _| {
                    value::list(policy, "spec.validations").len().into()
                }),
                param_kind(),
                Column::age(),
            ])
            .rules(Policies { mutating: false }),
        policy("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
            .columns(vec![
                Column::name(),
                Column::computed("Mutations", "integer", |policy, _| {
                    value::list(policy, "spec.mutations").len().into()
                }),
                param_kind(),
                Column::age(),
            ])
            .rules(Policies { mutating: true }),
        binding(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            false,
        ),
        binding(
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            true,
        ),
    ]
}

fn param_kind() -> Column {
    Column::computed("ParamKind", "string", |policy, _| {
        let field = |name: &str| value::text(&policy["spec"]["paramKind"], name);
        match (field("apiVersion"), field("kind")) {
            ("", _) => "<unset>".into(),
            (version, kind) => format!("{version}/{kind}").into(),
        }
    })
}

fn declared(kind: &str, plural: &str) -> Kind {
    Kind::cluster(GROUP, "v1", kind, plural)
        .conditional_update()
        .categories(&["api-extensions"])
        .with_generation()
}

fn webhooks(kind: &str, plural: &str, mutating: bool) -> Kind {
    declared(kind, plural)
        .columns(vec![
            Column::name(),
            Column::computed("Webhooks", "integer", |config, _| {
                value::list(config, "webhooks").len().into()
            }),
            Column::age(),
        ])
        .rules(Webhooks { mutating })
}

fn policy(kind: &str, plural: &str) -> Kind {
    declared(kind, plural)
}

fn binding(kind: &str, plural: &str, mutating: bool) -> Kind {
    declared(kind, plural)
        .columns(vec![
            Column::name(),
            Column::path("PolicyName", "string", "spec.policyName"),
            Column::computed("ParamRef", "string", |binding, _| {
                let reference = &binding["spec"]["paramRef"];
                match (
                    value::text(reference, "namespace"),
                    value::text(reference, "name"),
                ) {
                    (_, "") if reference.is_object() => "*".into(),
                    (_, "") => "<unset>".into(),
                    ("", name) => name.into(),
                    (namespace, name) => format!("{namespace}/{name}").into(),
                }
            }),
            Column::age(),
        ])
        .rules(Bindings { mutating })
}

struct Webhooks {
    mutating: bool,
}

impl Rules for Webhooks {
    fn defaults(&self, object: &mut Value) {
        for hook in list_mut(object, "webhooks") {
            value::set_default(hook, "failurePolicy", "Fail");
            value::set_default(hook, "timeoutSeconds", 10);
            if self.mutating {
                value::set_default(hook, "reinvocationPolicy", "Never");
            }
            if let Some(service) = value::at_mut(hook, "clientConfig.service") {
                value::set_default(service, "port", 443);
            }
            matching_defaults(hook, "rules");
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        for hook in At::root(object).at("webhooks").items() {
            let name = hook.at("name");
            name.require_name(errors, names::dns_subdomain);
            if !name.is_empty() && name.text().split('.').count() < 3 {
                name.invalid(
                    errors,
                    "should be a domain with at least three segments separated by dots",
                );
            }
            hook.at("failurePolicy").one_of(errors, &["Fail", "Ignore"]);
            hook.at("sideEffects")
                .require_one_of(errors, &["None", "NoneOnDryRun"]);
            hook.at("reinvocationPolicy")
                .one_of(errors, &["IfNeeded", "Never"]);
            let timeout = hook.at("timeoutSeconds");
            if timeout
                .int()
                .is_some_and(|seconds| !(1..=30).contains(&seconds))
            {
                timeout.invalid(errors, "the timeout value must be between 1 and 30 seconds");
            }
            reviews(&hook.at("admissionReviewVersions"), errors);
            client(&hook.at("clientConfig"), errors);
            resource_rules(&hook.at("rules"), errors);
            selectors(&hook, errors);
            conditions(&hook.at("matchConditions"), false, errors);
        }
    }
}

fn list_mut<'a>(object: &'a mut Value, path: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = value::at_mut(object, path).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn matching_defaults(object: &mut Value, rules: &str) {
    value::set_default(object, "matchPolicy", "Equivalent");
    value::set_default(object, "namespaceSelector", json!({}));
    value::set_default(object, "objectSelector", json!({}));
    for rules in [rules, "excludeResourceRules"] {
        for rule in list_mut(object, rules) {
            value::set_default(rule, "scope", "*");
        }
    }
}

fn reviews(versions: &At<'_>, errors: &mut FieldErrors) {
    if versions.is_empty() {
        return versions.missing(errors, "must specify one of v1, v1beta1");
    }
    if !versions
        .items()
        .any(|version| matches!(version.text(), "v1" | "v1beta1"))
    {
        versions.invalid(errors, "must include at least one of v1, v1beta1");
    }
}

fn client(config: &At<'_>, errors: &mut FieldErrors) {
    let (url, service) = (config.at("url"), config.at("service"));
    if url.is_set() == service.is_set() {
        return config.missing(errors, "exactly one of url or service is required");
    }
    if url.is_set() && !url.text().starts_with("https://") {
        url.invalid(
            errors,
            "'https' is the only allowed URL scheme; desired format: https://host[/path]",
        );
    }
    if service.is_set() {
        service.at("name").required(errors);
        service.at("namespace").required(errors);
        checks::port(&service.at("port"), errors);
    }
}

fn resource_rules(rules: &At<'_>, errors: &mut FieldErrors) {
    for rule in rules.items() {
        for field in ["operations", "apiGroups", "apiVersions", "resources"] {
            rule.at(field).required(errors);
        }
        for operation in rule.at("operations").items() {
            operation.one_of(errors, OPERATIONS);
        }
        rule.at("scope")
            .one_of(errors, &["*", "Cluster", "Namespaced"]);
        for resource in rule.at("resources").items() {
            if resource.is_empty() {
                resource.missing(errors, "");
            }
        }
    }
}

fn selectors(at: &At<'_>, errors: &mut FieldErrors) {
    at.at("matchPolicy")
        .one_of(errors, &["Equivalent", "Exact"]);
    checks::label_selector(&at.at("namespaceSelector"), errors);
    checks::label_selector(&at.at("objectSelector"), errors);
}

fn conditions(all: &At<'_>, policy: bool, errors: &mut FieldErrors) {
    let count = all.items().count();
    if count > CONDITIONS_MAX {
        errors.push(FieldError::too_many(all, count, CONDITIONS_MAX));
    }
    for condition in all.items() {
        condition
            .at("name")
            .require_name(errors, names::qualified_name);
        let expression = condition.at("expression");
        if expression.required(errors)
            && let Err(why) = expressions::check_condition(expression.text(), policy)
        {
            expression.invalid(errors, why);
        }
    }
}

struct Policies {
    mutating: bool,
}

impl Rules for Policies {
    fn defaults(&self, object: &mut Value) {
        if value::at(object, "spec").is_none() {
            return;
        }
        value::set_default(object, "spec.failurePolicy", "Fail");
        if let Some(constraints) = value::at_mut(object, "spec.matchConstraints") {
            matching_defaults(constraints, "resourceRules");
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        spec.at("failurePolicy").one_of(errors, &["Fail", "Ignore"]);
        let constraints = spec.at("matchConstraints");
        if constraints.required(errors) {
            constraints.at("resourceRules").required(errors);
            resource_rules(&constraints.at("resourceRules"), errors);
            resource_rules(&constraints.at("excludeResourceRules"), errors);
            selectors(&constraints, errors);
        }
        let params = spec.at("paramKind");
        if params.is_set() {
            params.at("apiVersion").required(errors);
            params.at("kind").required(errors);
        }
        conditions(&spec.at("matchConditions"), true, errors);
        let scope = expressions::Variables::of(object);
        for (index, fault) in scope.faults() {
            let at = format!("spec.variables[{index}].expression");
            let shown = value::list(object, "spec.variables").get(*index);
            let shown = shown.map_or("", |one| value::text(one, "expression"));
            errors.push(FieldError::invalid(at, shown, fault.clone()));
        }
        let has_params = params.is_set();
        match self.mutating {
            false => validations(&spec, &scope, has_params, errors),
            true => mutations(&spec, &scope, has_params, errors),
        }
    }
}

fn validations(
    spec: &At<'_>,
    scope: &expressions::Variables,
    params: bool,
    errors: &mut FieldErrors,
) {
    let (all, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if all.is_empty() && annotations.is_empty() {
        all.missing(
            errors,
            "validations or auditAnnotations must contain at least one item",
        );
    }
    let check = |at: &At<'_>, wanted, errors: &mut FieldErrors| {
        if let Err(why) = expressions::check(at.text(), scope, params, wanted) {
            at.invalid(errors, why);
        }
    };
    for validation in all.items() {
        let expression = validation.at("expression");
        if expression.text().trim().is_empty() {
            expression.missing(errors, "expression is not specified");
        } else {
            check(&expression, expressions::Wanted::Bool, errors);
        }
        let message = validation.at("messageExpression");
        if !message.is_empty() {
            check(&message, expressions::Wanted::Text, errors);
        }
        validation.at("reason").one_of(
            errors,
            &[
                "Forbidden",
                "Invalid",
                "RequestEntityTooLarge",
                "Unauthorized",
            ],
        );
        if validation.at("message").text().contains('\n') {
            validation
                .at("message")
                .invalid(errors, "message must not contain line breaks");
        }
    }
    for annotation in annotations.items() {
        annotation.at("key").required(errors);
        let expression = annotation.at("valueExpression");
        if expression.required(errors) {
            check(&expression, expressions::Wanted::TextOrNull, errors);
        }
    }
}

fn mutations(
    spec: &At<'_>,
    scope: &expressions::Variables,
    params: bool,
    errors: &mut FieldErrors,
) {
    spec.at("reinvocationPolicy")
        .require_one_of(errors, &["IfNeeded", "Never"]);
    let all = spec.at("mutations");
    if !all.required(errors) {
        return;
    }
    for mutation in all.items() {
        let kind = mutation.at("patchType");
        kind.require_one_of(errors, &["ApplyConfiguration", "JSONPatch"]);
        let (field, wanted) = match kind.text() {
            "JSONPatch" => ("jsonPatch", expressions::Wanted::Patches),
            _ => ("applyConfiguration", expressions::Wanted::Object),
        };
        let expression = mutation.at(field);
        let expression = expression.at("expression");
        if expression.required(errors)
            && let Err(why) = expressions::check(expression.text(), scope, params, wanted)
        {
            expression.invalid(errors, why);
        }
    }
}

struct Bindings {
    mutating: bool,
}

impl Rules for Bindings {
    fn defaults(&self, object: &mut Value) {
        if let Some(matching) = value::at_mut(object, "spec.matchResources") {
            matching_defaults(matching, "resourceRules");
        }
    }

    fn validate(&self, object: &Value, errors: &mut FieldErrors) {
        let root = At::root(object);
        let spec = root.at("spec");
        spec.at("policyName")
            .require_name(errors, names::dns_subdomain);
        let reference = spec.at("paramRef");
        if reference.is_set() {
            if reference.at("name").is_set() == reference.at("selector").is_set() {
                reference
                    .at("name")
                    .missing(errors, "one of name or selector must be specified");
            }
            reference
                .at("parameterNotFoundAction")
                .require_one_of(errors, &["Allow", "Deny"]);
        }
        let matching = spec.at("matchResources");
        resource_rules(&matching.at("resourceRules"), errors);
        resource_rules(&matching.at("excludeResourceRules"), errors);
        selectors(&matching, errors);
        if self.mutating {
            return;
        }
        let actions = spec.at("validationActions");
        if actions.required(errors) {
            let given: Vec<&str> = actions.items().map(|action| action.text()).collect();
            for action in actions.items() {
                action.one_of(errors, &["Audit", "Deny", "Warn"]);
            }
            if given.contains(&"Deny") && given.contains(&"Warn") {
                actions.invalid(errors, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
            }
        }
    }
}
