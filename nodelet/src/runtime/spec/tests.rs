//! The specification, field by field: what the pod says, what the image says, what comes out.

use super::*;
use crate::runtime::{Mount, Propagation};
use serde_json::{Value, json};

fn host() -> Host {
    Host {
        capabilities: u64::MAX,
        oom_score_adj_min: -1000,
        swap_accounting: true,
        apparmor: false,
        oom_group: false,
    }
}

const HOST_IDS: HostIds = HostIds {
    first: 65_536,
    count: 65_536,
};

fn around() -> Surroundings {
    Surroundings {
        netns: Some("/ns/net".into()),
        ipcns: Some("/ns/ipc".into()),
        utsns: Some("/ns/uts".into()),
        pid: NamespaceMode::Container,
        shm: Some("/ns/shm".into()),
        hostname: "web-0".into(),
        cgroup: "/peapod/kubepods/podu1/c1".into(),
        image: ImageConfig {
            entrypoint: vec!["/entry".into()],
            cmd: vec!["default".into()],
            env: vec!["A=image".into(), "B=image".into()],
            working_dir: "/srv".into(),
            ..ImageConfig::default()
        },
        ..Surroundings::default()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The specification as JSON, at a JSON pointer.
fn at(spec: &ContainerSpec, around: &Surroundings, pointer: &str) -> Value {
    let oci = serde_json::to_value(build(spec, around, &host()).unwrap()).unwrap();
    oci.pointer(pointer).cloned().unwrap_or(Value::Null)
}

fn mount<'a>(mounts: &'a Value, destination: &str) -> &'a Value {
    let all = mounts.as_array().unwrap();
    all.iter()
        .find(|mount| mount["destination"] == destination)
        .unwrap_or(&Value::Null)
}

#[test]
fn command_and_args_override_entrypoint_and_cmd() {
    for (command, args, expected) in [
        ("", "", "/entry default"),
        ("", "a b", "/entry a b"),
        ("run", "", "run"),
        ("run it", "a", "run it a"),
    ] {
        let spec = ContainerSpec {
            command: words(command),
            args: words(args),
            ..Default::default()
        };
        assert_eq!(
            at(&spec, &around(), "/process/args"),
            json!(words(expected)),
            "{command}|{args}"
        );
    }
    let empty = Surroundings {
        image: ImageConfig::default(),
        ..around()
    };
    let error = build(&ContainerSpec::default(), &empty, &host()).unwrap_err();
    assert!(
        error.to_string().contains("no command specified"),
        "{error}"
    );
}

#[test]
fn environment_is_merged_the_last_wins() {
    let env = vec![
        ("B".to_owned(), "pod".to_owned()),
        ("C".to_owned(), "x=y".to_owned()),
    ];
    let spec = ContainerSpec {
        env,
        ..Default::default()
    };
    let expected = json!([DEFAULT_PATH, "HOSTNAME=web-0", "A=image", "B=pod", "C=x=y"]);
    assert_eq!(at(&spec, &around(), "/process/env"), expected);
}

#[test]
fn working_dir_of_pod_image_or_root() {
    let spec = |dir: Option<&str>| ContainerSpec {
        working_dir: dir.map(str::to_owned),
        ..Default::default()
    };
    let plain = Surroundings {
        image: ImageConfig {
            cmd: words("x"),
            ..Default::default()
        },
        ..around()
    };
    assert_eq!(at(&spec(Some("/tmp")), &around(), "/process/cwd"), "/tmp");
    assert_eq!(at(&spec(None), &around(), "/process/cwd"), "/srv");
    assert_eq!(at(&spec(Some("")), &plain, "/process/cwd"), "/");
}

#[test]
fn the_user_and_its_groups() {
    let user = ResolvedUser {
        uid: 1000,
        gid: 1001,
        additional_gids: vec![7, 8],
        home: None,
    };
    let around = Surroundings { user, ..around() };
    let expected = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8]});
    assert_eq!(
        at(&ContainerSpec::default(), &around, "/process/user"),
        expected
    );
}

