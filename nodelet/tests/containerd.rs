//! Real containers, by a containerd that each test starts for itself. Needs root, containerd,
//! runc and a static busybox.

mod support;

use peapod_nodelet::runtime::{ContainerState, ExitReason, Runtime};
use support::Node;

#[test]
fn log_writer_process() {
    support::log_writer_process();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_runs_and_its_end_and_log_are_known() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let spec = node.container("web", "app", "echo out; echo err >&2; exit 7");
    let (exit, log) = node.run_to_end(&spec).await;
    assert_eq!((exit.code, exit.reason), (7, ExitReason::Exited));
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
    let listed = node.runtime.containers().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, ContainerState::Exited(exit));
    node.runtime.remove_sandbox("web").await.unwrap();
    assert!(node.runtime.containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_takes_up_what_runs_and_learns_what_ended() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let runs = node
        .run(&node.container("web", "runs", "echo up; sleep 1000"))
        .await;
    let ends = node
        .run(&node.container("web", "ends", "cat /tmp/end; exit 3"))
        .await;
    let before = node.runtime.container(&runs).await.unwrap();
    node.runtime.signal_container(&ends, 9).await.unwrap();
    node.restart_agent().await;
    assert_eq!(
        node.runtime.container(&runs).await.unwrap(),
        before,
        "it was not touched"
    );
    let ended = node.runtime.container(&ends).await.unwrap();
    assert!(
        matches!(ended.state, ContainerState::Exited(_)),
        "{ended:?}"
    );
    node.runtime.signal_container(&runs, 9).await.unwrap();
    assert_eq!(node.exit(&runs).await.code, 137);
}
