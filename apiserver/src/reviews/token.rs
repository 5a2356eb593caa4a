//! Token reviews: whom a bearer token speaks for.

use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::tokens::Bound;
use crate::auth::user::User;
use crate::registry::value;
use crate::status::{Result, Status};
use crate::storage;

/// The status of a token review.
pub fn review(api: &Api, review: &Value) -> Result<Value> {
    let token = value::text(review, "spec.token");
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(why));
    }
    let wanted = super::texts(review, "spec.audiences");
    Ok(match token_user(api, token, &wanted) {
        Ok(user) => {
            let audiences = match wanted.is_empty() {
                true => vec![api.tokens.issuer().to_owned()],
                false => wanted,
            };
            json!({"authenticated": true, "user": user.to_value(), "audiences": audiences})
        }
        Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
    })
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
