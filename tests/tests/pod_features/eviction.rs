//! What must be left of a node, as its settings say it, and who goes otherwise.

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'trap \"\" TERM; while true; do sleep 1; done']
    resources: {requests: {memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'trap \"\" TERM; while true; do sleep 1; done']
";

#[test]
fn a_soft_threshold_is_honoured() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(PODS)?;
    ready(&cluster, "modest")?;
    ready(&cluster, "greedy")?;
    let node = cluster.field("node", "{.items[0].metadata.name}")?;
    let settings = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionSoft: {memory.available: '99.9%'}
evictionSoftGracePeriod: {memory.available: 5s}
evictionMaxPodGracePeriod: 2
";
    cluster.crash()?;
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), settings)?;
    cluster.start()?;
    let pressure = "{.status.conditions[?(@.type==\"MemoryPressure\")].status}";
    wait::until("the condition", || {
        Ok(cluster.field(&format!("node/{node}"), pressure)? == "True")
    })?;
    // Who uses more than it asked for goes first, with what it has asked of time cut short.
    wait::until("the eviction", || {
        Ok(cluster.field("pod/greedy", "{.status.phase}/{.status.reason}")? == "Failed/Evicted")
    })?;
    let message = cluster.field("pod/greedy", "{.status.message}")?;
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: "),
        "{message}"
    );
    let container = "{.status.containerStatuses[0].state.terminated";
    let code = cluster.field("pod/greedy", &format!("{container}.exitCode}}"))?;
    assert_eq!(
        code, "137",
        "it did not end by itself within its two seconds"
    );

    // Settings that say nothing sensible are refused by name.
    cluster.stop()?;
    std::fs::write(
        cluster.data_dir().join("kubelet.yaml"),
        "evictionHard: {memory.free: 1Mi}",
    )?;
    let refused = cluster.try_start::<&str>(&[])?.ok();
    let text = format!("{refused:?}{}", cluster.log());
    assert!(refused.is_err() && text.contains("memory.free"), "{text}");
    Ok(())
}
