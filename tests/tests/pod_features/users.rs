//! Pods with user namespaces of their own, over the whole system.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

const PODS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {word: told}
---
apiVersion: v1
kind: Pod
metadata: {name: mapped, labels: {app: mapped}}
spec:
  hostUsers: false
  terminationGracePeriodSeconds: 1
  securityContext:
    fsGroup: 2000
    sysctls: [{name: net.ipv4.ping_group_range, value: '0 65535'}]
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: words, configMap: {name: words}}
  initContainers:
  - name: first
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'echo init > /disk/init; chown 1000:1000 /disk/init']
    volumeMounts: [{name: disk, mountPath: /disk}]
  containers:
  - name: root
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'echo up; sleep 10000']
    readinessProbe: {exec: {command: [test, -e, /disk/init]}, periodSeconds: 1}
    lifecycle: {postStart: {exec: {command: [touch, /memory/started]}}}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: memory, mountPath: /memory}
    - {name: words, mountPath: /words}
    - {name: words, mountPath: /word, subPath: word}
  - name: user
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'echo through > /dev/stdout; cat /words/word; echo; sleep 10000']
    securityContext: {runAsUser: 1000, runAsGroup: 1000, procMount: Unmasked, allowPrivilegeEscalation: false}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: words, mountPath: /words}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: 'busybox:test', imagePullPolicy: Never, command: [sleep, '10000']}]
";

fn exec(cluster: &Cluster, container: &str, script: &str) -> Result<String> {
    let args = ["exec", "mapped", "-c", container, "--", "sh", "-c", script];
    Ok(cluster.kubectl_with(&args, None)?.ok()?.trim().to_owned())
}

#[test]
fn a_pod_has_a_user_namespace_of_its_own() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    // Root in the pod passes through where the node keeps its files.
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(cluster.data_dir(), open)?;
    let able = "{.items[0].status.runtimeHandlers[0].features.userNamespaces}";
    assert_eq!(cluster.field("node", able)?, "true");
    cluster.apply(PODS)?;
    ready(&cluster, "plain")?;
    ready(&cluster, "mapped")?;

    let map = exec(&cluster, "root", "id -u; cat /proc/self/uid_map")?;
    let numbers: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(
        (numbers[0], numbers[1], numbers[3]),
        ("0", "0", "65536"),
        "{map}"
    );
    let first: u32 = numbers[2].parse()?;
    assert!(first >= 65536 && first.is_multiple_of(65536), "{map}");
    assert_eq!(
        exec(&cluster, "user", "id -u; id -g; id -G")?,
        "1000\n1000\n1000 2000"
    );

    // Files have the owners that they would have without it.
    let listed = exec(
        &cluster,
        "root",
        "ls -ln /disk/init /memory/started; ls -dn / /disk; cat /word",
    )?;
    let owners: Vec<String> = listed
        .lines()
        .map(|line| {
            line.split_whitespace()
                .skip(2)
                .take(2)
                .collect::<Vec<_>>()
                .join(":")
        })
        .collect();
    assert_eq!(
        owners[..4],
        ["1000:1000", "0:2000", "0:0", "0:2000"],
        "{listed}"
    );
    assert!(listed.ends_with("told"), "{listed}");
    exec(
        &cluster,
        "root",
        "touch /made /etc/made /tmp/made && echo 127.0.0.2 x >> /etc/hosts",
    )?;
    exec(
        &cluster,
        "user",
        "echo mine > /disk/mine && test -O /disk/mine",
    )?;
    assert!(exec(&cluster, "user", "touch /etc/made").is_err());
    let said = cluster.kubectl("logs mapped -c user")?.ok()?;
    assert_eq!(said, "through\ntold\n");

    // The network is its own, and reaches others.
    let ip = cluster.field("pod/plain", "{.status.podIP}")?;
    exec(&cluster, "root", &format!("ping -c 1 -W 5 {ip}"))?;
    exec(
        &cluster,
        "root",
        "cat /proc/sys/net/ipv4/ping_group_range | grep 65535; ls /sys/class/net/eth0",
    )?;

    // It outlives the agent; a container that ends is restarted in it.
    cluster.crash()?;
    cluster.start()?;
    assert_eq!(
        exec(&cluster, "root", "id -u; cat /proc/self/uid_map")?,
        map
    );
    let restarts = |container: &str| {
        let path =
            format!("{{.status.containerStatuses[?(@.name==\"{container}\")].restartCount}}");
        cluster.field("pod/mapped", &path)
    };
    assert_eq!(restarts("root")?, "0");
    let _ = exec(&cluster, "root", "kill -9 -1; kill -TERM 1; kill 1");
    let pid = "for p in /proc/[0-9]*; do :; done; echo $p";
    exec(&cluster, "user", pid)?;

    // What cannot be together is refused.
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        let pod = PODS.replace(
            "hostUsers: false",
            &format!("hostUsers: false\n  {field}: true"),
        );
        let refused = cluster
            .apply(&pod.replace("name: mapped", "name: shared"))
            .unwrap_err();
        let text = format!("{refused:#}");
        assert!(text.contains("when `hostUsers` is false"), "{text}");
    }

    // Nothing stays of it.
    cluster.kubectl("delete pod mapped plain")?.ok()?;
    let left = cluster.data_dir().join("runtime/sandboxes");
    wait::until("the end of the mounts", || {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let below = cluster.data_dir().join("runtime/containers");
        let none = !mounts.contains(&*below.to_string_lossy());
        Ok(none && std::fs::read_dir(&left)?.count() == 0)
    })
}
