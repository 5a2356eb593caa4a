//! Volumes of a CSI driver: the tests' own (`tests/src/csi`), a process for each of two nodes, whose
//! volumes are loop devices with ext4 that move with their pod.

mod drivers;
mod pods;
mod provisioned;

use std::path::Path;

use anyhow::Result;
use peapod_tests::{Cluster, command, process, wait};
use serde_json::Value;

use self::drivers::{DRIVER, Drivers, grow, make_volumes, registered};
use self::pods::{about_driver, claimed, exec, mounts_below, pod, ready, says, volume};

#[test]
fn a_drivers_volumes_serve_pods_of_two_nodes() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "2"])?;
    cluster.load_busybox()?;
    let mut drivers = Drivers::start(&cluster, &["node-1", "node-2"])?;
    for node in ["node-1", "node-2"] {
        wait::until("the driver's registration", || {
            Ok(registered(&cluster, node).unwrap_or(false))
        })?;
        let zone = cluster.field(
            &format!("node/{node}"),
            "{.metadata.labels.disk\\.csi\\.example\\.com/zone}",
        )?;
        assert_eq!(zone, "shared");
    }
    cluster.apply(&about_driver(false))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(make_volumes(&cluster, "node-2", &["a", "b"]))?;

    // A pod writes; its volume is staged once for two pods of the node; the driver needs a secret.
    cluster
        .kubectl("create secret generic word --from-literal=word=sesame")?
        .ok()?;
    let secret = "nodeStageSecretRef: {namespace: default, name: word}";
    cluster.apply(&volume("files", "vol-a", "Filesystem", "32Mi", secret))?;
    let group = "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000}";
    cluster.apply(&pod(
        "writer",
        "node-1",
        &claimed("files"),
        "echo kept >/v/file",
        group,
    ))?;
    ready(&cluster, "writer")?;
    cluster.apply(&pod("second", "node-1", &claimed("files"), "true", ""))?;
    ready(&cluster, "second")?;
    assert_eq!(
        exec(&cluster, "second", "ls -ldn /v/file")?
            .split_whitespace()
            .nth(3),
        Some("2000")
    );
    let nodes = cluster.data_dir().join("nodes");
    assert_eq!(mounts_below(&nodes, "globalmount")?, 1);

    // The agents are killed, and the driver; the pods run on and the volume stays.
    let agents = || {
        let data = nodes.to_string_lossy().into_owned();
        process::with_argument(&format!("node\0--data-dir\0{data}/"))
    };
    let before = agents()?;
    process::kill(&before)?;
    drivers.crash("node-1")?;
    wait::until("new agents", || {
        Ok(agents()?.iter().filter(|pid| !before.contains(pid)).count() == 2)
    })?;
    wait::until("an answer of the pod", || {
        Ok(exec(&cluster, "second", "cat /v/file").is_ok_and(|said| said == "kept\n"))
    })?;

    // How full it is.
    let summary = || -> Result<Value> {
        let text = cluster
            .kubectl("get --raw /api/v1/nodes/node-1/proxy/stats/summary")?
            .ok()?;
        Ok(serde_json::from_str(&text)?)
    };
    wait::until("the volume's figures", || {
        let summary = summary()?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let volumes = pods
            .iter()
            .flat_map(|pod| pod["volume"].as_array().into_iter().flatten());
        Ok(volumes.into_iter().any(|volume| {
            volume["pvcRef"]["name"] == "files" && volume["capacityBytes"].as_i64() > Some(20 << 20)
        }))
    })?;

    // One pod goes, the other keeps it; both go, and the other node has it with all that is in it.
    cluster.kubectl("delete pod writer")?.ok()?;
    assert_eq!(exec(&cluster, "second", "cat /v/file")?, "kept\n");
    cluster.kubectl("delete pod second")?.ok()?;
    wait::until("the end of the stage", || {
        Ok(mounts_below(&nodes, "globalmount")? == 0)
    })?;
    cluster.apply(&pod(
        "reader",
        "node-2",
        &claimed("files"),
        "cat /v/file",
        "",
    ))?;
    ready(&cluster, "reader")?;
    says(&cluster, "reader", "kept\n")?;

    // A device; and what a pod brings with it, which goes with the pod.
    cluster.apply(&volume("device", "vol-b", "Block", "32Mi", ""))?;
    let block = pod(
        "block",
        "node-1",
        &claimed("device"),
        "dd if=/dev/zero of=/dev/vol bs=4096 count=1 && echo written",
        "",
    )
    .replace(
        "volumeMounts: [{name: v, mountPath: /v}]",
        "volumeDevices: [{name: v, devicePath: /dev/vol}]",
    );
    cluster.apply(&block)?;
    ready(&cluster, "block")?;
    wait::until("the device's writer", || {
        Ok(cluster.kubectl("logs block")?.stdout.contains("written"))
    })?;

    // It grows while it is in use. A device does: ext4 lets a mounted file system grow only for who
    // has CAP_SYS_RESOURCE, which the machine of a test may withhold.
    runtime.block_on(grow(&cluster, "node-2", "vol-b", 48 << 20))?;
    let larger = r#"{"spec":{"capacity":{"storage":"48Mi"}}}"#;
    cluster
        .kubectl_with(&["patch", "pv", "device", "-p", larger], None)?
        .ok()?;
    let pending =
        r#"{"status":{"conditions":[{"type":"FileSystemResizePending","status":"True"}]}}"#;
    let patch = [
        "patch",
        "pvc",
        "device",
        "--subresource=status",
        "-p",
        pending,
    ];
    cluster.kubectl_with(&patch, None)?.ok()?;
    wait::until("the claim's new size", || {
        let path = "{.status.capacity.storage}/{.status.conditions[*].type}";
        Ok(cluster.field("pvc/device", path)? == "48Mi/")
    })?;
    let uid = cluster.field("pod/block", "{.metadata.uid}")?;
    let devices = nodes.join("node-1/node/plugins/kubernetes.io/csi/volumeDevices");
    let device = devices.join("publish/device").join(uid);
    let size = command::run("blockdev", ["--getsize64", &*device.to_string_lossy()])?.ok()?;
    assert_eq!(size.trim(), (48 << 20).to_string());

    let own = format!("csi: {{driver: {DRIVER}, volumeAttributes: {{size: \"8388608\"}}}}");
    cluster.apply(&pod("brings", "node-1", &own, "cat /v/pod; echo", ""))?;
    ready(&cluster, "brings")?;
    says(&cluster, "brings", "brings\n")?;
    cluster.kubectl("delete pod brings block reader")?.ok()?;
    wait::until("nothing mounted", || {
        Ok(mounts_below(&nodes, "kubernetes.io~csi")? == 0)
    })?;

    // A driver that is gone is named.
    cluster.apply(&pod(
        "waits",
        "node-1",
        "csi: {driver: none.example.com}",
        "true",
        "",
    ))?;
    wait::until("the event", || {
        let events = cluster
            .kubectl("get events --field-selector reason=FailedMount")?
            .ok()?;
        Ok(events.contains("none.example.com"))
    })?;
    drop(drivers);
    Ok(())
}