#[test]
fn namespaces_are_the_pods_but_for_mounts_and_processes() {
    let kinds = |around: &Surroundings| at(&ContainerSpec::default(), around, "/linux/namespaces");
    assert_eq!(
        kinds(&around()),
        json!([
            {"type": "mount"},
            {"type": "network", "path": "/ns/net"},
            {"type": "ipc", "path": "/ns/ipc"},
            {"type": "uts", "path": "/ns/uts"},
            {"type": "pid"},
        ])
    );
    let mapped = Surroundings {
        users: Some(("/ns/user".into(), HOST_IDS)),
        ..around()
    };
    let expected = json!([{"containerID": 0, "hostID": 65_536, "size": 65_536}]);
    let spec = ContainerSpec::default();
    for pointer in ["/linux/uidMappings", "/linux/gidMappings"] {
        assert_eq!(at(&spec, &mapped, pointer), expected, "{pointer}");
        assert_eq!(at(&spec, &around(), pointer), Value::Null);
    }
    let joined = at(&spec, &mapped, "/linux/namespaces");
    assert!(joined.to_string().contains("/ns/user"), "{joined}");
    let user = ResolvedUser {
        additional_gids: vec![65_536],
        ..ResolvedUser::default()
    };
    let error = build(&spec, &Surroundings { user, ..mapped }, &host()).unwrap_err();
    assert!(error.to_string().contains("0 to 65535"), "{error}");

    let hosts = Surroundings {
        netns: None,
        ipcns: None,
        utsns: None,
        pid: NamespaceMode::Host,
        shm: None,
        ..around()
    };
    assert_eq!(kinds(&hosts), json!([{"type": "mount"}]));
    let mounts = at(&ContainerSpec::default(), &hosts, "/mounts");
    assert_eq!(mount(&mounts, "/dev/shm")["source"], "/dev/shm");
    let shared = Surroundings {
        pid: NamespaceMode::Pod,
        pidns: Some("/ns/pid".into()),
        ..around()
    };
    assert_eq!(kinds(&shared)[4], json!({"type": "pid", "path": "/ns/pid"}));
}

#[test]
fn volumes_are_bound_parents_first_and_replace_standard_mounts() {
    let volume = |destination: &str, source: &str| Mount {
        destination: destination.into(),
        source: source.into(),
        ..Default::default()
    };
    let spec = ContainerSpec {
        mounts: vec![
            Mount {
                read_only: true,
                ..volume("/data/sub/deep", "/v/1")
            },
            Mount {
                propagation: Propagation::HostToContainer,
                ..volume("/data", "/v/2")
            },
            Mount {
                recursive_read_only: true,
                ..volume("/dev/shm", "/v/3")
            },
        ],
        ..Default::default()
    };
    let mounts = at(&spec, &around(), "/mounts");
    let options = |destination: &str| mount(&mounts, destination)["options"].clone();
    assert_eq!(options("/data"), json!(["rbind", "rslave", "rw"]));
    assert_eq!(
        options("/data/sub/deep"),
        json!(["rbind", "rprivate", "ro"])
    );
    assert_eq!(options("/dev/shm"), json!(["rbind", "rprivate", "rro"]));
    let order: Vec<&str> = mounts
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["destination"].as_str())
        .collect();
    let place = |destination: &str| order.iter().position(|d| *d == destination).unwrap();
    assert!(place("/dev") < place("/dev/shm") && place("/data") < place("/data/sub/deep"));
    assert_eq!(order.iter().filter(|d| **d == "/dev/shm").count(), 1);
    assert_eq!(at(&spec, &around(), "/linux/rootfsPropagation"), "rslave");
}

