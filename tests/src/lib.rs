//! Whole-system tests: real containerd, real kernel, real kubectl.
//!
//! This library is the builder that keeps each test a few lines: a [`Cluster`] is `peapod up` in
//! a data directory of its own, torn down on drop; a [`Machine`] is what a cluster must leave as
//! it was. One cluster runs at a time, since it owns the machine's network rules: the builder
//! holds a lock.

pub mod cluster;
pub mod command;
pub mod csi;
pub mod etcd;
pub mod history;
pub mod machine;
pub mod place;
pub mod process;
pub mod rack;
pub mod reboot;
pub mod rounds;
pub mod server;
pub mod wait;

pub use cluster::Cluster;
pub use command::Run;
pub use etcd::Etcd;
pub use machine::Machine;
pub use place::Place;
pub use rack::Rack;
pub use server::Server;
