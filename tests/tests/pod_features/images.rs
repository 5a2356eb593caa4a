//! Images as volumes, and what the node tells of its pods' use.

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: viewer}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - name: tools
    image: {reference: 'peapod.dev/demo:v1', pullPolicy: Never}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'ls /tools/bin; echo x > /tools/new || echo refused; sleep 10000']
    readinessProbe: {exec: {command: ['true']}, periodSeconds: 1}
    volumeMounts: [{name: tools, mountPath: /tools}]
---
apiVersion: v1
kind: Pod
metadata: {name: without}
spec:
  volumes:
  - name: tools
    image: {reference: 'example.com/absent:v1', pullPolicy: Never}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    volumeMounts: [{name: tools, mountPath: /tools}]
";

#[test]
fn an_image_is_a_volume_and_its_pod_is_measured() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(POD)?;
    ready(&cluster, "viewer")?;
    wait::until("the files of the image", || {
        let said = cluster.kubectl("logs viewer")?.ok()?;
        Ok(said.contains("demo") && said.contains("refused"))
    })?;
    let events = |pod: &str| {
        let line = format!("get events --field-selector involvedObject.name={pod}");
        cluster.kubectl(&line)?.ok()
    };
    wait::until("what is missing", || {
        Ok(events("without")?.contains("ErrImageNeverPull"))
    })?;

    let node = cluster.field("node", "{.items[0].metadata.name}")?;
    let metrics = |path: &str| {
        let line = format!("get --raw /api/v1/nodes/{node}/proxy/{path}");
        cluster.kubectl(&line)?.ok()
    };
    let cadvisor = metrics("metrics/cadvisor")?;
    let has = |name: &str, label: &str| {
        let mut lines = cadvisor.lines();
        lines.any(|line| {
            line.starts_with(name) && line.contains("pod=\"viewer\"") && line.contains(label)
        })
    };
    assert!(
        has("container_memory_working_set_bytes", "container=\"c\""),
        "{cadvisor}"
    );
    assert!(
        has("container_cpu_usage_seconds_total", "container=\"\""),
        "{cadvisor}"
    );
    assert!(
        has(
            "container_network_receive_bytes_total",
            "interface=\"eth0\""
        ),
        "{cadvisor}"
    );
    wait::until("the probe's count", || {
        let probes = metrics("metrics/probes")?;
        let mut lines = probes.lines();
        Ok(lines.any(|line| {
            line.starts_with("prober_probe_total") && line.contains("probe_type=\"Readiness\"")
        }))
    })?;
    let summary: serde_json::Value = serde_json::from_str(&metrics("stats/summary")?)?;
    let pods = summary["pods"].as_array().cloned().unwrap_or_default();
    let viewer = pods
        .iter()
        .find(|pod| pod["podRef"]["name"] == "viewer")
        .expect("it runs");
    assert!(viewer["network"]["interfaces"].is_array(), "{viewer}");
    for place in ["rootfs", "logs"] {
        let own = &viewer["containers"][0][place];
        assert!(
            own["usedBytes"].as_u64() > Some(0) && own["inodes"].is_u64(),
            "{viewer}"
        );
    }

    cluster.kubectl("delete pod viewer without --force")?.ok()?;
    wait::until("the end of the mounts", || {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let below = cluster.data_dir().join("node/pods");
        Ok(!mounts.contains(&*below.to_string_lossy()))
    })
}