#[test]
fn relative_paths_of_volumes_are_refused() {
    let relative = Mount {
        destination: "data".into(),
        source: "/v".into(),
        ..Default::default()
    };
    let spec = ContainerSpec {
        mounts: vec![relative],
        ..Default::default()
    };
    assert!(matches!(
        build(&spec, &around(), &host()),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn limits_become_cgroup_values() {
    let resources = Resources {
        cpu_shares: Some(512),
        cpu_quota_us: Some(25_000),
        cpu_period_us: Some(100_000),
        memory_limit_bytes: Some(64 << 20),
        pids_limit: Some(10),
        hugepages: [("2MB".to_owned(), 4 << 20)].into(),
        ..Default::default()
    };
    let spec = ContainerSpec {
        resources,
        ..Default::default()
    };
    let limits = at(&spec, &around(), "/linux/resources");
    assert_eq!(
        limits["memory"],
        json!({"limit": 67108864, "swap": 67108864})
    );
    assert_eq!(
        limits["cpu"],
        json!({"shares": 512, "quota": 25000, "period": 100000})
    );
    assert_eq!(limits["pids"], json!({"limit": 10}));
    assert_eq!(
        limits["hugepageLimits"],
        json!([{"pageSize": "2MB", "limit": 4194304}])
    );
    assert_eq!(
        at(&spec, &around(), "/linux/cgroupsPath"),
        "/peapod/kubepods/podu1/c1"
    );
    let no_swap = Host {
        swap_accounting: false,
        ..host()
    };
    let limits = serde_json::to_value(super::resources(&spec.resources, &no_swap)).unwrap();
    assert_eq!(limits["memory"], json!({"limit": 67108864}));
    assert_eq!(limits["unified"], Value::Null);
    let v2 = Host {
        oom_group: true,
        ..host()
    };
    let limits = serde_json::to_value(super::resources(&spec.resources, &v2)).unwrap();
    assert_eq!(limits["unified"], json!({"memory.oom.group": "1"}));
}

#[test]
fn oom_score_adj_is_not_lowered_where_the_host_forbids_it() {
    let spec = ContainerSpec {
        oom_score_adj: Some(-997),
        ..Default::default()
    };
    assert_eq!(at(&spec, &around(), "/process/oomScoreAdj"), -997);
    let bound = Host {
        oom_score_adj_min: 0,
        ..host()
    };
    let process = build(&spec, &around(), &bound)
        .unwrap()
        .process()
        .clone()
        .unwrap();
    assert_eq!(process.oom_score_adj(), Some(0));
}

#[test]
fn isolation_is_on_unless_privileged() {
    let with = |security: Security| ContainerSpec {
        security,
        ..Default::default()
    };
    let plain = with(Security {
        seccomp: Seccomp::RuntimeDefault,
        ..Default::default()
    });
    assert!(
        at(&plain, &around(), "/linux/maskedPaths")
            .as_array()
            .unwrap()
            .contains(&json!("/proc/kcore"))
    );
    assert_eq!(
        at(&plain, &around(), "/linux/seccomp/defaultAction"),
        "SCMP_ACT_ERRNO"
    );
    assert_eq!(
        at(&plain, &around(), "/linux/resources/devices/0/allow"),
        false
    );
    assert_eq!(
        at(&plain, &around(), "/process/capabilities/inheritable"),
        Value::Null
    );
    assert_eq!(
        mount(&at(&plain, &around(), "/mounts"), "/sys")["options"][3],
        "ro"
    );

    let seccomp = Seccomp::RuntimeDefault;
    let privileged = with(Security {
        privileged: true,
        seccomp,
        ..Default::default()
    });
    for pointer in [
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/seccomp",
    ] {
        assert_eq!(
            at(&privileged, &around(), pointer),
            Value::Null,
            "{pointer}"
        );
    }
    assert_eq!(
        at(&privileged, &around(), "/linux/resources/devices/0/allow"),
        true
    );
    assert_eq!(
        at(&privileged, &around(), "/process/capabilities/bounding")
            .as_array()
            .unwrap()
            .len(),
        41
    );
    assert_eq!(
        mount(&at(&privileged, &around(), "/mounts"), "/sys")["options"][3],
        "rw"
    );

    let unmasked = with(Security {
        unmasked_proc: true,
        ..Default::default()
    });
    assert_eq!(at(&unmasked, &around(), "/linux/maskedPaths"), Value::Null);
    let strict = with(Security {
        no_new_privileges: true,
        read_only_rootfs: true,
        ..Default::default()
    });
    assert_eq!(at(&strict, &around(), "/process/noNewPrivileges"), true);
    assert_eq!(at(&strict, &around(), "/root/readonly"), true);
}

#[test]
fn devices_are_made_and_allowed() {
    let device = HostDevice {
        path: "/dev/fuse".into(),
        block: false,
        major: 10,
        minor: 229,
        mode: 0o20666,
        uid: 0,
        gid: 0,
        access: "rw".into(),
    };
    let around = Surroundings {
        devices: vec![device],
        ..around()
    };
    let spec = ContainerSpec::default();
    assert_eq!(at(&spec, &around, "/linux/devices/0/fileMode"), 0o666);
    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
    assert_eq!(at(&spec, &around, "/linux/resources/devices/1"), rule);
}

#[test]
fn containers_of_a_pod_share_a_shim() {
    let spec = ContainerSpec {
        pod_uid: "u1".into(),
        ..Default::default()
    };
    let expected = json!({"io.kubernetes.cri.sandbox-id": "u1"});
    assert_eq!(at(&spec, &around(), "/annotations"), expected);
}

#[test]
fn a_command_in_a_container_is_like_its_first_process() {
    let first = build(&ContainerSpec::default(), &around(), &host()).unwrap();
    let exec = exec_process(first.process().as_ref().unwrap(), &words("ls -l"), true);
    assert_eq!(exec.args().clone().unwrap(), words("ls -l"));
    assert_eq!(exec.cwd(), std::path::Path::new("/srv"));
    assert_eq!(exec.terminal(), Some(true));
    assert!(
        exec.env()
            .as_ref()
            .unwrap()
            .contains(&"TERM=xterm".to_owned())
    );
}
