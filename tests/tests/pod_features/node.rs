//! What the node is told beside the API: its settings in `kubelet.yaml`, static pods; and the OCI
//! runtimes that pods choose.

use std::path::Path;

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'echo said: $WORD; sleep 10000']
    env: [{name: WORD, value: first}]
";

fn pod(name: &str, sysctl: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  securityContext: {{sysctls: [{{name: {sysctl}, value: '1'}}]}}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'cat /proc/sys/{}']
---
",
        sysctl.replace('.', "/")
    )
}

/// Starts the agent anew with these settings.
fn restart_with(cluster: &Cluster, settings: &str, manifests: &Path) -> Result<()> {
    cluster.crash()?;
    let text = format!("staticPodPath: {}\n{settings}", manifests.display());
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), text)?;
    cluster.start().map(drop)
}

#[test]
fn a_node_has_settings_and_pods_of_its_own() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let node = cluster.field("node", "{.items[0].metadata.name}")?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("web.yaml");
    std::fs::write(&file, MANIFEST)?;
    let settings = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
allowedUnsafeSysctls: ['kernel.msg*']
imageGCHighThresholdPercent: 1
imageGCLowThresholdPercent: 0
imageMinimumGCAge: '0'
";
    restart_with(&cluster, settings, dir.path())?;

    // The pod of the file, and its copy in the API.
    let name = format!("web-{node}");
    let said = |word: &str| {
        let logs = cluster.kubectl(&format!("logs {name}"))?;
        Ok(logs
            .ok()
            .is_ok_and(|text| text == format!("said: {word}\n")))
    };
    wait::until("the static pod", || said("first"))?;
    ready(&cluster, &name)?;
    let object = format!("pod/{name}");
    let id = || cluster.field(&object, "{.status.containerStatuses[0].containerID}");
    let uid = || cluster.field(&object, "{.metadata.uid}");
    let (first, copy) = (id()?, uid()?);
    assert_eq!(
        cluster.field(&object, "{.metadata.ownerReferences[0].kind}")?,
        "Node"
    );
    // The copy can be deleted; the pod runs on and is copied anew.
    cluster
        .kubectl(&format!("delete pod {name} --wait=false"))?
        .ok()?;
    wait::until("another copy", || {
        let present = cluster.kubectl(&format!("get {object}"))?.ok().is_ok();
        Ok(present && uid()? != copy && id()? == first)
    })?;
    // So does it when the agent dies.
    cluster.crash()?;
    cluster.start()?;
    ready(&cluster, &name)?;
    assert_eq!(id()?, first);

    // Images that nobody uses have gone, this one has not.
    wait::until("room on the disk", || {
        let images = cluster.peapod(["image", "list"])?.ok()?;
        Ok(!images.contains("demo") && images.contains("busybox"))
    })?;

    // Sysctls: safe, allowed by the settings, neither.
    let all = pod("safe", "kernel.shm_rmid_forced")
        + &pod("allowed", "kernel.msgmnb")
        + &pod("refused", "net.core.somaxconn");
    cluster.apply(&all)?;
    for name in ["safe", "allowed"] {
        wait::until("a sysctl's value", || {
            let logs = cluster.kubectl(&format!("logs {name}"))?;
            Ok(logs.ok().is_ok_and(|text| text.trim() == "1"))
        })?;
    }
    wait::until("the refusal", || {
        let reason = cluster.field("pod/refused", "{.status.phase}/{.status.reason}")?;
        Ok(reason == "Failed/SysctlForbidden")
    })?;
    wait::until("the event that tells of it", || {
        let events = "get events --field-selector reason=SysctlForbidden,involvedObject.name=refused -o name";
        Ok(!cluster.kubectl(events)?.ok()?.is_empty())
    })?;

    // A changed file is another pod, a file that is gone is none.
    std::fs::write(&file, MANIFEST.replace("first", "second"))?;
    wait::until("the changed pod", || said("second"))?;
    std::fs::remove_file(&file)?;
    wait::until("the end of the pod", || {
        let left = cluster.kubectl("get pod -l app=web -o name")?.ok()?;
        Ok(left.is_empty())
    })?;

    // Settings that are not understood are refused by name.
    cluster.stop()?;
    std::fs::write(cluster.data_dir().join("kubelet.yaml"), "noSuchThing: 1")?;
    let refused = cluster.try_start::<&str>(&[])?.ok();
    let text = format!("{:?}{}", refused, cluster.log());
    assert!(refused.is_err() && text.contains("noSuchThing"), "{text}");
    Ok(())
}

#[test]
fn a_runtime_class_chooses_the_runtime() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let pod = |name: &str, class: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  runtimeClassName: {class}
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {{limits: {{cpu: 100m, memory: 32Mi}}}}
---
"
        )
    };
    let class = |name: &str, handler: &str| {
        format!(
            "
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: {name}}}
handler: {handler}
overhead: {{podFixed: {{memory: 16Mi}}}}
---
"
        )
    };
    cluster.apply(&(class("plain", "runc") + &class("absent", "no-such-runtime")))?;
    cluster.apply(&(pod("web", "plain") + &pod("stuck", "absent")))?;
    ready(&cluster, "web")?;
    let uid = cluster.field("pod/web", "{.metadata.uid}")?;
    let limit = crate::resize::limit(&format!("pod{uid}"), "memory")?;
    assert_eq!(limit, 48 << 20, "with the class's overhead");
    wait::until("the reason", || {
        let line = "get events --field-selector involvedObject.name=stuck";
        let events = cluster.kubectl(line)?.ok()?;
        Ok(events.contains("no runtime for \"no-such-runtime\" is configured"))
    })?;
    let handlers = cluster.field("node", "{.items[0].status.runtimeHandlers[*].name}")?;
    assert!(handlers.contains("runc"), "{handlers}");
    Ok(())
}
