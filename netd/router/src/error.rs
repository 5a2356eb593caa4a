//! What can go wrong with a router as a whole.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a router cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not YAML of the right form.
    #[error("{}: {reason}", path.display())]
    ParseConfig {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A value cannot be right.
    #[error("{}: {fault}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        fault: peapod_bgp::config::Fault,
    },
    /// The BGP port cannot be listened on.
    #[error("cannot listen on {address}: {source}; is another BGP daemon running there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The control socket cannot be made.
    #[error("cannot make the control socket {}: {source}", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's links or routes cannot be read.
    #[error("cannot talk to the kernel (rtnetlink): {0}; installing routes needs CAP_NET_ADMIN")]
    Kernel(#[from] io::Error),
}
