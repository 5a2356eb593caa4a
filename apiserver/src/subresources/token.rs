//! `/token` of a service account: a TokenRequest is answered with a signed token.

use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::api::Api;
use crate::auth::tokens::{self, Bound, Private};
use crate::random;
use crate::registry::{FieldError, FieldErrors, object_meta, value};
use crate::rest::call::{Call, Reply};
use crate::rest::{get, options, respond, table};
use crate::status::{Result, Status};
use crate::storage;

/// Lifetime in seconds of a token whose request names none.
const DEFAULT_SECONDS: i64 = 3600;
/// The shortest and longest lifetime in seconds.
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;

/// Answers a POST of a TokenRequest.
pub async fn create(api: &Api, call: &Call) -> Result<Reply> {
    let entry = get::entry(api, call)?;
    let account = table::decode(&call.resource, &entry.value)?;
    let mut request = super::body(api, call)?;
    let seconds = value::integer(&request, "spec.expirationSeconds").unwrap_or(DEFAULT_SECONDS);
    check(call, seconds)?;
    let attributes = Attributes {
        operation: Operation::Create,
        resource: &call.resource,
        namespace: &call.target.namespace,
        name: &call.target.name,
        subresource: "token",
        user: &call.user,
        old: None,
        dry_run: options::of(call)?.dry_run,
    };
    api.admission.validate(api, &attributes, &request).await?;
    let private = private(api, call, &account, &request)?;
    let audiences = value::list(&request, "spec.audiences").iter();
    let audiences: Vec<String> = audiences
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect();
    let now = api.now();
    let token = api
        .tokens
        .sign(private, audiences, now, seconds, random::uid())
        .map_err(Status::internal)?;
    let until = now + std::time::Duration::from_secs(seconds.unsigned_abs());
    value::set(&mut request, "spec.expirationSeconds", seconds);
    if value::list(&request, "spec.audiences").is_empty() {
        value::set(&mut request, "spec.audiences", json!([api.tokens.issuer()]));
    }
    request["metadata"] = json!({
        "name": call.target.name,
        "namespace": call.target.namespace,
        "creationTimestamp": object_meta::time(now),
    });
    request["status"] = json!({
        "token": token,
        "expirationTimestamp": object_meta::time(until),
    });
    respond::value(api, call, StatusCode::CREATED, request)
}

fn check(call: &Call, seconds: i64) -> Result<()> {
    let mut errors = FieldErrors::new();
    let field = "spec.expirationSeconds";
    if seconds < SHORTEST_SECONDS {
        let why = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(field, seconds, why));
    }
    if seconds > LONGEST_SECONDS {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(field, seconds, why));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            &call.target.name,
            &errors,
        )),
    }
}

fn private(api: &Api, call: &Call, account: &Value, request: &Value) -> Result<Private> {
    let gone = || Status::not_found(call.kind().group_resource(), &call.target.name);
    let mut private = Private {
        namespace: call.target.namespace.clone(),
        serviceaccount: tokens::bound(account).ok_or_else(gone)?,
        pod: None,
        node: None,
        secret: None,
    };
    let name = value::text(request, "spec.boundObjectRef.name");
    let asked = value::text(request, "spec.boundObjectRef.uid");
    match value::text(request, "spec.boundObjectRef.kind") {
        "" => {}
        "Pod" => {
            let pod = lookup(api, "pods", &private.namespace, name, asked)?;
            let owner = value::text(&pod, "spec.serviceAccountName");
            if owner != private.serviceaccount.name {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    private.serviceaccount.name
                )));
            }
            private.node = node_of(api, &pod);
            private.pod = tokens::bound(&pod);
        }
        "Secret" => {
            let secret = lookup(api, "secrets", &private.namespace, name, asked)?;
            private.secret = tokens::bound(&secret);
        }
        "Node" => {
            let node = lookup(api, "nodes", "", name, asked)?;
            private.node = tokens::bound(&node);
        }
        other => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {other}"
            )));
        }
    }
    Ok(private)
}

fn node_of(api: &Api, pod: &Value) -> Option<Bound> {
    let name = value::text(pod, "spec.nodeName");
    if name.is_empty() {
        return None;
    }
    tokens::bound(&lookup(api, "nodes", "", name, "").ok()?)
}

/// An object that a token is to be bound to; of a UID, if one is asked for.
fn lookup(api: &Api, plural: &str, namespace: &str, name: &str, uid: &str) -> Result<Value> {
    let resource = api
        .registry
        .find("", "v1", plural)
        .ok_or_else(Status::no_such_path)?;
    let key = storage::key(&resource.kind, namespace, name)?;
    let missing = || Status::not_found(resource.kind.group_resource(), name);
    let entry = api.store.get(&key).ok_or_else(missing)?;
    if !uid.is_empty() && uid != &*entry.meta.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(resource.kind.group_resource(), name, why));
    }
    table::decode(&resource, &entry.value)
}
