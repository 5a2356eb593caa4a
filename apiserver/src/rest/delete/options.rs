//! The options of a deletion, from the query and the body.

use serde_json::Value;

use crate::api::Api;
use crate::registry::{FieldError, FieldErrors, value};
use crate::rest::body_object;
use crate::rest::call::Call;
use crate::rest::negotiate::Encoding;
use crate::rest::options;
use crate::rest::query::Query;
use crate::status::{Result, Status};

/// What becomes of what the deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The garbage collector deletes it afterwards.
    Background,
    /// It is deleted first.
    Foreground,
    /// It stays.
    Orphan,
}

/// The options of a deletion, from the query and the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Seconds that the object gets; `None` leaves it to the kind.
    pub grace_period_seconds: Option<i64>,
    /// What becomes of what it owns; `None` leaves it to the object's finalizers.
    pub propagation: Option<Propagation>,
    /// The UID that the object must have.
    pub uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub resource_version: Option<String>,
    /// Everything but the commit.
    pub dry_run: bool,
}

/// Reads the options of a deletion: from the body, or where there is none from the query.
pub fn options(api: &Api, call: &Call) -> Result<DeleteOptions> {
    let body = match call.body.is_empty() {
        true => None,
        false => {
            let encoding = Encoding::of_body(&call.headers)?;
            let schema = api.registry.schema("meta", "v1", "DeleteOptions");
            let schema = schema.unwrap_or_else(|| call.resource.schema.clone());
            let body = body_object::decode(&call.body, encoding, &schema)?.value;
            is_of_kind(&body)?;
            Some(body)
        }
    };
    parse_options(&call.query, body.as_ref())
}

/// Refuses what is of another kind: nothing is deleted by mistake. The group does not matter.
fn is_of_kind(body: &Value) -> Result<()> {
    match (body.is_object(), value::text(body, "kind")) {
        (true, "" | "DeleteOptions") => Ok(()),
        (_, kind) => Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type DeleteOptions): no kind {kind:?} is registered for version {:?}",
            value::text(body, "apiVersion")
        ))),
    }
}

/// Reads the options of a deletion, out of a `DeleteOptions` and the query.
pub fn parse_options(query: &Query, body: Option<&Value>) -> Result<DeleteOptions> {
    let empty = Value::Null;
    let body = body.unwrap_or(&empty);
    let text = |path| match value::text(body, path) {
        "" => None,
        found => Some(found.to_owned()),
    };
    let in_body = value::list(body, "dryRun").iter().filter_map(Value::as_str);
    let dry_run: Vec<&str> = in_body.chain(query.all("dryRun")).collect();
    let mut errors = FieldErrors::new();
    let grace = match value::integer(body, "gracePeriodSeconds") {
        Some(seconds) => Some(seconds),
        None => query.number("gracePeriodSeconds")?,
    };
    let policy =
        text("propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_owned());
    let orphan = match value::at(body, "orphanDependents").and_then(Value::as_bool) {
        Some(orphan) => Some(orphan),
        None if query.get("orphanDependents").is_empty() => None,
        None => Some(query.flag("orphanDependents")?),
    };
    let propagation = propagation(&policy, orphan, &mut errors);
    let dry_run = options::dry_run(&dry_run, &mut errors);
    options::settle("DeleteOptions", &errors)?;
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation,
        uid: text("preconditions.uid"),
        resource_version: text("preconditions.resourceVersion"),
        dry_run,
    })
}

fn propagation(
    policy: &str,
    orphan: Option<bool>,
    errors: &mut FieldErrors,
) -> Option<Propagation> {
    const FIELD: &str = "propagationPolicy";
    if orphan.is_some() && !policy.is_empty() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(FIELD, policy, why));
    }
    match (policy, orphan) {
        ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
        ("", None) => None,
        (other, _) => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported(FIELD, other, &known));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_is_deleted_by_what_is_no_options() {
        for good in [
            json!({}),
            json!({"kind": "DeleteOptions", "apiVersion": "apps/v1"}),
        ] {
            assert_eq!(is_of_kind(&good), Ok(()));
        }
        for bad in [
            json!({"kind": "ConfigMap", "apiVersion": "v1"}),
            json!([]),
            json!("x"),
        ] {
            assert_eq!(is_of_kind(&bad).unwrap_err().code, 400, "{bad}");
        }
    }

    #[test]
    fn options_from_body_and_query() {
        let query = Query::of(Some("gracePeriodSeconds=3&propagationPolicy=Orphan"));
        let options = parse_options(&query, None).unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        let body = json!({"preconditions": {"uid": "u"}, "propagationPolicy": "x"});
        let refused = parse_options(&Query::default(), Some(&body)).unwrap_err();
        assert_eq!(refused.code, 422);
        assert_eq!(
            refused.message,
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil""#
        );
    }
}
