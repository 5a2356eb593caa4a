//! Server-side apply: a PATCH that says what its sender wants, and nothing else.

use http::StatusCode;
use peapod_schema::apply::{self, ApplyError};
use peapod_schema::{FieldValidation, decode};
use serde_json::Value;

use super::body_object;
use super::call::Call;
use super::negotiate::Encoding;
use super::write::{Write, Written};
use super::{create, fields, update};
use crate::registry::value;
use crate::status::{Result, Status};

/// How often to begin anew when the object comes or goes meanwhile.
const ATTEMPTS: usize = 5;

/// Applies the configuration in the body; creates the object where there is none.
pub async fn apply(
    write: &Write<'_>,
    call: &Call,
    encoding: Encoding,
    mode: FieldValidation,
) -> Result<(StatusCode, Written, Vec<String>)> {
    let decoded = body_object::decode(&call.body, encoding, &call.resource.schema)?;
    let (mut config, duplicates, unknown) = body_object::apart(decoded, (&*call.resource).into())?;
    // Whatever the mode: who applies owns fields, and an unknown one cannot be owned.
    if !unknown.is_empty() {
        return Err(untyped(&config, &unknown));
    }
    if let (FieldValidation::Strict, false) = (mode, duplicates.is_empty()) {
        let lines = decode::repeated_keys(&call.body, &duplicates);
        let told = lines.unwrap_or_else(|| duplicates.join(", "));
        return Err(Status::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: {told}"
        )));
    }
    let warnings = mode.settle(duplicates).unwrap_or_default();
    body_object::place(call, &mut config)?;
    body_object::name(call, &mut config)?;
    let missing = |status: &Status| status.code == 404 && write.subresource.is_empty();
    for turn in 1..=ATTEMPTS {
        let changed = update::modify(write, |old| merged(write, Some(old), &config)).await;
        let written = match changed {
            Err(status) if missing(&status) => {
                let object = merged(write, None, &config)?;
                create::insert(write, object).await
            }
            outcome => return Ok((StatusCode::OK, outcome?, warnings)),
        };
        match written {
            // Another created it meanwhile: it is changed then.
            Err(status) if status.reason == "AlreadyExists" && turn < ATTEMPTS => {}
            written => return Ok((StatusCode::CREATED, written?, warnings)),
        }
    }
    Err(Status::unavailable("the object comes and goes; try again"))
}

/// The refusal of a configuration with fields that its kind does not have, worded and coded as
/// upstream's.
fn untyped(config: &Value, unknown: &[String]) -> Status {
    let told: Vec<String> = unknown
        .iter()
        .map(|fault| {
            let path = fault.split('"').nth(1).unwrap_or_default();
            format!(".{path}: field not declared in schema")
        })
        .collect();
    let told = match &told[..] {
        [one] => one.clone(),
        several => format!("errors:\n  {}", several.join("\n  ")),
    };
    let text = |path| value::text(config, path);
    let version = match text("apiVersion") {
        core if !core.contains('/') => format!("/{core}"),
        version => version.to_owned(),
    };
    Status::unknown(format!(
        "failed to create typed patch object ({}/{}; {version}, Kind={}): {told}",
        text("metadata.namespace"),
        text("metadata.name"),
        text("kind"),
    ))
}

/// What the configuration makes of the live object.
fn merged(write: &Write<'_>, live: Option<&Value>, config: &Value) -> Result<Value> {
    let schema = &write.resource.schema;
    let force = write.options.force;
    let outcome = fields::as_writer(write, write.api.now(), |writer| {
        let complete = |object: &mut Value| write.default(object);
        apply::apply(live, config.clone(), schema, writer, force, &complete)
    });
    let mut object = outcome.map_err(|fault| match fault {
        ApplyError::Conflict(conflicts) => {
            let causes = conflicts.causes().into_iter();
            let causes = causes.map(|c| (format!("conflict with {}", c.manager), c.field));
            Status::apply_conflict(&conflicts.to_string(), causes.collect())
        }
        ApplyError::ManagedFields | ApplyError::Malformed(_) => {
            Status::bad_request(fault.to_string())
        }
    })?;
    // Only the configuration's own version is a precondition.
    let given = value::at(config, "metadata.resourceVersion").cloned();
    value::set_or_remove(&mut object, "metadata.resourceVersion", given);
    Ok(object)
}
