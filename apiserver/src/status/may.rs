//! What may not be: by authorization, by admission.

use std::fmt::Display;

use http::StatusCode;

use super::{GroupResource, Status};
use crate::auth::action::Action;
use crate::auth::user::User;

// === impl Status ===

impl Status {
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
