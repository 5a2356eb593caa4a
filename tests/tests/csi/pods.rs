//! Volumes, the pods that use them, and what is seen of both.

use std::path::Path;

use anyhow::{Context, Result};
use peapod_tests::{Cluster, wait};

use crate::drivers::DRIVER;

/// The driver's own object; what it makes has to be attached only if `attach`.
pub fn about_driver(attach: bool) -> String {
    format!(
        "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {{name: {DRIVER}}}
spec:
  attachRequired: {attach}
  podInfoOnMount: true
  fsGroupPolicy: File
  volumeLifecycleModes: [Persistent, Ephemeral]
"
    )
}

/// A volume made by hand, and a claim that it is bound to.
pub fn volume(name: &str, handle: &str, mode: &str, size: &str, secret: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: {size}}}
  accessModes: [ReadWriteOnce]
  volumeMode: {mode}
  persistentVolumeReclaimPolicy: Retain
  storageClassName: by-hand
  claimRef: {{namespace: default, name: {name}}}
  csi:
    driver: {DRIVER}
    volumeHandle: {handle}
    volumeAttributes: {{kind: by-hand{word}}}
    {secret}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  volumeMode: {mode}
  storageClassName: by-hand
  volumeName: {name}
  resources: {{requests: {{storage: {size}}}}}
",
        word = if secret.is_empty() {
            ""
        } else {
            ", needs-secret: sesame"
        },
    )
}

/// A pod on a node that does something with a volume and sleeps.
pub fn pod(name: &str, node: &str, volume: &str, does: &str, further: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  {further}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, '{does}; sleep 100000']
    volumeMounts: [{{name: v, mountPath: /v}}]
  volumes:
  - name: v
    {volume}
"
    )
}

/// What a pod says of a volume by its claim.
pub fn claimed(claim: &str) -> String {
    format!("persistentVolumeClaim: {{claimName: {claim}}}")
}

/// Waits until a pod is ready; else tells the events.
pub fn ready(cluster: &Cluster, pod: &str) -> Result<()> {
    let wait = format!("wait --for=condition=Ready --timeout=90s pod/{pod}");
    let waited = cluster.kubectl(&wait)?.ok();
    let events = || cluster.kubectl("get events -o custom-columns=:.reason,:.message");
    waited
        .map(drop)
        .with_context(|| events().map(|run| run.stdout).unwrap_or_default())
}

/// Waits until a pod has said just this: it is ready a moment before.
pub fn says(cluster: &Cluster, pod: &str, words: &str) -> Result<()> {
    let logs = format!("logs {pod}");
    wait::until(&format!("the words of {pod}"), || {
        Ok(cluster.kubectl(&logs)?.ok()? == words)
    })
}

/// Runs a script in a pod.
pub fn exec(cluster: &Cluster, pod: &str, command: &str) -> Result<String> {
    cluster
        .kubectl_with(&["exec", pod, "--", "sh", "-c", command], None)?
        .ok()
}

/// The mounts of the machine below a path.
pub fn mounts_below(dir: &Path, word: &str) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let dir = dir.to_string_lossy();
    let below = table
        .lines()
        .filter(|line| line.contains(&*dir) && line.contains(word));
    Ok(below.count())
}
