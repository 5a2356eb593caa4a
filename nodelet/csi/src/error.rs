//! What a call failed with.

use tonic::Code;

/// A call that a driver did not answer, or answered with a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{driver}: {call}{}: rpc error: code = {code:?} desc = {message}", of(.volume))]
pub struct Error {
    /// Name of the driver.
    pub driver: String,
    /// Name of the call, as in the specification.
    pub call: &'static str,
    /// The volume or snapshot that it was about; empty if it was about none.
    pub volume: String,
    /// The gRPC status.
    pub code: Code,
    /// The driver's words, or how it could not be reached.
    pub message: String,
}

fn of(volume: &str) -> String {
    match volume {
        "" => String::new(),
        volume => format!(" of volume {volume}"),
    }
}

// === impl Error ===

impl Error {
    /// Whether the driver has certainly not done, and will not do, what it was asked: after other
    /// errors the call may still be under way, and what it makes must be undone or asked again.
    pub fn is_final(&self) -> bool {
        !matches!(
            self.code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Unknown
        )
    }

    /// What upstream puts into events: the status without who was asked what.
    pub fn status(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.code, self.message)
    }
}
