//! What may be answered another time, or by another server: too early, too late, too busy, broken.

use std::fmt::Display;

use http::StatusCode;

use super::Status;

// === impl Status ===

impl Status {
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

    /// 500 without a reason, as upstream answers faults that it has no reason for.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
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
}
