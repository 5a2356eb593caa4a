//! Access reviews: whether someone may do something.

use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::action::{Access, Action};
use crate::auth::authorizer::Decision;
use crate::auth::user::User;
use crate::registry::{At, FieldErrors, value};
use crate::rest::call::Call;
use crate::status::{Result, Status};

/// The status of a review.
pub fn review(api: &Api, call: &Call, review: &Value) -> Result<Value> {
    check(call, review)?;
    let user = match call.kind().plural.as_str() {
        "selfsubjectaccessreviews" => call.user.clone(),
        _ => subject(review),
    };
    let attributes = |field: &str| value::text(review, &format!("spec.{field}")).to_owned();
    let decision = match value::map(review, "spec.nonResourceAttributes") {
        Some(_) => {
            let verb = attributes("nonResourceAttributes.verb");
            let path = attributes("nonResourceAttributes.path");
            let action = Action::Path {
                verb: &verb,
                path: &path,
            };
            api.authorizer.decide(&user, &action)
        }
        None => {
            let field =
                |name: &str| value::text(review, &format!("spec.resourceAttributes.{name}"));
            let selector = selector(review);
            let action = Action::Resource(Access {
                verb: field("verb"),
                group: field("group"),
                version: field("version"),
                resource: field("resource"),
                subresource: field("subresource"),
                namespace: field("namespace"),
                name: field("name"),
                field_selector: &selector,
            });
            api.authorizer.decide(&user, &action)
        }
    };
    Ok(told(decision))
}

fn told(decision: Decision) -> Value {
    let (mut status, reason) = match decision {
        Decision::Allow(reason) => (json!({"allowed": true}), reason),
        Decision::Deny(reason) => (json!({"allowed": false, "denied": true}), reason),
        Decision::NoOpinion(reason) => (json!({"allowed": false}), reason),
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

/// The field selector that is asked about: as it is, or put together of its requirements.
fn selector(review: &Value) -> String {
    let raw = value::text(review, "spec.resourceAttributes.fieldSelector.rawSelector");
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let requirements = value::list(review, "spec.resourceAttributes.fieldSelector.requirements");
    let terms = requirements.iter().filter_map(|one| {
        let [only] = value::list(one, "values") else {
            return None;
        };
        let is_in = value::text(one, "operator") == "In";
        is_in.then(|| {
            format!(
                "{}={}",
                value::text(one, "key"),
                only.as_str().unwrap_or_default()
            )
        })
    });
    terms.collect::<Vec<_>>().join(",")
}

fn subject(review: &Value) -> User {
    let extra = value::map(review, "spec.extra").into_iter().flatten();
    let extra = extra.map(|(key, values)| {
        let values = values.as_array().into_iter().flatten();
        let values = values.filter_map(Value::as_str).map(str::to_owned);
        (key.to_lowercase(), values.collect())
    });
    User::exactly(
        value::text(review, "spec.user"),
        value::text(review, "spec.uid"),
        super::texts(review, "spec.groups"),
        extra.collect(),
    )
}

fn check(call: &Call, review: &Value) -> Result<()> {
    let mut errors = FieldErrors::new();
    let root = At::root(review);
    let spec = root.at("spec");
    let (resource, path) = (
        spec.at("resourceAttributes"),
        spec.at("nonResourceAttributes"),
    );
    match (resource.is_set(), path.is_set()) {
        (true, true) => path.invalid(
            &mut errors,
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => resource.missing(
            &mut errors,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    let plural = call.kind().plural.as_str();
    if plural != "selfsubjectaccessreviews"
        && spec.at("user").is_empty()
        && spec.at("groups").is_empty()
    {
        let why = "at least one of user or group must be specified";
        spec.at("user").invalid(&mut errors, why);
    }
    if plural == "localsubjectaccessreviews" {
        let namespace = resource.at("namespace");
        if path.is_set() {
            path.invalid(&mut errors, "disallowed on this kind of request");
        }
        if namespace.text() != call.target.namespace {
            namespace.invalid(&mut errors, "must match metadata.namespace");
        }
    }
    match errors.is_empty() {
        true => Ok(()),
        false => {
            let kind = call.kind();
            Err(Status::invalid(&kind.group, &kind.kind, "", &errors))
        }
    }
}
