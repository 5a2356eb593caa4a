//! What a container does not notice: the agent, containerd or the log writer going away and
//! coming back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest,
};
use containerd_client::services::v1::{ExecProcessRequest, StartRequest};
use peapod_nodelet::runtime::containerd::client::{Client, SNAPSHOTTER};
use peapod_nodelet::runtime::containerd::lease::Lease;
use peapod_nodelet::runtime::containerd::{launch, options, purge};
use peapod_nodelet::runtime::{
    Container, ContainerId, ContainerState, Exit, ExitReason, Runtime, RuntimeEvent, sys,
};
use tokio::task::JoinHandle;

use crate::support::{LIMIT, Node, processes_of};

/// The end of a container, of which this agent may have been told before anybody listened.
async fn end_of(node: &Node, id: &ContainerId) -> Exit {
    let ended = async {
        loop {
            let state = node.runtime().container(id).await.unwrap().state;
            if let ContainerState::Exited(exit) = state {
                return exit;
            }
        }
    };
    tokio::time::timeout(LIMIT, ended).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_agent_takes_up_what_runs_and_learns_what_ended() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let runs = node
        .run(&node.container("web", "runs", "echo up; sleep 1000"))
        .await;
    let ends = node.run(&node.container("web", "ends", "sleep 1000")).await;
    let before = node.runtime().container(&runs).await.unwrap();
    node.runtime().signal_container(&ends, 9).await.unwrap();
    node.restart_agent().await;
    assert_eq!(
        node.runtime().container(&runs).await.unwrap(),
        before,
        "it was not touched"
    );
    assert!(node.runtime().containers().await.unwrap().contains(&before));
    assert_eq!(end_of(&node, &ends).await.code, 137);
    node.runtime().signal_container(&runs, 9).await.unwrap();
    assert_eq!(node.exit(&runs).await.code, 137);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_containerd_which_is_started_again() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let runs = node
        .run(&node.container("web", "runs", "exec sleep 1000"))
        .await;
    let ends = node
        .run(&node.container("web", "ends", "exec sleep 1000"))
        .await;
    let pid_of = |container: &Container| match container.state {
        ContainerState::Running { pid, .. } => pid,
        ref other => panic!("it must run, and is {other:?}"),
    };
    let pid = pid_of(&node.runtime().container(&runs).await.unwrap());
    let doomed = pid_of(&node.runtime().container(&ends).await.unwrap());
    let daemon = launch::running_pid(&node.containerd_dir()).unwrap();
    let sigkill = nix::sys::signal::Signal::SIGKILL;
    nix::sys::signal::kill(daemon, sigkill).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(doomed as i32), sigkill).unwrap();
    node.wait_for(|event| matches!(event, RuntimeEvent::Disconnected))
        .await;
    assert_eq!(node.exit(&ends).await.code, 137);
    node.wait_for(|event| matches!(event, RuntimeEvent::Connected))
        .await;
    assert_eq!(pid_of(&node.runtime().container(&runs).await.unwrap()), pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_log_writer_loses_no_line() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let spec = node.container(
        "web",
        "app",
        "for i in $(seq 1 300); do echo line $i; sleep 0.01; done",
    );
    let id = node.run(&spec).await;
    for _ in 0..5 {
        let writer = processes_of(&node.config.state_dir.join("containers"));
        for pid in writer {
            // It may have ended by the kill before.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        node.runtime().flush_log(&id).await.unwrap();
    }
    node.exit(&id).await;
    let log = node.log(&spec);
    let expected: String = (1..=300).map(|n| format!("line {n}\n")).collect();
    assert_eq!(log, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_a_killed_shim_and_another_takes_them_over() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let script = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.01; done";
    let spec = node.container("web", "runs", script);
    let runs = node.run(&spec).await;
    let ends = node
        .run(&node.container("web", "ends", "exec sleep 1000"))
        .await;
    let before = node.runtime().container(&runs).await.unwrap();
    for _ in 0..5 {
        for pid in [
            node.shims(),
            processes_of(&node.config.state_dir.join("containers")),
        ]
        .concat()
        {
            // It may have ended by the kill before.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        let echo = ["echo".to_owned(), "here".to_owned()];
        let output = node.runtime().exec_sync(&runs, &echo, LIMIT).await;
        assert_eq!(output.unwrap().stdout, b"here\n");
        node.runtime().flush_log(&runs).await.unwrap();
    }
    assert_eq!(node.shims().len(), 1, "one shim");
    assert_eq!(node.runtime().container(&runs).await.unwrap(), before);
    // Not its child: the code is known only where the kernel tells it.
    node.runtime().signal_container(&ends, 9).await.unwrap();
    let exit = node.exit(&ends).await;
    let known = (137, ExitReason::Exited);
    let unknown = (255, ExitReason::Unknown);
    assert!(
        [known, unknown].contains(&(exit.code, exit.reason)),
        "{exit:?}"
    );
    node.runtime().signal_container(&runs, 9).await.unwrap();
    node.exit(&runs).await;
    let log = node.log(&spec);
    let whole: Vec<String> = (1..=log.lines().count())
        .map(|n| format!("line {n}"))
        .collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_neither_agent_nor_shim_was_there_is_told_once() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let id = node
        .run(&node.container("web", "app", "exec sleep 1000"))
        .await;
    let ContainerState::Running { pid, .. } = node.runtime().container(&id).await.unwrap().state
    else {
        panic!("it runs")
    };
    node.stop_agent();
    let sigkill = nix::sys::signal::Signal::SIGKILL;
    for shim in node.shims() {
        nix::sys::signal::kill(shim, sigkill).unwrap();
    }
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), sigkill).unwrap();
    node.restart_agent().await;
    let exit = end_of(&node, &id).await;
    assert!([137, 255].contains(&exit.code), "{exit:?}");
    node.runtime().remove_sandbox("web").await.unwrap();
}

/// A container that is killed for memory once it is told to.
const GLUTTON: &str = "trap 'exec tail /dev/zero' USR1; echo up; while true; do sleep 0.1; done";

async fn glutton(node: &Node) -> (ContainerId, nix::unistd::Pid) {
    let mut spec = node.container("web", "glutton", GLUTTON);
    spec.resources.memory_limit_bytes = Some(32 << 20);
    let id = node.run(&spec).await;
    while !node.log(&spec).contains("up") {
        node.runtime().flush_log(&id).await.unwrap();
    }
    let ContainerState::Running { pid, .. } = node.runtime().container(&id).await.unwrap().state
    else {
        panic!("it runs")
    };
    (id, nix::unistd::Pid::from_raw(pid as i32))
}

/// Tells it, and waits until it has ended.
async fn devour(pid: nix::unistd::Pid) {
    let process = sys::open_process(pid.as_raw() as u32).unwrap().unwrap();
    let process = sys::wake_on_input(process).unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    let ended = tokio::time::timeout(LIMIT, process.readable()).await;
    let _ended = ended.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_for_memory_while_the_agent_is_away_is_told_as_one() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let (id, pid) = glutton(&node).await;
    node.stop_agent();
    devour(pid).await;
    node.begin_agent().await;
    // The first that is told of it, settled or not.
    let exit = end_of(&node, &id).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OomKilled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_when_the_shim_is_away_too() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let (id, pid) = glutton(&node).await;
    node.stop_agent();
    for shim in node.shims() {
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    devour(pid).await;
    node.restart_agent().await;
    let exit = end_of(&node, &id).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OomKilled));
}

