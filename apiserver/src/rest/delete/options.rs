//! The options of a deletion, from the query and the body.

use serde_json::Value;

use crate::api::Api;
use crate::registry::value;
use crate::rest::body_object;
use crate::rest::call::Call;
use crate::rest::negotiate::Encoding;
use crate::rest::query::{self, Query};
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
            Some(body_object::decode(&call.body, encoding, &schema)?.value)
        }
    };
    parse_options(&call.query, body.as_ref())
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
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation: propagation(&policy, orphan)?,
        uid: text("preconditions.uid"),
        resource_version: text("preconditions.resourceVersion"),
        dry_run: query::dry_run(in_body.chain(query.all("dryRun")))?,
    })
}

fn propagation(policy: &str, orphan: Option<bool>) -> Result<Option<Propagation>> {
    Ok(match (policy, orphan) {
        ("", None) => None,
        ("", Some(true)) => Some(Propagation::Orphan),
        ("", Some(false)) => Some(Propagation::Background),
        ("Background", None) => Some(Propagation::Background),
        ("Foreground", None) => Some(Propagation::Foreground),
        ("Orphan", None) => Some(Propagation::Orphan),
        (other, None) => {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {other:?}: supported values: \"Foreground\", \"Background\", \"Orphan\""
            )));
        }
        (_, Some(_)) => {
            return Err(Status::bad_request(
                "propagationPolicy: Invalid value: orphanDependents and deletionPropagation cannot be both set",
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_from_body_and_query() {
        let query = Query::of(Some("gracePeriodSeconds=3&propagationPolicy=Orphan"));
        let options = parse_options(&query, None).unwrap();
        assert_eq!(options.grace_period_seconds, Some(3));
        assert_eq!(options.propagation, Some(Propagation::Orphan));
        let body = json!({"preconditions": {"uid": "u"}, "propagationPolicy": "x"});
        assert!(parse_options(&Query::default(), Some(&body)).is_err());
    }
}
