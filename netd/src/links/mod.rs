//! Links, addresses and routes of this node, by rtnetlink.
//!
//! A pod is connected by a veth pair: one end in the pod's network namespace, the other on the
//! node, with a host route to each of the pod's addresses. What is attached is what the kernel
//! shows: the alias of a pod's link names the pod, so that nothing else is kept.

pub mod alias;
pub mod netns;
pub mod node;
pub mod pod;
pub mod rtnl;
pub mod sysctl;
pub mod vxlan;
pub mod watch;
pub mod ways;

use std::io;
use std::path::PathBuf;

/// Protocol number of every route to what this node has itself: how the agent tells its own from
/// others'.
pub const ROUTE_PROTOCOL: u8 = 96;
/// Protocol number of its routes and rules to other nodes and their pods.
pub const WAY_PROTOCOL: u8 = 97;

/// Why a link, address, route or kernel setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No rtnetlink socket.
    #[error("cannot open an rtnetlink socket: {0}; is this root?")]
    Open(#[source] io::Error),
    /// The kernel refused an operation.
    #[error("cannot {what}: {source}")]
    Refused {
        /// The operation.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// An answer that cannot be read.
    #[error("cannot {what}: the kernel's answer is malformed: {detail}")]
    Malformed {
        /// The operation.
        what: String,
        /// Why.
        detail: String,
    },
    /// A network namespace that cannot be entered.
    #[error("cannot enter the network namespace {path}: {source}; does the pod still run?")]
    Namespace {
        /// Where it should be.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A kernel setting that cannot be read or written.
    #[error("cannot set {path}: {source}; is /proc/sys writable here?")]
    Sysctl {
        /// The setting's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A link that should be there.
    #[error("there is no link {0}; was it deleted meanwhile?")]
    NoLink(String),
}

impl Error {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. }
            | Error::Namespace { source, .. }
            | Error::Sysctl { source, .. }
            | Error::Open(source) => source.raw_os_error(),
            _ => None,
        }
    }
}
