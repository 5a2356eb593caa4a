//! Real containers, by a containerd that each test starts for itself. Needs root, containerd,
//! runc, docker-registry and a static busybox (`/bin/busybox`).

mod containers;
mod hostile;
mod pull;
mod streams;
mod support;
mod survival;
mod users;

/// Not a test of its own: the agents that the tests run start this program again, with this as their
/// log writer.
#[test]
fn log_writer_process() {
    support::log_writer_process();
}

/// Not a test of its own either: the shim of those agents.
#[test]
fn shim_process() {
    support::shim_process();
}
