//! What a failed request is told: `meta/v1 Status` objects, with kube-apiserver's reasons, codes
//! and wording, so that clients that compare them cannot tell the difference.

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::auth::action::Action;
use crate::auth::user::User;
use crate::registry::field_error::FieldErrors;
use crate::registry::value;

/// A refusal: HTTP code, machine-readable reason, and the sentence for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code of the response.
    pub code: StatusCode,
    /// `reason`, as `NotFound`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// `details`, when the reason has some; boxed to keep results small.
    pub details: Option<Box<Details>>,
}

/// `details` of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// Name of the object.
    pub name: String,
    /// Group of the object.
    pub group: String,
    /// The resource (or, for `Invalid`, the kind).
    pub kind: String,
    /// UID of the object.
    pub uid: String,
    /// The faults, one by one: (reason, message, field).
    pub causes: Vec<(String, String, String)>,
    /// Seconds after which a retry may succeed; becomes `Retry-After` too.
    pub retry_after_seconds: u32,
    /// `metadata.continue`: where a list that cannot be continued consistently can go on.
    pub continue_token: String,
}

/// Results of the request path.
pub type Result<T, E = Status> = std::result::Result<T, E>;

/// Which resource an error speaks of: `pods`, or `deployments.apps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// The group; empty for core.
    pub group: &'a str,
    /// The plural name.
    pub resource: &'a str,
}

impl Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

// === impl Status ===

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(mut self, resource: GroupResource<'_>, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.resource.to_owned(),
            ..Details::default()
        }));
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    fn caused_by(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = (reason.to_owned(), message.to_owned(), field.to_owned());
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404 for an object.
    pub fn not_found(resource: GroupResource<'_>, name: &str) -> Self {
        let message = format!("{resource} {name:?} not found");
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(resource, name)
    }

    /// 404 for a path that nothing serves.
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource";
        let mut status = Self::new(StatusCode::NOT_FOUND, "NotFound", message);
        status.details = Some(Box::default());
        status
    }

    /// 409 for a create of what exists.
    pub fn already_exists(resource: GroupResource<'_>, name: &str) -> Self {
        let message = format!("{resource} {name:?} already exists");
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).about(resource, name)
    }

    /// 409 for a write that lost a race or a precondition.
    pub fn conflict(resource: GroupResource<'_>, name: &str, why: impl Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(resource, name)
    }

    /// 409 for a write against an older resourceVersion.
    pub fn modified(resource: GroupResource<'_>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 409 for a server-side apply that would take fields from others: (message, field) each.
    pub fn apply_conflict(message: &str, causes: Vec<(String, String)>) -> Self {
        let mut status = Self::new(StatusCode::CONFLICT, "Conflict", message);
        for (cause, field) in causes {
            status = status.caused_by("FieldManagerConflict", &cause, &field);
        }
        status
    }

    /// 422 for an object that its kind's rules refuse.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &FieldErrors) -> Self {
        let resource = GroupResource {
            group,
            resource: kind,
        };
        let message = format!("{resource} {name:?} is invalid: {errors}");
        let mut status =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).about(resource, name);
        for error in errors.iter() {
            status = status.caused_by(error.reason.code(), &error.body(), &error.field);
        }
        status
    }

    /// 403 for a request that may not be.
    pub fn forbidden(resource: GroupResource<'_>, name: &str, why: impl Display) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(resource, name)
    }

    /// 403 on a create in a namespace that is going away.
    pub fn namespace_terminating(resource: GroupResource<'_>, name: &str, namespace: &str) -> Self {
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        let cause = format!("namespace {namespace} is being terminated");
        Self::forbidden(resource, name, why).caused_by(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        )
    }

    /// 403 for what its user may not do; `why` may be empty.
    pub fn not_allowed(user: &User, action: &Action<'_>, why: &str) -> Self {
        let mut sentence = action.refusal(user);
        if !why.is_empty() {
            sentence = format!("{sentence}: {why}");
        }
        match action {
            Action::Resource(access) => {
                let resource = GroupResource {
                    group: access.group,
                    resource: access.resource,
                };
                Self::forbidden(resource, access.name, sentence)
            }
            Action::Path { .. } => {
                let message = format!("forbidden: {sentence}");
                let mut status = Self::new(StatusCode::FORBIDDEN, "Forbidden", message);
                status.details = Some(Box::default());
                status
            }
        }
    }

    /// What a webhook refuses: with its code and reason, where it gives some.
    pub fn denied(code: u16, reason: &str, message: String) -> Self {
        let code = StatusCode::from_u16(code)
            .ok()
            .filter(|code| code.as_u16() >= 400);
        Self::new(
            code.unwrap_or(StatusCode::BAD_REQUEST),
            known_reason(reason),
            message,
        )
    }

    /// What a policy refuses: `forbidden` with the policy's reason and its code.
    pub fn refused_by_policy(mut forbidden: Self, reason: &str, cause: &str) -> Self {
        forbidden.code = match reason {
            "Unauthorized" => StatusCode::UNAUTHORIZED,
            "Forbidden" => StatusCode::FORBIDDEN,
            "RequestEntityTooLarge" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        forbidden.reason = known_reason(reason);
        forbidden.caused_by("", cause, "")
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 500 without a reason, as upstream answers faults that it has no reason for.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// 405
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        let mut status = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        status.details = Some(Box::default());
        status
    }

    /// 406
    pub fn not_acceptable(accepted: &str) -> Self {
        let message = format!("only the following media types are accepted: {accepted}");
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 415, naming what would have been understood.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// 410: the asked revision, or the continue token, is older than the history.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 410 with a token that continues the list at a newer revision.
    pub fn inconsistent_continue(token: &str) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        let mut status = Self::expired(message);
        status.details.get_or_insert_default().continue_token = token.to_owned();
        status
    }

    /// 413 for a patch of too many operations.
    pub fn too_many_operations(message: impl Into<String>) -> Self {
        let code = StatusCode::PAYLOAD_TOO_LARGE;
        Self::new(code, "RequestEntityTooLarge", message)
    }

    /// 422 for a patch that does not fit the object.
    pub fn unprocessable(why: impl Display) -> Self {
        let message =
            format!("the server rejected our request due to an error in our request: {why}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// 504: the asked revision has not been reached here.
    pub fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
            .caused_by("ResourceVersionTooLarge", "Too large resource version", "")
            .retry_after(1)
    }

    /// 504: the request took longer than it may.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    /// 429, with the time to wait.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).retry_after(seconds)
    }

    /// 429 for an eviction that a disruption budget refuses.
    pub fn disruption_budget(message: &str, cause: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).caused_by(
            "DisruptionBudget",
            cause,
            "",
        )
    }

    /// 413
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// 413 for what the store does not take at once, in its words.
    pub fn too_large_for_store(why: &str) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            format!("Request entity too large: {why}"),
        )
    }

    /// 500: our fault.
    pub fn internal(why: impl Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message).caused_by(
            "",
            &why.to_string(),
            "",
        )
    }

    /// 503: it may work later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            message,
        )
    }

    /// 507: it cannot be stored. Not 503, which clients take for a matter of moments and try again
    /// without a word.
    pub fn insufficient_storage(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "InsufficientStorage",
            message,
        )
    }

    /// 500 for a name that generateName could not make unique.
    pub fn name_exhausted(resource: GroupResource<'_>, name: &str) -> Self {
        let mut status = Self::already_exists(resource, name);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        status
    }

    /// When a retry may succeed, if that is known.
    pub fn retry_delay(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// The object that is sent.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if self.reason.is_empty() {
            value::remove(&mut status, "reason");
        }
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                status["metadata"]["continue"] = details.continue_token.as_str().into();
            }
            status["details"] = details.to_value();
        }
        status
    }
}

