//! A claim's whole life: the controllers and the driver make, attach, move, copy, grow and delete its
//! volume, for pods on two nodes.

use std::path::Path;

use anyhow::Result;
use peapod_tests::{Cluster, command, wait};

use crate::drivers::{Drivers, registered};
use crate::pods::{about_driver, mounts_below, ready, says};

const SNAPSHOTS: &str = include_str!("../../../examples/csi/snapshots.yaml");

const CLASSES: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: disks}
provisioner: disk.csi.example.com
reclaimPolicy: Delete
allowVolumeExpansion: true
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {name: disks}
driver: disk.csi.example.com
deletionPolicy: Delete
";

fn claim(name: &str, mode: &str, further: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: disks
  volumeMode: {mode}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 32Mi}}}}
  {further}
---
"
    )
}

/// A pod that the scheduler puts on a node, for a claim of that name waits for it.
fn pod(name: &str, node: &str, claim: &str, does: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, '{does}; sleep 100000']
    volumeMounts: [{{name: v, mountPath: /v}}]
  volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]
---
"
    )
}

/// The loop devices of the driver's files.
fn devices(pool: &Path) -> Result<usize> {
    let list = command::run("losetup", ["--noheadings", "-O", "BACK-FILE"])?.stdout;
    let pool = pool.to_string_lossy().into_owned();
    Ok(list.lines().filter(|line| line.contains(&pool)).count())
}

#[test]
fn a_volume_is_made_moves_with_its_pod_and_is_copied() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "2"])?;
    cluster.load_busybox()?;
    let drivers = Drivers::start(&cluster, &["node-1", "node-2"])?;
    for node in ["node-1", "node-2"] {
        wait::until("the driver's registration", || {
            Ok(registered(&cluster, node).unwrap_or(false))
        })?;
    }
    cluster.apply(SNAPSHOTS)?;
    wait::until("the kinds of snapshots", || {
        Ok(cluster.kubectl("get volumesnapshots")?.ok().is_ok())
    })?;
    cluster.apply(&about_driver(true))?;
    cluster.apply(CLASSES)?;

    // Made for the first pod, on its node, and attached there.
    cluster.apply(&claim("data", "Filesystem", ""))?;
    cluster.apply(&pod("writer", "node-1", "data", "echo kept > /v/file"))?;
    ready(&cluster, "writer")?;
    let volume = cluster.field("pvc/data", "{.spec.volumeName}")?;
    let attached = || {
        let path = "{.items[*].spec.nodeName}/{.items[*].status.attached}";
        cluster.field("volumeattachments", path)
    };
    assert_eq!(attached()?.trim(), "node-1/true");

    // It moves with its pod: taken from the one node before the other has it.
    cluster.kubectl("delete pod writer --wait=false")?.ok()?;
    cluster.apply(&pod("reader", "node-2", "data", "cat /v/file"))?;
    ready(&cluster, "reader")?;
    says(&cluster, "reader", "kept\n")?;
    wait::until("the end of the first attachment", || {
        Ok(attached()?.trim() == "node-2/true")
    })?;

    // A snapshot and a clone have what it had; the one of before does not see what comes after.
    let snapshot = "
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: before}
spec: {volumeSnapshotClassName: disks, source: {persistentVolumeClaimName: data}}
";
    cluster.apply(snapshot)?;
    wait::until("the snapshot", || {
        Ok(cluster.field("volumesnapshot/before", "{.status.readyToUse}")? == "true")
    })?;
    let write = [
        "exec",
        "reader",
        "--",
        "sh",
        "-c",
        "echo changed > /v/file; sync",
    ];
    cluster.kubectl_with(&write, None)?.ok()?;
    let restored =
        "dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: before}";
    let cloned = "dataSource: {kind: PersistentVolumeClaim, name: data}";
    cluster.apply(
        &(claim("restored", "Filesystem", restored)
            + &claim("cloned", "Filesystem", cloned)
            + &pod("old", "node-1", "restored", "cat /v/file")
            + &pod("new", "node-1", "cloned", "cat /v/file")),
    )?;
    ready(&cluster, "old")?;
    ready(&cluster, "new")?;
    says(&cluster, "old", "kept\n")?;
    says(&cluster, "new", "changed\n")?;

    // A device grows under its pod.
    let block = pod("block", "node-2", "raw", "true").replace(
        "volumeMounts: [{name: v, mountPath: /v}]",
        "volumeDevices: [{name: v, devicePath: /dev/vol}]",
    );
    cluster.apply(&(claim("raw", "Block", "") + &block))?;
    ready(&cluster, "block")?;
    let larger = r#"{"spec":{"resources":{"requests":{"storage":"48Mi"}}}}"#;
    cluster
        .kubectl_with(&["patch", "pvc", "raw", "-p", larger], None)?
        .ok()?;
    wait::until("the claim's new size", || {
        let path = "{.status.capacity.storage}/{.status.conditions[*].type}";
        Ok(cluster.field("pvc/raw", path)? == "48Mi/")
    })?;

    // What is deleted is gone everywhere.
    cluster
        .kubectl("delete pod reader old new block --timeout=90s")?
        .ok()?;
    cluster
        .kubectl("delete pvc cloned restored raw --timeout=60s")?
        .ok()?;
    cluster
        .kubectl("delete volumesnapshot before --timeout=60s")?
        .ok()?;
    wait::until("the end of the volumes", || {
        let left = cluster.field("pv", "{.items[*].metadata.name}")?;
        Ok(left == volume && attached()? == "/")
    })?;
    let pool = cluster.data_dir().join("csi-pool");
    let images = || {
        let entries = std::fs::read_dir(&pool)?;
        let names = entries.flatten().map(|entry| entry.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        Ok::<_, anyhow::Error>(names.filter(|name| name.ends_with(".img")).count())
    };
    wait::until("the end of their data", || Ok(images()? == 1))?;

    // Whoever takes the cluster away lets the driver let go first.
    cluster.apply(&pod("last", "node-1", "data", "cat /v/file"))?;
    ready(&cluster, "last")?;
    says(&cluster, "last", "changed\n")?;
    assert!(devices(&pool)? > 0);
    cluster.purge()?;
    assert_eq!(devices(&pool)?, 0, "the driver still holds a device");
    assert_eq!(mounts_below(cluster.data_dir(), "")?, 0);
    drop(drivers);
    Ok(())
}
