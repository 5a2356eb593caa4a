//! What goes over the socket. Pure.

use std::net::IpAddr;

use peapod_api::attach::{AttachError, AttachReply, AttachRequest, DetachRequest, PodRef};
use serde::{Deserialize, Serialize};

/// Version of these messages. An agent answers its own version only: the two ends are of one
/// release, but for the moment of an upgrade.
pub const VERSION: u32 = 1;
/// Longest message, in bytes with its newline: ten thousand pods, or a request to keep as many.
pub(super) const MESSAGE_MAX: u64 = 4 * 1024 * 1024;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Connects a pod.
    Attach(AttachRequest),
    /// Disconnects a pod.
    Detach(DetachRequest),
    /// Which of the node agent's pods are attached.
    Attached,
    /// Answered once pods can be attached.
    Ready,
    /// Whether pods can be attached, answered at once.
    Status,
    /// What can be measured.
    Metrics,
    /// Whether an attachment is in the kernel as it was made.
    Check(CheckRequest),
    /// Detaches what is not to be kept.
    Collect(CollectRequest),
}

/// An attachment to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRequest {
    /// As it was asked for.
    pub attach: AttachRequest,
    /// The addresses that it was given.
    pub ips: Vec<IpAddr>,
}

/// Attachments to keep, of all that have something in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectRequest {
    /// How the UIDs begin that this is about.
    pub prefix: String,
    /// The UIDs to keep.
    pub keep: Vec<String>,
}

/// An answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The pod is connected.
    Attached(AttachReply),
    /// It is so.
    Done,
    /// Pods.
    Pods(Vec<PodRef>),
    /// Metrics, in OpenMetrics' text format.
    Metrics(String),
    /// It cannot be.
    Failed(AttachError),
}

#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    message: T,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A message as a line.
pub(super) fn encode<T: Serialize>(message: T) -> Result<Vec<u8>, String> {
    let envelope = Envelope {
        version: VERSION,
        message,
    };
    let mut line = serde_json::to_vec(&envelope).map_err(|error| error.to_string())?;
    line.push(b'\n');
    Ok(line)
}

/// Reads a line; the reason why it is no message otherwise.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Result<T, String> {
    let malformed = |error: serde_json::Error| format!("a malformed message: {error}");
    let versioned: Versioned = serde_json::from_slice(line).map_err(malformed)?;
    if versioned.version != VERSION {
        return Err(format!(
            "a message of version {}, where this end speaks version {VERSION}; run the same \
             release of peapod at both ends",
            versioned.version
        ));
    }
    let envelope: Envelope<T> = serde_json::from_slice(line).map_err(malformed)?;
    Ok(envelope.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_show_their_version() {
        let pod = PodRef {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
        };
        let call = Call::Detach(DetachRequest { pod });
        let line = encode(&call).unwrap();
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            "{\"version\":1,\"message\":{\"Detach\":{\"pod\":{\"namespace\":\"default\",\
             \"name\":\"web\",\"uid\":\"u\"}}}}\n"
        );
        assert_eq!(decode::<Call>(&line), Ok(call));
        assert_eq!(
            decode::<Call>(&encode(Call::Ready).unwrap()),
            Ok(Call::Ready)
        );
    }

    #[test]
    fn other_versions_and_garbage_are_refused_with_the_reason() {
        let later = br#"{"version":2,"message":{"Fly":{}}}"#;
        let error = decode::<Call>(later).unwrap_err();
        assert!(
            error.contains("version 2") && error.contains("same release"),
            "{error}"
        );
        for garbage in ["", "GET / HTTP/1.1", "{\"version\":1}", "[1]"] {
            let error = decode::<Call>(garbage.as_bytes()).unwrap_err();
            assert!(error.starts_with("a malformed message"), "{error}");
        }
    }
}