/// A reason of the API by its name; empty for what is none.
fn known_reason(reason: &str) -> &'static str {
    let known = [
        "AlreadyExists",
        "BadRequest",
        "Conflict",
        "Expired",
        "Forbidden",
        "Gone",
        "InternalError",
        "Invalid",
        "MethodNotAllowed",
        "NotAcceptable",
        "NotFound",
        "RequestEntityTooLarge",
        "ServerTimeout",
        "ServiceUnavailable",
        "Timeout",
        "TooManyRequests",
        "Unauthorized",
        "UnsupportedMediaType",
    ];
    known.into_iter().find(|one| *one == reason).unwrap_or("")
}

// === impl Details ===

impl Details {
    fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (key, value) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            put(&mut out, key, value);
        }
        if !self.causes.is_empty() {
            out.insert("causes".into(), self.causes.iter().map(cause).collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(out)
    }
}

fn cause((reason, message, field): &(String, String, String)) -> Value {
    let mut out = Map::new();
    put(&mut out, "reason", reason);
    put(&mut out, "message", message);
    put(&mut out, "field", field);
    Value::Object(out)
}

fn put(out: &mut Map<String, Value>, key: &str, value: &str) {
    if !value.is_empty() {
        out.insert(key.to_owned(), value.into());
    }
}

/// The `Success` status that a deletion without a body to show is answered with.
pub fn success(resource: GroupResource<'_>, name: &str, uid: &str) -> Value {
    let details = Details {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.resource.to_owned(),
        uid: uid.to_owned(),
        ..Details::default()
    };
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details.to_value(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: GroupResource<'static> = GroupResource {
        group: "",
        resource: "pods",
    };
    const DEPLOYMENTS: GroupResource<'static> = GroupResource {
        group: "apps",
        resource: "deployments",
    };

    #[test]
    fn worded_as_upstream() {
        for (status, expected) in [
            (Status::not_found(PODS, "a"), r#"pods "a" not found"#),
            (
                Status::already_exists(DEPLOYMENTS, "a"),
                r#"deployments.apps "a" already exists"#,
            ),
            (
                Status::modified(PODS, "a"),
                r#"Operation cannot be fulfilled on pods "a": the object has been modified; please apply your changes to the latest version and try again"#,
            ),
            (
                Status::forbidden(PODS, "a", "no"),
                r#"pods "a" is forbidden: no"#,
            ),
        ] {
            assert_eq!(status.to_string(), expected);
        }
    }

    #[test]
    fn details_hold_only_what_is_known() {
        let status = Status::not_found(DEPLOYMENTS, "a").to_value();
        assert_eq!(
            status["details"],
            json!({"name": "a", "group": "apps", "kind": "deployments"})
        );
        assert_eq!(status["code"], 404);
        let busy = Status::too_many_requests("wait", 2);
        assert_eq!(busy.to_value()["details"], json!({"retryAfterSeconds": 2}));
        assert_eq!(busy.retry_delay(), Some(Duration::from_secs(2)));
    }
}
