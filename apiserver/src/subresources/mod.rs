//! Subresources that are not written as the whole object: each reads or changes one aspect of
//! it.

mod binding;
mod eviction;
mod scale;
mod token;

use crate::api::Api;
use crate::registry::Subresource;
use crate::rest::call::{Call, Reply};
use crate::status::{Result, Status};

/// Answers a request on such a subresource.
pub async fn serve(api: &Api, call: &Call, subresource: &Subresource) -> Result<Reply> {
    match subresource {
        Subresource::Scale(paths) => scale::serve(api, call, paths).await,
        Subresource::Binding => binding::create(api, call).await,
        Subresource::Eviction => eviction::create(api, call).await,
        Subresource::Token => token::create(api, call).await,
        _ => Err(Status::method_not_allowed()),
    }
}

/// Answers a POST to `bindings`: the older way to create the `/binding` of a pod.
pub async fn bind(api: &Api, call: &Call) -> Result<Reply> {
    binding::create_in_collection(api, call).await
}

/// The schema of what a subresource speaks.
fn expected(
    api: &Api,
    subresource: &Subresource,
) -> Result<(String, &'static str, peapod_schema::Schema)> {
    let (group, version, kind) = subresource.kind().ok_or_else(Status::no_such_path)?;
    let schema = api.registry.schema(group, version, kind);
    let schema = schema.ok_or_else(|| Status::internal(format!("no schema for {kind}")))?;
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    Ok((api_version, kind, schema))
}

/// The object in the body, of the kind that a subresource speaks.
fn body(api: &Api, call: &Call) -> Result<serde_json::Value> {
    let subresource = call.subresource.as_ref().ok_or_else(Status::no_such_path)?;
    body_of(api, call, subresource)
}

/// The object in the body, of the kind that this subresource speaks.
fn body_of(api: &Api, call: &Call, subresource: &Subresource) -> Result<serde_json::Value> {
    let (api_version, kind, schema) = expected(api, subresource)?;
    let expected = crate::rest::body_object::Expected {
        api_version: &api_version,
        kind,
        schema: &schema,
    };
    let (mut object, _) = crate::rest::body_object::object(call, expected)?;
    peapod_schema::default::default(&mut object, &schema);
    Ok(object)
}
