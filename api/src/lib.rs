//! What Peapod's parts say to each other.
//!
//! This crate owns the words: Kubernetes' kinds (`k8s-openapi`, re-exported), the kinds of
//! Peapod's own group [`net`], and the small languages every part must read alike: names,
//! quantities, quotas, selectors, conditions, events and field paths. It owns the one seam that is not the
//! API, [`attach`], between the node agent and the network agent.
//!
//! It must not know IO, time, threads or any other crate of the workspace.

pub mod attach;
pub mod bootstrap;
pub mod cni;
pub mod conditions;
pub mod events;
pub mod field_path;
pub mod labels;
pub mod names;
pub mod net;
pub mod quantity;
pub mod quota;
pub mod selector;
pub mod storage;
pub mod sysctl;

pub use k8s_openapi;
