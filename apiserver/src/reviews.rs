//! Questions about identity and permission: token reviews, subject access reviews and the
//! reviews of oneself. They are answered, never stored.

use http::StatusCode;
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::authorizer::{Action, Decision};
use crate::auth::tokens::Bound;
use crate::auth::user::User;
use crate::registry::value;
use crate::rest::body_object;
use crate::rest::call::{Call, Reply};
use crate::rest::respond;
use crate::rest::target::{ResourceTarget, Verb};
use crate::status::{Result, Status};
use crate::storage;

/// Answers a review.
pub fn create(api: &Api, call: &Call) -> Result<Reply> {
    let (mut review, warnings) = body_object::object(call, (&*call.resource).into())?;
    review["status"] = match call.kind().plural.as_str() {
        "tokenreviews" => token_review(api, &review),
        "selfsubjectreviews" => json!({"userInfo": call.user.to_value()}),
        "selfsubjectaccessreviews" => access(api, &call.user, &review),
        "subjectaccessreviews" | "localsubjectaccessreviews" => {
            access(api, &subject(&review), &review)
        }
        "selfsubjectrulesreviews" => json!({
            "incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }),
        _ => return Err(Status::method_not_allowed()),
    };
    let mut reply = respond::value(api, call, StatusCode::CREATED, review)?;
    reply.warnings = warnings;
    Ok(reply)
}

/// The user of a token, when what it is bound to still exists. `audiences` empty means this
/// server.
pub fn token_user(api: &Api, token: &str, audiences: &[String]) -> Result<User, String> {
    let own = [api.tokens.issuer().to_owned()];
    let audiences = if audiences.is_empty() {
        &own
    } else {
        audiences
    };
    let claims = api
        .tokens
        .check(token, audiences)
        .map_err(|e| e.to_string())?;
    for (plural, bound) in claims.bindings() {
        if !exists(api, plural, &claims.private.namespace, bound) {
            return Err(format!("{plural} {:?} is gone", bound.name));
        }
    }
    Ok(claims.user())
}

fn exists(api: &Api, plural: &str, namespace: &str, bound: &Bound) -> bool {
    let Some(resource) = api.registry.find("", "v1", plural) else {
        return false;
    };
    let namespace = if resource.kind.is_namespaced() {
        namespace
    } else {
        ""
    };
    let found = storage::key(&resource.kind, namespace, &bound.name)
        .ok()
        .and_then(|key| api.store.get(&key));
    found.is_some_and(|entry| *entry.meta.uid == *bound.uid)
}

fn token_review(api: &Api, review: &Value) -> Value {
    let audiences = value::list(review, "spec.audiences").iter();
    let audiences: Vec<String> = audiences
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect();
    match token_user(api, value::text(review, "spec.token"), &audiences) {
        Ok(user) => {
            let audiences = match audiences.is_empty() {
                true => vec![api.tokens.issuer().to_owned()],
                false => audiences,
            };
            json!({"authenticated": true, "user": user.to_value(), "audiences": audiences})
        }
        Err(why) => json!({"authenticated": false, "error": why}),
    }
}

fn subject(review: &Value) -> User {
    let groups = value::list(review, "spec.groups").iter();
    let groups: Vec<&str> = groups.filter_map(Value::as_str).collect();
    User::authenticated(value::text(review, "spec.user"), groups)
}

fn access(api: &Api, user: &User, review: &Value) -> Value {
    let field = |path: &str| value::text(review, path);
    let decision = match value::map(review, "spec.nonResourceAttributes") {
        Some(_) => {
            let verb = field("spec.nonResourceAttributes.verb");
            let path = field("spec.nonResourceAttributes.path");
            api.authorizer.decide(user, &Action::Path(verb, path))
        }
        None => {
            let target = ResourceTarget {
                group: field("spec.resourceAttributes.group").to_owned(),
                version: field("spec.resourceAttributes.version").to_owned(),
                namespace: field("spec.resourceAttributes.namespace").to_owned(),
                resource: field("spec.resourceAttributes.resource").to_owned(),
                name: field("spec.resourceAttributes.name").to_owned(),
                subresource: field("spec.resourceAttributes.subresource").to_owned(),
                ..ResourceTarget::default()
            };
            let verb = Verb::parse(field("spec.resourceAttributes.verb")).unwrap_or(Verb::Get);
            let action = Action::Resource(verb, &target);
            api.authorizer.decide(user, &action)
        }
    };
    match decision {
        Decision::Allow(reason) => json!({"allowed": true, "reason": reason}),
        Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
    }
}
