//! From a request's body to an object of a kind: decoded, checked against the schema, of the
//! right kind, in the right place.

use peapod_schema::decode::{self, Decoded};
use peapod_schema::{FieldValidation, Schema, cbor, check, protobuf};
use serde_json::Value;

use super::call::Call;
use super::negotiate::Encoding;
use super::write;
use crate::registry::{Resource, value};
use crate::status::{Result, Status};

/// Decodes a body in its encoding, noting duplicate fields. Protobuf needs the schema of what is
/// in it.
pub fn decode(bytes: &[u8], encoding: Encoding, schema: &Schema) -> Result<Decoded> {
    let bad = |fault: String| Status::bad_request(fault);
    match encoding {
        Encoding::Json => decode::json(bytes).map_err(|fault| bad(fault.to_string())),
        Encoding::Yaml => decode::yaml(bytes).map_err(|fault| bad(fault.to_string())),
        Encoding::Cbor => cbor::decode(bytes).map_err(|fault| bad(fault.to_string())),
        Encoding::Protobuf => {
            protobuf::decode(bytes, schema).map_err(|fault| bad(fault.to_string()))
        }
    }
}

/// Which kind a body must be of.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// `v1`, or `apps/v1`.
    pub api_version: &'a str,
    /// As `Deployment`.
    pub kind: &'a str,
    /// Its shape.
    pub schema: &'a Schema,
}

impl<'a> From<&'a Resource> for Expected<'a> {
    fn from(resource: &'a Resource) -> Self {
        Self {
            api_version: &resource.api_version,
            kind: &resource.kind.kind,
            schema: &resource.schema,
        }
    }
}

/// The object in the body of a request, and the warnings that its sender gets. A missing kind or
/// version is filled in.
pub fn object(call: &Call, expected: Expected<'_>) -> Result<(Value, Vec<String>)> {
    let encoding = Encoding::of_body(&call.headers)?;
    if encoding == Encoding::Protobuf && !protobuf::speaks(expected.schema) {
        return Err(Status::unsupported_media_type(
            "application/json, application/yaml, application/cbor",
        ));
    }
    let decoded = decode(&call.body, encoding, expected.schema);
    let decoded = decoded.map_err(|fault| unrecognized(expected, &fault.message, &call.body))?;
    let mode = FieldValidation::parse(call.query.get("fieldValidation")).unwrap_or_default();
    let (mut object, duplicates, unknown) = apart(decoded, expected)?;
    write::dedup_owners(&mut object, "");
    let faults = match (encoding, mode) {
        (Encoding::Json, _) => decode::in_order(&call.body, [duplicates, unknown].concat()),
        (Encoding::Yaml, FieldValidation::Strict) => {
            let lines = decode::repeated_keys(&call.body, &duplicates);
            let duplicates = lines.map_or(duplicates, |lines| vec![lines]);
            [duplicates, unknown].concat()
        }
        _ => [duplicates, unknown].concat(),
    };
    let settled = mode.settle(faults);
    let warnings = settled.map_err(|fault| unhandled(expected, &fault.to_string()))?;
    Ok((object, warnings))
}

/// Checks a decoded object against the kind that is expected.
pub fn checked(
    decoded: Decoded,
    expected: Expected<'_>,
    mode: FieldValidation,
) -> Result<(Value, Vec<String>)> {
    let (object, duplicates, unknown) = apart(decoded, expected)?;
    let settled = mode.settle([duplicates, unknown].concat());
    let warnings = settled.map_err(|fault| unhandled(expected, &fault.to_string()))?;
    Ok((object, warnings))
}

/// A decoded object of the kind that is expected, and the faults in it that strictness refuses:
/// of fields that stand there twice, and of unknown ones.
pub fn apart(
    decoded: Decoded,
    expected: Expected<'_>,
) -> Result<(Value, Vec<String>, Vec<String>)> {
    let Decoded {
        value: mut object,
        faults: duplicates,
    } = decoded;
    if !object.is_object() {
        return Err(Status::bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }",
        ));
    }
    is_of_kind(&mut object, expected)?;
    let unknown = check::check(&mut object, expected.schema);
    let unknown = unknown.map_err(|fault| unhandled(expected, &fault.to_string()))?;
    Ok((object, duplicates, unknown))
}

fn unhandled(expected: Expected<'_>, fault: &str) -> Status {
    let version = expected.api_version.rsplit('/').next().unwrap_or_default();
    let kind = expected.kind;
    Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {fault}"
    ))
}

/// What is told of a body in which no kind can be found: the beginning of it, too.
fn unrecognized(expected: Expected<'_>, fault: &str, body: &[u8]) -> Status {
    const SHOWN: usize = 30;
    let start = &body[..body.len().min(SHOWN)];
    let mut shown = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN {
        shown.push_str(" ...");
    }
    let kind = expected.kind;
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {fault} ({shown})"
    ))
}

fn is_of_kind(object: &mut Value, expected: Expected<'_>) -> Result<()> {
    let given = value::text(object, "kind").to_owned();
    let version = value::text(object, "apiVersion").to_owned();
    if !given.is_empty() && given != expected.kind {
        return Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is of type {given} ({version})",
            expected.kind
        )));
    }
    if !version.is_empty() && version != expected.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            expected.api_version
        )));
    }
    object["kind"] = expected.kind.into();
    object["apiVersion"] = expected.api_version.into();
    Ok(())
}

/// Makes the object's namespace the path's; a different one is refused.
pub fn place(call: &Call, object: &mut Value) -> Result<()> {
    if !call.kind().is_namespaced() {
        return Ok(());
    }
    let namespace = &call.target.namespace;
    match value::text(object, "metadata.namespace") {
        "" => value::set(object, "metadata.namespace", namespace.as_str()),
        same if same == namespace => {}
        _ => {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// Makes the object's name the path's; a different one is refused.
pub fn name(call: &Call, object: &mut Value) -> Result<()> {
    let wanted = &call.target.name;
    match value::text(object, "metadata.name") {
        "" => value::set(object, "metadata.name", wanted.as_str()),
        same if same == wanted => {}
        other => {
            return Err(Status::bad_request(format!(
                "the name of the object ({other}) does not match the name on the URL ({wanted})"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    #[test]
    fn a_body_without_a_kind_is_shown() {
        let registry = Registry::builtin().unwrap();
        let maps = registry.find("", "v1", "configmaps").unwrap();
        let told = |body: &[u8]| unrecognized((&*maps).into(), "why", body).message;
        let head = "the object provided is unrecognized (must be of type ConfigMap): why";
        assert_eq!(told(b""), format!("{head} (<empty>)"));
        assert_eq!(told(b"{"), format!("{head} ({{)"));
        assert_eq!(told(b"ab"), format!("{head} (6162)"));
        let long = [b"{".as_slice(), &[b'x'; 40]].concat();
        let start = "x".repeat(29);
        assert_eq!(told(&long), format!("{head} ({{{start} ...)"));
    }
}
