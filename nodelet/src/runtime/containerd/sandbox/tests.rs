//! Sandboxes on the real kernel, without containerd: namespaces, host names, IDs of users, what crashes leave.

use std::collections::BTreeMap;
use std::process::Command;

use peapod_api::attach::PodRef;

use super::*;
use crate::runtime::{QosClass, Resources};

fn spec(uid: &str) -> SandboxSpec {
    SandboxSpec {
        pod: PodRef {
            namespace: "default".into(),
            name: "web".into(),
            uid: uid.into(),
        },
        hostname: "web-0".into(),
        network: NamespaceMode::Pod,
        own_hostname: false,
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        own_users: false,
        sysctls: BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".into(), "0".into())]),
        qos: QosClass::BestEffort,
        resources: Resources::default(),
        runtime_handler: None,
        labels: BTreeMap::new(),
    }
}

fn sandboxes_in(dir: &Path) -> Sandboxes {
    Sandboxes::new(dir.to_path_buf(), Ranges::default_for(2))
}

fn inside(sandbox: &Sandbox, paths: &Paths, command: &str) -> String {
    let output = Command::new("nsenter")
        .arg(format!(
            "--net={}",
            sandbox.netns.as_ref().unwrap().display()
        ))
        .arg(format!("--uts={}", paths.uts().display()))
        .args(["sh", "-c", command])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn namespaces_are_pinned_prepared_and_unpinned() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = sandboxes_in(dir.path());
    let made = sandboxes
        .create(&spec("u1"), Timestamp::UNIX_EPOCH)
        .unwrap();
    let paths = sandboxes.paths("u1");
    assert_eq!(inside(&made, &paths, "hostname"), "web-0");
    assert!(inside(&made, &paths, "ip -o link show lo").contains("UP"));
    assert_eq!(
        inside(
            &made,
            &paths,
            "sysctl -n net.ipv4.ip_unprivileged_port_start"
        ),
        "0"
    );

    let again = sandboxes.create(&spec("u1"), Timestamp::MAX).unwrap();
    assert_eq!(again, made, "creating what exists gives what exists");
    assert_eq!(sandboxes.list().unwrap(), vec![made]);

    sandboxes.remove("u1").unwrap();
    sandboxes.remove("u1").unwrap();
    assert_eq!(sandboxes.list().unwrap(), vec![]);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(
        !mounts.contains(&*dir.path().to_string_lossy()),
        "a mount stayed behind"
    );
}

#[test]
fn with_the_hosts_network_a_pod_may_have_a_hostname_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = sandboxes_in(dir.path());
    let host = SandboxSpec {
        network: NamespaceMode::Host,
        own_hostname: true,
        sysctls: BTreeMap::new(),
        ..spec("u1")
    };
    let made = sandboxes.create(&host, Timestamp::UNIX_EPOCH).unwrap();
    assert!(made.alive && made.netns.is_none());
    let output = Command::new("nsenter")
        .arg(format!("--uts={}", sandboxes.paths("u1").uts().display()))
        .arg("hostname")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"web-0\n");
    assert_eq!(sandboxes.list().unwrap(), vec![made]);
    sandboxes.remove("u1").unwrap();
}

#[test]
fn a_reboot_leaves_a_dead_sandbox_that_can_be_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = sandboxes_in(dir.path());
    sandboxes
        .create(&spec("u1"), Timestamp::UNIX_EPOCH)
        .unwrap();
    for mount in sandboxes.paths("u1").mounts() {
        sys::unmount(&mount).unwrap();
    }
    assert!(!sandboxes.list().unwrap()[0].alive);
    assert!(sandboxes.create(&spec("u1"), Timestamp::MAX).unwrap().alive);
    sandboxes.remove("u1").unwrap();
}

#[test]
fn what_a_crash_left_half_made_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = sandboxes_in(dir.path());
    sandboxes
        .create(&spec("u1"), Timestamp::UNIX_EPOCH)
        .unwrap();
    fs::remove_file(sandboxes.paths("u1").record()).unwrap();
    assert_eq!(sandboxes.list().unwrap(), vec![]);
    assert!(!dir.path().join("u1").exists());
}

#[test]
fn pods_with_user_namespaces_have_ids_of_their_own() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let sandboxes = sandboxes_in(dir.path());
    let open = |mode| fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    let mapped = |uid: &str| SandboxSpec {
        own_users: true,
        pid: NamespaceMode::Pod,
        sysctls: BTreeMap::from([
            ("kernel.msgmax".into(), "4096".into()),
            ("net.ipv4.ping_group_range".into(), "0 1000".into()),
        ]),
        ..spec(uid)
    };
    let make = |uid: &str| sandboxes.create(&mapped(uid), Timestamp::UNIX_EPOCH);
    open(0o700);
    let error = make("u1").unwrap_err().to_string();
    assert!(error.contains("chmod o+x"), "{error}");
    open(0o711);
    let (one, two) = (make("u1").unwrap(), make("u2").unwrap());
    let first = |sandbox: &Sandbox| sandbox.ids.unwrap().first;
    assert_eq!((first(&one), first(&two)), (65_536, 131_072));
    assert!(one.alive && sandboxes.get("u1").unwrap() == Some(one));
    let error = make("u3").unwrap_err().to_string();
    assert!(error.contains("all ranges of IDs are taken"), "{error}");
    sandboxes.remove("u3").unwrap();

    let paths = sandboxes.paths("u2");
    let output = Command::new("nsenter")
        .arg(format!("--user={}", paths.user().display()))
        .arg(format!("--net={}", paths.net().display()))
        .arg(format!("--uts={}", paths.uts().display()))
        .arg(format!("--ipc={}", paths.ipc().display()))
        .args([
            "sh",
            "-c",
            "hostname; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ping_group_range",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.split_whitespace().collect::<Vec<_>>(),
        ["web-0", "4096", "0", "1000"]
    );

    // An agent that comes back knows who has what, and what is free again is given again.
    sandboxes.remove("u1").unwrap();
    let sandboxes = sandboxes_in(dir.path());
    let three = sandboxes.create(&mapped("u3"), Timestamp::UNIX_EPOCH);
    assert_eq!(first(&three.unwrap()), 65_536);
    let host = SandboxSpec {
        network: NamespaceMode::Host,
        ..mapped("u4")
    };
    let error = sandboxes.create(&host, Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    for uid in ["u2", "u3"] {
        sandboxes.remove(uid).unwrap();
    }
}

#[test]
fn bad_input_is_refused() {
    let sandboxes = sandboxes_in(Path::new("/nonexistent"));
    for uid in ["", "..", "a/b", ".hidden"] {
        let error = sandboxes
            .create(&spec(uid), Timestamp::UNIX_EPOCH)
            .unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{uid}: {error:?}");
    }
    for sysctl in [
        "vm.swappiness",
        "kernel.panic",
        "net.ipv4/../../kernel/panic",
        "net..x",
    ] {
        let mut spec = spec("u1");
        spec.sysctls = BTreeMap::from([(sysctl.into(), "1".into())]);
        let error = sandboxes.create(&spec, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{sysctl}: {error:?}");
    }
}
