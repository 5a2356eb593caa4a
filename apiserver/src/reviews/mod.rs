//! Questions about identity and permission: token reviews, access reviews and the reviews of
//! oneself. They are answered, never stored.

mod access;
mod rules;
mod token;

use http::StatusCode;
use serde_json::{Value, json};

use crate::api::Api;
use crate::registry::value;
use crate::rest::body_object;
use crate::rest::call::{Call, Reply};
use crate::rest::respond;
use crate::status::{Result, Status};

/// Answers a review.
pub async fn create(api: &Api, call: &Call) -> Result<Reply> {
    let (mut review, warnings) = body_object::object(call, (&*call.resource).into())?;
    body_object::place(call, &mut review)?;
    review["status"] = match call.kind().plural.as_str() {
        "tokenreviews" => token::review(api, &review).await?,
        "selfsubjectreviews" => json!({"userInfo": call.user.to_value()}),
        "selfsubjectaccessreviews" | "subjectaccessreviews" | "localsubjectaccessreviews" => {
            access::review(api, call, &review)?
        }
        "selfsubjectrulesreviews" => rules::review(api, call, &review)?,
        _ => return Err(Status::method_not_allowed()),
    };
    let mut reply = respond::value(api, call, StatusCode::CREATED, review)?;
    reply.warnings = warnings;
    Ok(reply)
}

/// The texts of the list at a path.
fn texts(object: &Value, path: &str) -> Vec<String> {
    let all = value::list(object, path).iter();
    all.filter_map(Value::as_str).map(Into::into).collect()
}
