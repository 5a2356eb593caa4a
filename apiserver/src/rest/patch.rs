//! PATCH, in its four forms.

use http::StatusCode;
use peapod_schema::patch::{self, PatchError};
use peapod_schema::{FieldValidation, decode::Decoded};
use serde_json::Value;

use super::body_object::{self, Expected};
use super::call::{Call, Reply};
use super::negotiate::{Encoding, PatchType};
use super::write::{Write, Written};
use super::{fields, options, respond, update};
use crate::api::Api;
use crate::registry::Resource;
use crate::status::{Result, Status};

/// Answers a PATCH of an object or of a subresource that is written as the whole object.
pub async fn patch(api: &Api, call: &Call) -> Result<Reply> {
    let options = options::of(call)?;
    let form = PatchType::of(&call.headers)?;
    if form == PatchType::Strategic && call.kind().custom {
        return Err(Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor",
        ));
    }
    let manager = fields::manager(&options, call);
    let write = Write {
        apply: matches!(form, PatchType::Apply(_)),
        ..Write::asked(api, call, &options, &manager)
    };
    let mode = FieldValidation::parse(&options.field_validation).unwrap_or_default();
    let (code, written, warnings) = match form {
        PatchType::Apply(encoding) => super::apply::apply(&write, call, encoding, mode).await?,
        form => {
            let given = decoded(call, form)?;
            let (written, warnings) = patched(&write, form, &given, mode).await?;
            (StatusCode::OK, written, warnings)
        }
    };
    let mut reply = respond::object(api, call, code, written.bytes)?;
    reply.warnings = warnings;
    Ok(reply)
}

/// Decodes the body of a patch that is not an apply.
pub fn decoded(call: &Call, form: PatchType) -> Result<Value> {
    if matches!(form, PatchType::Apply(_)) {
        return Err(Status::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        ));
    }
    Ok(body_object::decode(&call.body, Encoding::Json, &call.resource.schema)?.value)
}

async fn patched(
    write: &Write<'_>,
    form: PatchType,
    given: &Value,
    mode: FieldValidation,
) -> Result<(Written, Vec<String>)> {
    let mut warnings = Vec::new();
    let written = update::modify(write, |old| {
        let new = merged(form, old, given, write.resource)?;
        let (new, found) = check(new, write.resource, mode)?;
        warnings = found;
        same_object(write, &new)?;
        Ok(new)
    })
    .await?;
    Ok((written, warnings))
}

/// The object that a patch makes of another.
pub fn merged(form: PatchType, old: &Value, given: &Value, resource: &Resource) -> Result<Value> {
    let original = old.clone();
    let outcome = match form {
        PatchType::Json => patch::json(original, given.clone()),
        PatchType::Merge => patch::merge(original, given),
        PatchType::Strategic | PatchType::Apply(_) => {
            patch::strategic(original, given.clone(), &resource.schema)
        }
    };
    outcome.map_err(|fault| match fault {
        PatchError::Malformed(why) => Status::bad_request(why),
        PatchError::TooMany(_) => Status::too_many_operations(fault.to_string()),
        PatchError::Unfit(why) => Status::unprocessable(why),
    })
}

fn check(new: Value, resource: &Resource, mode: FieldValidation) -> Result<(Value, Vec<String>)> {
    let decoded = Decoded {
        value: new,
        faults: Vec::new(),
    };
    body_object::checked(decoded, Expected::from(resource), mode)
}

/// A patch may not rename or move.
fn same_object(write: &Write<'_>, new: &Value) -> Result<()> {
    let meta = &new["metadata"];
    for (field, present) in [("name", write.name), ("namespace", write.namespace)] {
        let given = meta[field].as_str().unwrap_or_default();
        if given != present {
            let why = match field {
                "name" => format!(
                    "the name of the object ({given}) does not match the name on the URL ({present})"
                ),
                _ => "the namespace of the provided object does not match the namespace sent on the request".to_owned(),
            };
            return Err(Status::bad_request(why));
        }
    }
    Ok(())
}
