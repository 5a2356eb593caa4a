//! What can go wrong in talking to the API.

use http::StatusCode;
use thiserror::Error;

/// A request failed. The scheduler retries by itself; this is for its log.
#[derive(Debug, Error)]
pub enum Error {
    /// The API server could not be reached.
    #[error("cannot {what}: {source}; is the API server running?")]
    Unreachable {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: Box<kube::Error>,
    },
    /// The API server refused.
    #[error("cannot {what}: the API server answered {status}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// The answer's status.
        status: StatusCode,
        /// The answer's message.
        message: String,
    },
    /// There was no answer in time.
    #[error("cannot {what}: no answer within {seconds} s; is the API server overloaded?")]
    TimedOut {
        /// What was tried.
        what: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// One of the scheduler's own tasks ended before it was told to.
    #[error("the scheduler's {0} ended unexpectedly; this is a defect, please report it")]
    TaskEnded(&'static str),
}
