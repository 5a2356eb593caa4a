//! Runs the pods of one node.
//!
//! The crate owns everything between a Pod bound to this node and its processes: the pod's
//! lifecycle ([`core`], a pure machine), the shell that carries it out ([`pods`]), what a
//! container is made from ([`make`], pure) and with ([`volumes`], [`objects`]), who runs it
//! ([`runtime`], [`images`], [`logs`]), how it is asked ([`probes`]), the Node object ([`node`])
//! and the kubelet's HTTPS API ([`server`]). [`run`] wires them.
//!
//! It must not know how the network connects a pod (it asks [`PodNetwork`], which runs [`cni`]
//! plugins where the network is somebody else's), nor who wrote a Pod
//! or why: it meets the other parts only over the API.
//!
//! [`PodNetwork`]: peapod_api::attach::PodNetwork

mod cleanup;
pub mod cni;
pub mod config;
pub mod core;
pub mod cpus;
pub mod csi;
pub mod devices;
mod dir_watch;
pub mod error;
pub mod eviction;
pub mod images;
pub mod kubelet_config;
pub mod logs;
pub mod make;
pub mod node;
pub mod objects;
pub mod pods;
pub mod probes;
pub mod runtime;
pub mod server;
pub mod shutdown;
pub mod static_pods;
mod tasks;
pub mod volumes;
mod whole_file;

pub use cleanup::cleanup;
pub use config::{Config, ServerConfig, Serving};
pub use csi::unmount::release as release_volumes;
pub use error::Error;
pub use kubelet_config::KubeletConfiguration;
pub use peapod_shim::shim_main;
pub use tasks::run;