/// The driver as others bring theirs: in a pod of each node, with upstream's paths. Its programs are
/// the host's.
fn daemon_set(program: &Path, pool: &Path) -> String {
    let (program, pool) = (program.display(), pool.display());
    format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: driver}}
spec:
  selector: {{matchLabels: {{app: driver}}}}
  template:
    metadata: {{labels: {{app: driver}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: driver
        image: busybox:test
        imagePullPolicy: Never
        command: [/driver, {DRIVER}, $(NODE), /pool, /var/lib/kubelet]
        securityContext: {{privileged: true}}
        env:
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        - {{name: PATH, value: '/usr/sbin:/usr/bin'}}
        volumeMounts:
        - {{name: plugins, mountPath: /var/lib/kubelet/plugins, mountPropagation: Bidirectional}}
        - {{name: pods, mountPath: /var/lib/kubelet/pods, mountPropagation: Bidirectional}}
        - {{name: registry, mountPath: /var/lib/kubelet/plugins_registry}}
        - {{name: dev, mountPath: /dev}}
        - {{name: usr, mountPath: /usr, readOnly: true}}
        - {{name: lib, mountPath: /lib, readOnly: true}}
        - {{name: lib64, mountPath: /lib64, readOnly: true}}
        - {{name: program, mountPath: /driver, readOnly: true}}
        - {{name: pool, mountPath: /pool}}
      volumes:
      - {{name: plugins, hostPath: {{path: /var/lib/kubelet/plugins, type: DirectoryOrCreate}}}}
      - {{name: pods, hostPath: {{path: /var/lib/kubelet/pods, type: Directory}}}}
      - {{name: registry, hostPath: {{path: /var/lib/kubelet/plugins_registry, type: Directory}}}}
      - {{name: dev, hostPath: {{path: /dev}}}}
      - {{name: usr, hostPath: {{path: /usr}}}}
      - {{name: lib, hostPath: {{path: /usr/lib}}}}
      - {{name: lib64, hostPath: {{path: /usr/lib64}}}}
      - {{name: program, hostPath: {{path: '{program}', type: File}}}}
      - {{name: pool, hostPath: {{path: '{pool}', type: DirectoryOrCreate}}}}
"
    )
}

#[test]
fn a_driver_comes_by_its_manifest() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    cluster.load_busybox()?;
    // Of its processes there are none here; its devices go with it.
    let pool = cluster.data_dir().join("csi-pool");
    let held = Drivers::of_others(pool.clone());
    let program = Path::new(env!("CARGO_BIN_EXE_peapod-test-csi"));
    cluster.apply(&daemon_set(program, &pool))?;
    cluster.apply(&about_driver(false))?;
    let node = cluster.field("node", "{.items[0].metadata.name}")?;
    wait::until("the driver's registration", || {
        let there = registered(&cluster, &node).unwrap_or(false);
        let logs = || {
            cluster
                .kubectl("logs ds/driver --tail=5")
                .map(|run| run.stdout)
        };
        if there {
            Ok(true)
        } else {
            Err(anyhow::anyhow!("not registered: {:?}", logs()))
        }
    })?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(make_volumes(&cluster, &node, &["a"]))?;
    cluster.apply(&volume("files", "vol-a", "Filesystem", "32Mi", ""))?;
    cluster.apply(&pod(
        "writer",
        &node,
        &claimed("files"),
        "echo kept >/v/file; cat /v/file",
        "",
    ))?;
    ready(&cluster, "writer")?;
    says(&cluster, "writer", "kept\n")?;
    let pods = cluster.data_dir().join("node/pods");
    assert!(mounts_below(&pods, "kubernetes.io~csi/files/mount")? > 0);

    // The pod waits for its driver to take the volume away, and both are gone then.
    cluster.kubectl("delete pod writer")?.ok()?;
    let staged = cluster.data_dir().join("node/plugins");
    wait::until("the end of the stage", || {
        Ok(mounts_below(&staged, "globalmount")? == 0)
    })?;
    assert_eq!(mounts_below(&pods, "kubernetes.io~csi/files/mount")?, 0);

    // A driver that goes is not on the node any more.
    let socket = format!("node/plugins_registry/{DRIVER}-reg.sock");
    cluster.kubectl("delete ds driver")?.ok()?;
    std::fs::remove_file(cluster.data_dir().join(socket))?;
    wait::until("the driver's end", || {
        Ok(cluster
            .field(&format!("csinode/{node}"), "{.spec.drivers}")?
            .trim_matches(['[', ']'])
            .is_empty())
    })?;
    drop(held);
    Ok(())
}
