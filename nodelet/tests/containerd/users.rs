//! Pods with user namespaces: root in them is nobody outside, and files keep their owners on disk.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use peapod_nodelet::runtime::{
    ContainerId, ContainerState, Mount, NamespaceMode, Runtime, SandboxSpec, Security, User,
};

use crate::support::{LIMIT, Node, sandbox};

/// A node whose directory others may pass through, as the root of a user namespace must.
async fn node() -> Node {
    let node = Node::start().await;
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(node.dir.path(), open).unwrap();
    node
}

fn mapped(uid: &str) -> SandboxSpec {
    SandboxSpec {
        own_users: true,
        ..sandbox(uid)
    }
}

fn volume(destination: &str, source: &Path) -> Mount {
    Mount {
        destination: destination.into(),
        source: source.into(),
        ..Mount::default()
    }
}

async fn exec(node: &Node, id: &ContainerId, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned);
    let output = node.runtime().exec_sync(id, &command, LIMIT).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_inside_is_nobody_outside_with_every_runtime() {
    let mut node = node().await;
    let null = std::fs::metadata("/dev/null").unwrap().uid();
    let data = node.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("theirs"), "x").unwrap();
    chown(data.join("theirs"), Some(1000), Some(2000)).unwrap();
    let hosts = node.dir.path().join("hosts");
    std::fs::write(&hosts, "10.0.0.1 db\n").unwrap();
    for (shim, runtime) in [(true, "crun"), (true, "runc"), (false, "runc")] {
        node.use_shim(shim).await;
        let pod = format!("{runtime}-{shim}");
        let made = node.runtime().create_sandbox(&mapped(&pod)).await.unwrap();
        let ids = made.ids.unwrap();
        let script = "id -u; cat /proc/self/uid_map; cat /etc/hosts; ls -ln /data/theirs; \
             touch /data/new /made /dev/shm/x && ls -ln /made; ls /sys/class/net; \
             mount -t tmpfs none /dev/shm && echo mounted; \
             ls /sys/fs/cgroup > /dev/null && echo groups; echo over; exec sleep 1000";
        let mut spec = node.container(&pod, "app", script);
        spec.mounts = vec![volume("/data", &data), volume("/etc/hosts", &hosts)];
        spec.security = Security {
            add_capabilities: vec!["SYS_ADMIN".into()],
            ..Security::default()
        };
        spec.runtime_handler = Some(runtime.to_owned());
        let id = node.run(&spec).await;
        while !node.log(&spec).contains("over") {
            node.runtime().flush_log(&id).await.unwrap();
        }
        let log = node.log(&spec);
        let words: Vec<&str> = log.split_whitespace().collect();
        assert_eq!(
            words[..4],
            ["0", "0", &ids.first.to_string(), "65536"],
            "{log}"
        );
        assert!(log.contains("10.0.0.1 db"), "{log}");
        for line in log.lines().filter(|line| line.contains("theirs")) {
            assert!(line.contains("1000     2000"), "{log}");
        }
        assert!(log.contains("groups"), "{log}");
        assert!(
            log.contains("mounted"),
            "what it may do it may do to its own: {log}"
        );

        // Outside its processes and its own files are nobody's; on the volume they are root's.
        let listed = node.runtime().containers().await.unwrap();
        let running = listed.iter().find(|one| one.id == id).unwrap();
        let ContainerState::Running { pid, .. } = running.state else {
            panic!("{running:?}");
        };
        let process = std::fs::metadata(format!("/proc/{pid}")).unwrap();
        assert_eq!(process.uid(), ids.first);
        let new = std::fs::metadata(data.join("new")).unwrap();
        assert_eq!((new.uid(), new.gid()), (0, 0));
        std::fs::remove_file(data.join("new")).unwrap();

        // It goes on without the agent, and commands are as it is.
        node.restart_agent().await;
        let said = exec(
            &node,
            &id,
            "id -u; echo on > /proc/1/root/again; echo said >&2",
        )
        .await;
        assert_eq!(said, "0\n");
        let other = mapped(&format!("{pod}-other"));
        let other = node.runtime().create_sandbox(&other).await.unwrap();
        assert_ne!(
            other.ids.unwrap().first,
            ids.first,
            "IDs are one pod's alone"
        );

        node.runtime().remove_sandbox(&pod).await.unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let state = node.config.state_dir.join("containers");
        assert!(!mounts.contains(&*state.to_string_lossy()), "{mounts}");
        assert!(data.join("theirs").exists());
    }
    let now = std::fs::metadata("/dev/null").unwrap().uid();
    assert_eq!(null, now, "a device of the host was given away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_terminals_and_shared_processes_work_in_user_namespaces() {
    let mut node = node().await;
    let shared = SandboxSpec {
        pid: NamespaceMode::Pod,
        ..mapped("shared")
    };
    node.runtime().create_sandbox(&shared).await.unwrap();
    for (shim, runtime) in [(true, "crun"), (true, "runc"), (false, "runc")] {
        node.use_shim(shim).await;
        let name = format!("{runtime}-{shim}");
        let script = "id -u; id -G; echo through > /dev/stdout; ps; test -t 0 && echo terminal";
        let mut spec = node.container("shared", &name, script);
        spec.runtime_handler = Some(runtime.to_owned());
        spec.user = User {
            uid: Some(1000),
            gid: Some(2000),
            additional_gids: vec![3000],
            strict_groups: true,
        };
        let (exit, log) = node.run_to_end(&spec).await;
        assert_eq!(exit.code, 1, "no terminal: {log}");
        assert!(log.contains("1000\n2000 3000\nthrough\n"), "{name}: {log}");
        assert!(log.contains("ps"), "{log}");
        spec.name = format!("{name}-tty");
        spec.tty = true;
        spec.command[2] = "test -t 0 && echo terminal".into();
        spec.log_path = Some(node.log_path("shared", &spec.name));
        let (exit, log) = node.run_to_end(&spec).await;
        assert_eq!((exit.code, log.trim()), (0, "terminal"));
    }
    let mut wrong = node.container("shared", "wrong", "true");
    wrong.user.uid = Some(70_000);
    let error = node.runtime().create_container(&wrong).await.unwrap_err();
    assert!(error.to_string().contains("0 to 65535"), "{error}");
}
