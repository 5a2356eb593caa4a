//! The thin thread: up, apply, a real container, a request through its virtual IP, down.

use anyhow::Result;
use peapod_tests::{Cluster, Machine, wait};

const HELLO: &str = include_str!("../../examples/hello/hello.yaml");

#[test]
fn from_up_to_a_served_request_and_back() -> Result<()> {
    // Looked at only when it is this test's turn: other tests change the machine too.
    let cluster = Cluster::prepare()?;
    let before = Machine::now()?;
    cluster.start()?;
    cluster.load_demo_images()?;
    cluster.apply(HELLO)?;
    cluster
        .kubectl("rollout status deployment/hello --timeout=60s")?
        .ok()?;
    wait::until("a greeting", || {
        Ok(cluster
            .request("hello", "/")?
            .contains("hello v1 from hello-"))
    })?;
    cluster.purge()?;
    Machine::now()?.must_equal(&before)
}

#[test]
fn a_second_up_says_so() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    assert!(cluster.start()?.contains("already runs here"));
    Ok(())
}
