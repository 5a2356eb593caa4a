//! In-place resize: what a running container may use changes under it, by `/resize`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use peapod_tests::{Cluster, wait};

use crate::ready;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}
  - name: db
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 100m, memory: 32Mi}}
    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]
";

/// The directory below a cgroup hierarchy whose name is, or ends in, `name`.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if entry.file_name().to_string_lossy().ends_with(name) {
            return Some(path);
        }
        if let Some(found) = find(&path, name) {
            return Some(found);
        }
    }
    None
}

/// The first number of a limit in the kernel: CPU quota of 100 ms, or memory in bytes.
pub fn limit(group: &str, resource: &str) -> Result<i64> {
    let root = Path::new("/sys/fs/cgroup");
    let v2 = root.join("cgroup.controllers").exists();
    let (root, file) = match (v2, resource) {
        (true, "cpu") => (root.to_path_buf(), "cpu.max"),
        (true, _) => (root.to_path_buf(), "memory.max"),
        (false, "cpu") => (root.join("cpu"), "cpu.cfs_quota_us"),
        (false, _) => (root.join("memory"), "memory.limit_in_bytes"),
    };
    let dir = find(&root, group).with_context(|| format!("no cgroup is called {group}"))?;
    let text = std::fs::read_to_string(dir.join(file))?;
    Ok(text.split_whitespace().next().context("empty")?.parse()?)
}

/// A number in a file of a cgroup, with the controller that has it in the first version.
pub fn number(group: &str, controller: &str, file: &str) -> Result<i64> {
    let root = Path::new("/sys/fs/cgroup");
    let v2 = root.join("cgroup.controllers").exists();
    let root = if v2 {
        root.to_path_buf()
    } else {
        root.join(controller)
    };
    let dir = find(&root, group).with_context(|| format!("no cgroup is called {group}"))?;
    Ok(std::fs::read_to_string(dir.join(file))?.trim().parse()?)
}

fn status(cluster: &Cluster, container: &str, field: &str) -> Result<String> {
    let path = format!("{{.status.containerStatuses[?(@.name==\"{container}\")].{field}}}");
    cluster.field("pod/sized", &path)
}

fn id(cluster: &Cluster, container: &str) -> Result<String> {
    let id = status(cluster, container, "containerID")?;
    Ok(id.trim_start_matches("containerd://").to_owned())
}

fn resize(cluster: &Cluster, container: &str, cpu: &str, memory: &str) -> Result<()> {
    let amounts = format!(r#"{{"cpu":"{cpu}","memory":"{memory}"}}"#);
    let patch = format!(
        r#"{{"spec":{{"containers":[{{"name":"{container}","resources":{{"requests":{amounts},"limits":{amounts}}}}}]}}}}"#
    );
    let args = [
        "patch",
        "pod",
        "sized",
        "--subresource=resize",
        "-p",
        &patch,
    ];
    cluster.kubectl_with(&args, None)?.ok().map(drop)
}

fn condition(cluster: &Cluster, kind: &str, field: &str) -> Result<String> {
    let path = format!("{{.status.conditions[?(@.type==\"{kind}\")].{field}}}");
    cluster.field("pod/sized", &path)
}

#[test]
fn a_pod_is_resized_in_place() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    cluster.apply(POD)?;
    ready(&cluster, "sized")?;
    let pod = format!("pod{}", cluster.field("pod/sized", "{.metadata.uid}")?);
    let app = id(&cluster, "app")?;
    assert_eq!(limit(&app, "cpu")?, 10_000);
    assert_eq!(limit(&pod, "memory")?, 64 << 20);

    // Larger, and smaller again.
    for (cpu, memory, quota, mib) in [("200m", "48Mi", 20_000, 48), ("150m", "40Mi", 15_000, 40)] {
        resize(&cluster, "app", cpu, memory)?;
        wait::until("the container's new size", || {
            let told = status(&cluster, "app", "resources.limits.cpu")? == cpu;
            Ok(told && limit(&app, "cpu")? == quota && limit(&app, "memory")? == mib << 20)
        })?;
        wait::until("the end of the change", || {
            let done = condition(&cluster, "PodResizeInProgress", "status")?.is_empty();
            Ok(done && limit(&pod, "memory")? == (mib + 32) << 20)
        })?;
        assert_eq!(limit(&pod, "cpu")?, quota + 10_000);
    }
    assert_eq!(status(&cluster, "app", "restartCount")?, "0");
    assert_eq!(status(&cluster, "app", "allocatedResources.cpu")?, "150m");

    // Memory of this container changes by a restart only, its CPU does not need one.
    resize(&cluster, "db", "120m", "32Mi")?;
    wait::until("more CPU", || {
        Ok(limit(&id(&cluster, "db")?, "cpu")? == 12_000)
    })?;
    assert_eq!(status(&cluster, "db", "restartCount")?, "0");
    resize(&cluster, "db", "120m", "64Mi")?;
    wait::until("the restart", || {
        Ok(status(&cluster, "db", "restartCount")? == "1")
    })?;
    ready(&cluster, "sized")?;
    assert_eq!(limit(&id(&cluster, "db")?, "memory")?, 64 << 20);

    // What the node can never give is said, and changes nothing.
    resize(&cluster, "app", "1000", "40Mi")?;
    wait::until("the refusal", || {
        Ok(condition(&cluster, "PodResizePending", "reason")? == "Infeasible")
    })?;
    assert_eq!(limit(&app, "cpu")?, 15_000);
    assert_eq!(status(&cluster, "app", "resources.limits.cpu")?, "150m");

    // A new agent finds it as it was, and what is desired then is given.
    cluster.crash()?;
    cluster.start()?;
    assert_eq!(status(&cluster, "app", "resources.limits.cpu")?, "150m");
    resize(&cluster, "app", "180m", "40Mi")?;
    wait::until("the last size", || {
        let over = condition(&cluster, "PodResizePending", "status")?.is_empty();
        Ok(over && limit(&app, "cpu")? == 18_000)
    })?;
    assert_eq!(id(&cluster, "app")?, app);
    Ok(())
}

#[test]
fn a_resize_waits_for_room() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let node = cluster.field("node", "{.items[0].status.allocatable.cpu}")?;
    let all: u32 = match node.strip_suffix('m') {
        Some(milli) => milli.parse()?,
        None => node.parse::<u32>()? * 1000,
    };
    let half = format!("{}m", all / 2 - 100);
    let more = format!("{}m", all / 2 + 200);
    for name in ["sized", "neighbour"] {
        cluster.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: busybox:test
    imagePullPolicy: Never
    command: [sleep, '10000']
    resources: {{requests: {{cpu: {half}, memory: 32Mi}}, limits: {{cpu: {half}, memory: 32Mi}}}}
"
        ))?;
        ready(&cluster, name)?;
    }
    resize(&cluster, "app", &more, "32Mi")?;
    wait::until("the wait", || {
        Ok(condition(&cluster, "PodResizePending", "reason")? == "Deferred")
    })?;
    cluster.kubectl("delete pod neighbour --wait=false")?.ok()?;
    wait::until("the new size", || {
        let over = condition(&cluster, "PodResizePending", "status")?.is_empty();
        Ok(over && status(&cluster, "app", "resources.requests.cpu")? == more)
    })
}
