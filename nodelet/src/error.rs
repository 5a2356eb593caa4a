//! Why a node agent cannot run.

/// Why a node agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("cannot run a node: {0}")]
    Config(String),
    /// A directory of the node cannot be used.
    #[error("cannot use {path}: {source}; choose another data directory, or run as root")]
    Directory {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kubelet API cannot be served.
    #[error("cannot serve the kubelet API: {0}")]
    Server(String),
    /// The client that probes use cannot be made.
    #[error("cannot make the client for probes: {0}")]
    Prober(#[source] reqwest::Error),
}