/// A number that no other command has.
const LEFT_COMMAND: &str = "100047";

/// A command that containerd's shim has started, waiting for somebody at its streams.
async fn begin_command(node: &Node, id: &ContainerId) -> (PathBuf, JoinHandle<bool>) {
    let exec_id = "exec-of-before".to_owned();
    let dir = node
        .config
        .state_dir
        .join("containers")
        .join(&id.0)
        .join(&exec_id);
    std::fs::create_dir(&dir).unwrap();
    for name in ["stdout", "stderr"] {
        nix::unistd::mkfifo(&dir.join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let process = serde_json::json!({"args": ["sleep", LEFT_COMMAND], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}});
    let client = Client::new(&node.config.address, &node.config.namespace).unwrap();
    let fifo = |name: &str| dir.join(name).display().to_string();
    let request = ExecProcessRequest {
        container_id: id.0.clone(),
        exec_id: exec_id.clone(),
        stdout: fifo("stdout"),
        stderr: fifo("stderr"),
        spec: Some(options::process(&serde_json::from_value(process).unwrap()).unwrap()),
        ..ExecProcessRequest::default()
    };
    client.tasks().exec(request).await.unwrap();
    let container_id = id.0.clone();
    let started = tokio::spawn(async move {
        let request = StartRequest {
            container_id,
            exec_id,
        };
        client.tasks().start(request).await.is_ok()
    });
    let runs = async {
        while processes_of(Path::new(LEFT_COMMAND)).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, runs).await.unwrap();
    (dir, started)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_its_agent_left_to_containerds_shim_is_ended_by_the_next() {
    let mut node = Node::start().await;
    node.config.oci_runtime = "runc".into();
    node.use_shim(false).await;
    node.pod("web").await;
    let id = node
        .run(&node.container("web", "app", "exec sleep 1000"))
        .await;
    node.stop_agent();
    let (dir, started) = begin_command(&node, &id).await;
    node.restart_agent().await;
    // Else the shim gives up on it, after 30 s in which it answers nobody.
    assert!(started.await.unwrap(), "somebody was at its streams");
    let gone = async {
        while dir.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    let echo = ["echo".to_owned(), "here".to_owned()];
    let output = node.runtime().exec_sync(&id, &echo, LIMIT).await;
    assert_eq!(output.unwrap().stdout, b"here\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_leaves_nothing_and_can_be_repeated() {
    let mut node = Node::start().await;
    node.pod("web").await;
    node.run(&node.container("web", "app", "trap '' TERM; while true; do sleep 1; done"))
        .await;
    let name = node.config.namespace.clone();
    node.stop_agent();
    purge::purge(&node.config).await.unwrap();
    purge::purge(&node.config).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let state_dir = node.config.state_dir.display().to_string();
    assert!(!mounts.contains(&state_dir), "{mounts}");
    assert!(!node.config.state_dir.exists());
    assert_eq!(processes_of(&node.config.state_dir.join("containers")), []);
    assert_eq!(node.shims(), []);
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        assert!(!hierarchy.unwrap().path().join(&name).exists());
    }
}

async fn prepare(client: &Client, key: &str, parent: &str, labels: HashMap<String, String>) {
    let request = PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        key: key.to_owned(),
        parent: parent.to_owned(),
        labels,
    };
    let prepared = client.snapshots().prepare(request).await;
    prepared.unwrap();
}

async fn commit(client: &Client, name: &str, parent: &str) {
    prepare(client, "making", parent, HashMap::new()).await;
    let request = CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.to_owned(),
        name: name.to_owned(),
        key: "making".to_owned(),
        ..CommitSnapshotRequest::default()
    };
    let committed = client.snapshots().commit(request).await;
    committed.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_removes_a_layer_whose_child_was_collected() {
    let mut node = Node::start().await;
    let client = Client::new(&node.config.address, &node.config.namespace).unwrap();
    let lease = Lease::take(&client).await.unwrap();
    commit(lease.client(), "base", "").await;
    commit(lease.client(), "collected", "base").await;
    let root = HashMap::from([("containerd.io/gc.root".to_owned(), "now".to_owned())]);
    prepare(lease.client(), "of-a-container", "base", root).await;
    lease.release_and_collect().await.unwrap();
    node.stop_agent();
    purge::purge(&node.config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_half_made_is_swept_up() {
    let mut node = Node::start().await;
    node.pod("web").await;
    node.run(&node.container("web", "whole", "exec sleep 1000"))
        .await;
    let half = node
        .run(&node.container("web", "half", "exec sleep 1000"))
        .await;
    // As if the agent had crashed before it knew of the container.
    std::fs::remove_file(
        node.config
            .state_dir
            .join("containers")
            .join(&half.0)
            .join("record.json"),
    )
    .unwrap();
    node.restart_agent().await;
    let client = Client::new(&node.config.address, &node.config.namespace).unwrap();
    let gone = async {
        loop {
            let request = MountsRequest {
                snapshotter: "overlayfs".to_owned(),
                key: half.0.clone(),
            };
            if client.snapshots().mounts(request).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    let left = node.runtime().containers().await.unwrap();
    assert!(matches!(
        left.as_slice(),
        [Container {
            state: ContainerState::Running { .. },
            ..
        }]
    ));
}
