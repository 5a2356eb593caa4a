//! The roles of a cluster: what runs where. `peapod up` is all of them in one process, or a
//! process for each node; on machines of their own they are `peapod server`, `node`, `netd`,
//! `scheduler` and `controllers`. All are made of the same parts.

pub mod apart;
pub mod containerd;
pub mod control_plane;
pub mod csr;
mod discovery;
pub mod identity;
pub mod join;
pub mod link;
pub mod node;
pub mod run_netd;
pub mod run_node;
mod sealed;
pub mod server;
mod server_join;
mod servers;
pub mod tasks;
pub mod token;
