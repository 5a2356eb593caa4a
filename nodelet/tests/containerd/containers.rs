//! What a container is given, and how its end is told.

use peapod_nodelet::runtime::{
    ContainerState, Error, ExitReason, Mount, NamespaceMode, Resources, Runtime, RuntimeEvent,
    Seccomp, Security, User,
};

use crate::support::{LIMIT, Node, sandbox};

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
    let listed = node.runtime().containers().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, ContainerState::Exited(exit));
    node.runtime().remove_sandbox("web").await.unwrap();
    assert!(node.runtime().containers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_what_its_spec_says() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let hosts = node.dir.path().join("hosts");
    std::fs::write(&hosts, "10.0.0.1 db\n").unwrap();
    let script = "id -u; id -g; id -G; hostname; echo $GREETING; echo $0 $1; cat /etc/hosts; \
                  ls -d /made/here; touch /file 2>&1 || echo read-only; touch /dev/shm/x && echo shm; test $(ulimit -n) -gt 1024 && echo files";
    let mut spec = node.container("web", "app", script);
    spec.args = vec!["zero".into(), "one".into()];
    spec.env = vec![("GREETING".into(), "hello".into())];
    spec.user = User {
        uid: Some(1000),
        gid: Some(2000),
        additional_gids: vec![3000],
        strict_groups: false,
    };
    spec.working_dir = Some("/tmp".into());
    spec.security = Security {
        read_only_rootfs: true,
        no_new_privileges: true,
        drop_capabilities: vec!["ALL".into()],
        seccomp: Seccomp::RuntimeDefault,
        ..Security::default()
    };
    let made = node.dir.path().join("made");
    std::fs::create_dir_all(made.join("here")).unwrap();
    spec.mounts = vec![
        Mount {
            destination: "/etc/hosts".into(),
            source: hosts,
            read_only: true,
            ..Mount::default()
        },
        Mount {
            destination: "/made".into(),
            source: made,
            ..Mount::default()
        },
    ];
    let (exit, log) = node.run_to_end(&spec).await;
    let expected = [
        "1000",
        "2000",
        "2000 3000",
        "web",
        "hello",
        "zero one",
        "10.0.0.1 db",
        "/made/here",
        "touch: /file: Read-only file system",
        "read-only",
        "shm",
        "files",
    ];
    let log: Vec<&str> = log.lines().collect();
    assert_eq!((exit.code, log), (0, expected.to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_pod_share_its_namespaces_and_each_restart_is_new() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let first = node.container(
        "web",
        "first",
        "echo shared > /dev/shm/x; touch /own; exec sleep 1000",
    );
    let first = node.run(&first).await;
    let second = node.container(
        "web",
        "second",
        "while ! test -s /dev/shm/x; do sleep 0.01; done; \
                                cat /dev/shm/x; test -e /own || echo absent; hostname",
    );
    let (_, log) = node.run_to_end(&second).await;
    assert_eq!(log, "shared\nabsent\nweb\n");
    node.runtime().signal_container(&first, 9).await.unwrap();
    assert_eq!(node.exit(&first).await.code, 137);
    let mut again = node.container("web", "first", "test -e /own || echo fresh");
    again.attempt = 1;
    let (_, log) = node.run_to_end(&again).await;
    assert_eq!(log, "fresh\n");
    let attempts: Vec<u32> = node
        .runtime()
        .containers()
        .await
        .unwrap()
        .iter()
        .map(|c| c.attempt)
        .collect();
    assert_eq!(attempts.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_the_process_and_a_repeated_start_does_nothing() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let script = "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.02; done";
    let spec = node.container("web", "app", script);
    let id = node.run(&spec).await;
    node.runtime().start_container(&id).await.unwrap();
    while !node.log(&spec).contains("up") {
        node.runtime().flush_log(&id).await.unwrap();
    }
    node.runtime().signal_container(&id, 15).await.unwrap();
    assert_eq!(node.exit(&id).await.code, 5);
    assert_eq!(node.log(&spec), "up\nbye\n");
    node.runtime().signal_container(&id, 15).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    let node = Node::start().await;
    node.pod("web").await;
    let mut spec = node.container("web", "app", "");
    spec.command = vec!["/no/such/program".into()];
    let id = node.runtime().create_container(&spec).await.unwrap();
    let error = node.runtime().start_container(&id).await.unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("no such file or directory"),
        "{error}"
    );
    let ContainerState::Exited(exit) = node.runtime().container(&id).await.unwrap().state else {
        panic!("it must have ended")
    };
    assert_eq!((exit.code, exit.reason), (128, ExitReason::StartError));
    assert!(
        exit.message.contains("/no/such/program"),
        "{}",
        exit.message
    );

    spec.name = "absent".into();
    spec.image = "absent:v1".into();
    let error = node.runtime().create_container(&spec).await.unwrap_err();
    assert!(matches!(error, Error::ImageNotPresent(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_are_limited_and_what_a_short_life_was_refused_is_told() {
    let mut node = Node::start().await;
    let mut pod = sandbox("web");
    pod.resources.pids_limit = Some(8);
    node.runtime().create_sandbox(&pod).await.unwrap();
    let spec = node.container("web", "app", "for i in $(seq 20); do sleep 1000 & done");
    node.run(&spec).await;
    let refused = node
        .wait_for(|event| matches!(event, RuntimeEvent::ForksRefused { .. }))
        .await;
    let RuntimeEvent::ForksRefused { pod_uid, count } = refused else {
        unreachable!("matched above")
    };
    assert_eq!((pod_uid.as_str(), count > 0), ("web", true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_limited_and_the_kernels_kill_is_told_from_others() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let mut spec = node.container("web", "app", "exec tail /dev/zero");
    spec.resources = Resources {
        memory_limit_bytes: Some(32 << 20),
        ..Resources::default()
    };
    let (exit, _) = node.run_to_end(&spec).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OomKilled));

    let spec = node.container("web", "other", "echo up; exec sleep 1000");
    let id = node.run(&spec).await;
    let stats = node.runtime().container_stats(&id).await.unwrap();
    assert!(stats.memory_usage_bytes > 0 && stats.pids >= 1, "{stats:?}");
    assert!(node.runtime().sandbox_stats("web").await.unwrap().pids >= stats.pids);
    let resources = Resources {
        memory_limit_bytes: Some(64 << 20),
        ..Resources::default()
    };
    node.runtime()
        .update_container(&id, &resources)
        .await
        .unwrap();
    node.runtime().signal_container(&id, 9).await.unwrap();
    let exit = node.exit(&id).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::Exited));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_share_their_processes_when_the_pod_says_so() {
    let mut node = Node::start().await;
    let mut shared = sandbox("together");
    shared.pid = NamespaceMode::Pod;
    let made = node.runtime().create_sandbox(&shared).await.unwrap();
    let reaper = made.reaper.expect("a first process");
    let first = node
        .run(&node.container("together", "first", "sleep 1001"))
        .await;
    let script = "until ps -o args | grep -q '[s]leep 1001'; do sleep 0.1; done; echo pid $$";
    let (exit, log) = node
        .run_to_end(&node.container("together", "second", script))
        .await;
    assert_eq!(exit.code, 0);
    assert_ne!(
        log.trim(),
        "pid 1",
        "it is the first of the pod, not of a namespace"
    );

    // A new agent finds the pod as it was.
    node.restart_agent().await;
    let found = node.runtime().sandboxes().await.unwrap();
    assert_eq!((found[0].alive, found[0].reaper), (true, Some(reaper)));
    let running = node.runtime().container(&first).await.unwrap().state;
    assert!(
        matches!(running, ContainerState::Running { .. }),
        "{running:?}"
    );

    node.runtime().remove_sandbox("together").await.unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{reaper}")).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_joins_the_processes_of_another() {
    let mut node = Node::start().await;
    node.pod("web").await;
    let target = node.run(&node.container("web", "app", "sleep 1001")).await;
    let mut debugger = node.container("web", "debugger", "ps -o pid,args");
    debugger.pid_of = Some(target.clone());
    let (_, log) = node.run_to_end(&debugger).await;
    assert!(log.contains("1 sleep 1001"), "{log}");

    node.runtime().signal_container(&target, 9).await.unwrap();
    node.exit(&target).await;
    debugger.attempt = 1;
    let error = node
        .runtime()
        .create_container(&debugger)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");
}

/// Peapod's shim with both OCI runtimes, and containerd's: what a node chooses, and what a RuntimeClass may ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_runtime_runs_the_same_container() {
    let mut node = Node::start().await;
    node.pod("web").await;
    for (oci_runtime, shim) in [("runc", true), ("crun", true), ("runc", false)] {
        node.use_shim(shim).await;
        let name = format!("{oci_runtime}-{shim}");
        let script = "echo up; while read line; do echo got $line; done; exit 3";
        let mut spec = node.container("web", &name, script);
        spec.runtime_handler = Some(oci_runtime.into());
        spec.stdin = true;
        spec.user.uid = Some(1000);
        let id = node.run(&spec).await;
        let said = |script: &str| {
            let command = ["sh", "-c", script].map(str::to_owned);
            let (id, node) = (&id, &node);
            async move { node.runtime().exec_sync(id, &command, LIMIT).await.unwrap() }
        };
        let output = said("echo out; echo err >&2; id -u; exit 5").await;
        assert_eq!(output.code, 5, "{name}");
        assert_eq!(output.stdout, b"out\n1000\n", "{name}");
        assert_eq!(output.stderr, b"err\n", "{name}");
        let output = said("echo again >/dev/stderr").await;
        assert_eq!(
            (output.code, output.stderr.as_slice()),
            (0, &b"again\n"[..])
        );
        let resources = Resources {
            memory_limit_bytes: Some(64 << 20),
            ..Resources::default()
        };
        let update = node.runtime().update_container(&id, &resources);
        update.await.unwrap();
        // An agent that does otherwise from now on leaves those that run as they are.
        node.use_shim(!shim).await;
        let state = node.runtime().container(&id).await.unwrap().state;
        assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
        node.runtime().signal_container(&id, 9).await.unwrap();
        assert_eq!(node.exit(&id).await.code, 137, "{name}");
        assert_eq!(node.log(&spec), "up\n", "{name}");
        node.runtime().remove_container(&id).await.unwrap();
    }
}
