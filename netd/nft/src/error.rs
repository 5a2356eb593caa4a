//! What can fail between us and the kernel's nf_tables.

use std::io;

/// Why the kernel could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error(
        "cannot open a netfilter netlink socket: {0}; is nf_tables in this kernel, and is this root?"
    )]
    Open(#[source] io::Error),
    /// The request did not reach the kernel.
    #[error("cannot send {what} to nf_tables: {source}")]
    Send {
        /// The request.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The answer did not arrive.
    #[error("no answer from nf_tables to {what}: {source}")]
    Receive {
        /// The request.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The kernel refused an operation; nothing of its transaction was applied.
    #[error("nf_tables refused to {what}: {source}{}", hint(.message))]
    Refused {
        /// The operation that failed.
        what: String,
        /// The kernel's own words, where it has some.
        message: Option<String>,
        /// The kernel's error number.
        source: io::Error,
    },
    /// A dump kept being interrupted by changes.
    #[error("the ruleset changed {0} times while it was being read: {1}")]
    Restless(u32, String),
}

impl Error {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the object that was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(libc::ENOENT)
    }
}

fn hint(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |m| format!(" ({m})"))
}
