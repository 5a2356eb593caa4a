//! Resources of a whole pod (`spec.resources`), and their change in place.

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;
use crate::resize::limit;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  resources: {requests: {cpu: 150m, memory: 64Mi}, limits: {cpu: 300m, memory: 64Mi}}
  containers:
  - name: free
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
  - name: bound
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 100m, memory: 32Mi}}
";

fn resize(cluster: &Cluster, resources: &str) -> Result<String> {
    let patch = format!(r#"{{"spec":{{"resources":{resources}}}}}"#);
    let args = [
        "patch",
        "pod",
        "whole",
        "--subresource=resize",
        "-p",
        &patch,
    ];
    cluster.kubectl_with(&args, None)?.ok()
}

#[test]
fn a_pod_has_resources_as_a_whole() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(POD)?;
    ready(&cluster, "whole")?;
    let field = |path: &str| cluster.field("pod/whole", &format!("{{{path}}}"));
    let group = format!("pod{}", field(".metadata.uid")?);
    let id = |name: &str| {
        let path = format!(".status.containerStatuses[?(@.name==\"{name}\")].containerID");
        Ok::<_, anyhow::Error>(field(&path)?.trim_start_matches("containerd://").to_owned())
    };
    assert_eq!(field(".status.qosClass")?, "Burstable");
    assert_eq!(
        (limit(&group, "cpu")?, limit(&group, "memory")?),
        (30_000, 64 << 20)
    );
    let (free, bound) = (id("free")?, id("bound")?);
    // A container without a limit has the pod's; one with a limit keeps its own.
    assert_eq!(limit(&bound, "memory")?, 32 << 20);
    assert!(limit(&free, "memory").map_or(true, |own| own > 64 << 20));
    assert_eq!(field(".status.resources.limits.cpu")?, "300m");
    assert_eq!(field(".status.allocatedResources.memory")?, "64Mi");

    // The scheduler counts what the pod asks for, not what its containers do.
    let node = field(".spec.nodeName")?;
    let described = cluster.kubectl(&format!("describe node {node}"))?.ok()?;
    let line = described
        .lines()
        .find(|line| line.contains("whole"))
        .unwrap_or_default();
    assert!(
        line.contains("150m") && line.contains("64Mi"),
        "{described}"
    );

    // Larger and smaller, without a restart.
    for (cpu, mib, quota) in [("500m", 96, 50_000), ("400m", 80, 40_000)] {
        let wanted = format!(
            r#"{{"requests":{{"cpu":"200m","memory":"{mib}Mi"}},"limits":{{"cpu":"{cpu}","memory":"{mib}Mi"}}}}"#
        );
        resize(&cluster, &wanted)?;
        wait::until("the pod's new size", || {
            let told = field(".status.resources.limits.cpu")? == cpu;
            let over = field(".status.conditions[?(@.type==\"PodResizeInProgress\")].status")?;
            let sizes = (limit(&group, "cpu")?, limit(&group, "memory")?);
            Ok(told && over.is_empty() && sizes == (quota, mib << 20))
        })?;
    }
    assert_eq!(field(".status.allocatedResources.cpu")?, "200m");
    assert_eq!((id("free")?, id("bound")?), (free.clone(), bound.clone()));

    // What its containers need it cannot go below.
    let refused = resize(&cluster, r#"{"requests":{"cpu":"10m"}}"#).unwrap_err();
    let text = format!("{refused:#}");
    assert!(
        text.contains("aggregate container requests of 50m"),
        "{text}"
    );

    // A new agent knows what was given.
    cluster.crash()?;
    cluster.start()?;
    assert_eq!(field(".status.resources.limits.cpu")?, "400m");
    assert_eq!((limit(&group, "cpu")?, id("free")?), (40_000, free));
    Ok(())
}
