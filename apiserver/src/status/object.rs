//! What is wrong with an object: it is not there, or is already, or is not as it must be.

use std::fmt::Display;

use http::StatusCode;

use super::{GroupResource, Status};
use crate::registry::field_error::FieldErrors;

// === impl Status ===

impl Status {
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

    /// 500 for a name that generateName could not make unique.
    pub fn name_exhausted(resource: GroupResource<'_>, name: &str) -> Self {
        let mut status = Self::already_exists(resource, name);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        status
    }
}
