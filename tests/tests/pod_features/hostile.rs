//! Pods that harm their node: each is contained, said by name, and cleaned up.

use std::path::Path;

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

fn pod(name: &str, script: &str, further: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, '{script}']
    {further}
---
"
    )
}

fn events(cluster: &Cluster, pod: &str) -> Result<String> {
    let line = format!("get events --field-selector involvedObject.name={pod}");
    cluster.kubectl(&line)?.ok()
}

fn size_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    sizes
        .map(|(path, meta)| {
            if meta.is_dir() {
                size_of(&path)
            } else {
                meta.len()
            }
        })
        .sum()
}

#[test]
fn a_pod_that_harms_is_contained() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.crash()?;
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), "podPidsLimit: 64")?;
    cluster.start()?;
    let node = cluster.field("node", "{.items[0].metadata.name}")?;
    cluster.apply(&(pod("neighbour", "sleep 10000", "")
        + &pod("bomb", "(while true; do sleep 4320 & done); exec sleep 10000", "")
        + &pod("burst", "for i in $(seq 100); do sleep 4319 & done", "")
            .replace("spec:\n", "spec:\n  restartPolicy: Never\n")
        + &pod("flood", "dd if=/dev/zero bs=64k count=4096; sleep 10000", "")
        + &pod("deaf", "trap \"\" TERM INT; while true; do sleep 1; done", "")
        + &pod("hung", "sleep 10000",
            "livenessProbe: {exec: {command: [sleep, '4321']}, timeoutSeconds: 1, periodSeconds: 1, failureThreshold: 1000}")))?;
    ready(&cluster, "neighbour")?;

    // A fork bomb has so many processes and no more, and is told of.
    let uid = cluster.field("pod/bomb", "{.metadata.uid}")?;
    let count = || crate::resize::number(&format!("pod{uid}"), "pids", "pids.current");
    wait::until("the bomb", || Ok(count()? >= 60))?;
    assert!(count()? <= 64, "{}", count()?);
    wait::until("the event", || {
        let said = events(&cluster, "bomb")?;
        Ok(said.contains("PIDLimitReached") && said.contains("limit of 64 processes"))
    })?;

    // One that has ended long before anybody looks is told of, too.
    wait::until("the event of a short bomb", || {
        Ok(events(&cluster, "burst")?.contains("PIDLimitReached"))
    })?;

    // What is written without end is cut; the rest of the log is there.
    let logs = cluster.data_dir().join("logs");
    wait::until("the end of the flood", || {
        let said = cluster.kubectl("logs flood --tail=3")?.ok()?;
        Ok(said.contains("4096+0 records out"))
    })?;
    let size = size_of(&logs);
    assert!(size < 80 << 20, "{} MiB of logs", size >> 20);

    // A probe that hangs fails in time, is named, and leaves no processes behind.
    wait::until("the hanging probe", || {
        Ok(events(&cluster, "hung")?.contains("timed out"))
    })?;
    let args = [
        "exec",
        "hung",
        "--",
        "sh",
        "-c",
        "ps -o args | grep -c \"^sleep 4321\" || true",
    ];
    let left: u32 = cluster.kubectl_with(&args, None)?.ok()?.trim().parse()?;
    assert!(left <= 2, "{left} probes hang");

    // The node and its other pods are well, and all of it can be deleted.
    let well = cluster.field(
        &format!("node/{node}"),
        "{.status.conditions[?(@.type==\"Ready\")].status}",
    )?;
    assert_eq!(well, "True");
    assert_eq!(
        cluster.kubectl("exec neighbour -- echo well")?.ok()?,
        "well\n"
    );
    cluster
        .kubectl("delete pod bomb burst flood deaf hung neighbour --timeout=60s")?
        .ok()?;
    wait::until("the end of the bomb", || Ok(count().is_err()))
}

#[test]
fn a_link_in_a_volume_leads_out_of_it_nowhere() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let volume = cluster.data_dir().join("shared");
    std::fs::create_dir(&volume)?;
    std::os::unix::fs::symlink("/etc", volume.join("way"))?;
    let mount = format!(
        "volumeMounts: [{{name: v, mountPath: /v, subPath: way}}]
  volumes: [{{name: v, hostPath: {{path: {}}}}}]",
        volume.display()
    );
    cluster.apply(&pod("thief", "cat /v/shadow; sleep 10000", &mount))?;
    wait::until("the refusal", || {
        let said = events(&cluster, "thief")?;
        Ok(said.contains("subPath"))
    })?;
    let state = "{.status.containerStatuses[0].state.waiting.reason}";
    assert_eq!(
        cluster.field("pod/thief", state)?,
        "CreateContainerConfigError"
    );
    cluster.kubectl("delete pod thief --timeout=60s")?.ok()?;
    Ok(())
}
