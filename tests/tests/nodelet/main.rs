//! The node agent against a real API server: [`hollow`] with containers that pretend, [`real`]
//! with a containerd of its own (needs root, containerd, runc and a static `/bin/busybox`).

mod hollow;
mod real;
mod world;

/// Not a test of its own: the agents that the tests run start this program again, with this as
/// their log writer.
#[test]
fn log_writer_process() {
    real::log_writer_process();
}
