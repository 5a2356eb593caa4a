//! What a failed request is told: `meta/v1 Status` objects, with kube-apiserver's reasons, codes
//! and wording, so that clients that compare them cannot tell the difference.

mod body;
mod later;
mod may;
mod object;
mod request;

use std::fmt::Display;
use std::time::Duration;

use http::StatusCode;

pub use body::success;

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

    /// When a retry may succeed, if that is known.
    pub fn retry_delay(&self) -> Option<Duration> {
        let seconds = self.details.as_ref()?.retry_after_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
