//! Token reviews: whom a bearer token speaks for.

use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::bearer;
use crate::registry::value;
use crate::status::{Result, Status};

/// The status of a token review.
pub async fn review(api: &Api, review: &Value) -> Result<Value> {
    let token = value::text(review, "spec.token");
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(why));
    }
    let wanted = super::texts(review, "spec.audiences");
    Ok(match bearer::authenticate(api, token, &wanted).await {
        Ok(bearer) => json!({
            "authenticated": true,
            "user": bearer.user.to_value(),
            "audiences": bearer.audiences,
        }),
        Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
    })
}
