//! What survives what: crashes of peapod, of containers, of containerd; stops; pods' ends.

use anyhow::{Context, Result};
use peapod_tests::reboot::reboot;
use peapod_tests::{Cluster, command, process, wait};

const HELLO: &str = include_str!("../../examples/hello/hello.yaml");
const COUNTER: &str = include_str!("../../examples/stateful/counter.yaml");
const ROLLING: &str = include_str!("../../examples/rolling-update/rolling.yaml");

fn restarts(cluster: &Cluster, selector: &str) -> Result<String> {
    cluster.field(
        &format!("pods -l {selector} --sort-by=.metadata.name"),
        "{range.items[*]}{.metadata.name}={.status.containerStatuses[0].restartCount};{end}",
    )
}

#[test]
fn a_killed_container_comes_back() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(HELLO)?;
    cluster
        .kubectl("rollout status deployment/hello --timeout=60s")?
        .ok()?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    let pid = process::of_pod(&pod)?;
    process::kill(&[pid])?;
    wait::until("a restart", || {
        let state =
            "{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
        Ok(cluster
            .kubectl_with(
                &["get", "pod", &pod, "-o", &format!("jsonpath={state}")],
                None,
            )?
            .ok()?
            == "1 true")
    })?;
    let last = cluster.field(
        &format!("pod/{pod}"),
        "{.status.containerStatuses[0].lastState.terminated.exitCode}",
    )?;
    assert_eq!(last, "137");
    Ok(())
}

#[test]
fn data_outlives_its_pod() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(COUNTER)?;
    let settle = || {
        cluster
            .kubectl("rollout status deployment/counter --timeout=60s")?
            .ok()
    };
    settle()?;
    wait::until("the first count", || {
        Ok(cluster.request("counter", "/")? == "1\n")
    })?;
    cluster.kubectl("delete pod -l app=counter")?.ok()?;
    settle()?;
    wait::until("the next count", || {
        Ok(cluster.request("counter", "/")? == "2\n")
    })?;
    assert_eq!(cluster.field("pvc/counter", "{.status.phase}")?, "Bound");
    cluster
        .kubectl_with(&["delete", "-f", "-"], Some(COUNTER))?
        .ok()?;
    wait::until("the volume to be gone", || {
        Ok(cluster.kubectl("get pv -o name")?.ok()?.is_empty())
    })?;
    let volumes = cluster.data_dir().join("volumes");
    wait::until("the data to be gone", || {
        Ok(std::fs::read_dir(&volumes)?.next().is_none())
    })
}

#[test]
fn no_request_is_lost_in_a_rolling_update() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(ROLLING)?;
    let settle = || {
        cluster
            .kubectl("rollout status deployment/rolling --timeout=120s")?
            .ok()
    };
    settle()?;
    let address = cluster.field("service/rolling", "{.spec.clusterIP}")?;
    let url = format!("http://{address}/");
    wait::until("the service", || {
        Ok(command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.status == 0)
    })?;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| -> Result<u32> {
            let mut answered = 0;
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let run = command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?;
                run.ok()
                    .with_context(|| format!("request {answered} was lost"))?;
                answered += 1;
            }
            Ok(answered)
        });
        let rolled = (|| {
            cluster
                .kubectl("set image deployment/rolling rolling=peapod.dev/demo:v2")?
                .ok()?;
            settle()
        })();
        done.store(true, std::sync::atomic::Ordering::Release);
        let answered = asking
            .join()
            .map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
        rolled?;
        assert!(answered > 20, "only {answered} requests were made");
        Ok(())
    })
}

#[test]
fn a_crash_in_the_middle_of_a_rollout() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(ROLLING)?;
    cluster.apply(HELLO)?;
    let settle = |name: &str| {
        cluster
            .kubectl(&format!("rollout status deployment/{name} --timeout=120s"))?
            .ok()
    };
    settle("rolling")?;
    settle("hello")?;
    let before = restarts(&cluster, "app=hello")?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    let pid = process::of_pod(&pod)?;

    let url = format!(
        "http://{}/",
        cluster.field("service/hello", "{.spec.clusterIP}")?
    );

    cluster
        .kubectl("set image deployment/rolling rolling=peapod.dev/demo:v2")?
        .ok()?;
    let version = cluster.field("deployment/rolling", "{.metadata.resourceVersion}")?;
    cluster.crash()?;
    assert_eq!(process::of_pod(&pod)?, pid, "the container must run on");
    let said = command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.ok()?;
    assert!(
        said.contains("hello v1"),
        "the service must serve on: {said}"
    );
    cluster.start()?;

    let image = cluster.field(
        "deployment/rolling",
        "{.spec.template.spec.containers[0].image}",
    )?;
    assert_eq!(image, "peapod.dev/demo:v2", "acknowledged at {version}");
    settle("rolling")?;
    assert_eq!(
        restarts(&cluster, "app=hello")?,
        before,
        "no container may have been restarted"
    );
    assert_eq!(process::of_pod(&pod)?, pid);
    Ok(())
}

#[test]
fn after_a_stop_and_a_start_the_cluster_is_as_it_was() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(HELLO)?;
    cluster
        .kubectl("rollout status deployment/hello --timeout=60s")?
        .ok()?;
    let names = cluster.field("pods -l app=hello", "{.items[*].metadata.uid}")?;
    let address = cluster.field("service/hello", "{.spec.clusterIP}")?;
    cluster.stop()?;
    cluster.start()?;
    wait::until("the deployment", || {
        Ok(cluster.field("deployment/hello", "{.status.readyReplicas}")? == "3")
    })?;
    assert_eq!(
        cluster.field("pods -l app=hello", "{.items[*].metadata.uid}")?,
        names
    );
    assert_eq!(
        cluster.field("service/hello", "{.spec.clusterIP}")?,
        address
    );
    wait::until("a greeting", || {
        Ok(cluster.request("hello", "/")?.contains("hello v1"))
    })
}

#[test]
fn after_a_reboot_the_cluster_is_as_it_was() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let socket = cluster.data_dir().join("containerd/containerd.sock");
    let own = ["--containerd", &*socket.to_string_lossy()];
    cluster.start_with(&own)?;
    cluster.load_demo_images()?;
    cluster.apply(HELLO)?;
    cluster.apply(COUNTER)?;
    let settle = || -> Result<()> {
        for name in ["hello", "counter"] {
            let line = format!("rollout status deployment/{name} --timeout=90s");
            cluster.kubectl(&line)?.ok()?;
        }
        Ok(())
    };
    settle()?;
    wait::until("the first count", || {
        Ok(cluster.request("counter", "/")? == "1\n")
    })?;
    let pods = || {
        let columns =
            "{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount};{end}";
        let args = ["get", "pods", "-o", &format!("jsonpath={columns}")];
        cluster.kubectl_with(&args, None)?.ok()
    };
    let before = pods()?;
    assert_eq!(before.matches(" 0;").count(), 4, "{before}");

    reboot(&cluster)?;
    cluster.start_with(&own)?;
    let expected = before.replace(" 0;", " 1;");
    wait::until("every container to be started once more", || {
        Ok(pods()? == expected)
    })
    .with_context(|| format!("{before} became {}", pods().unwrap_or_default()))?;
    settle()?;
    wait::until("a greeting", || {
        Ok(cluster.request("hello", "/")?.contains("hello v1"))
    })?;
    wait::until("the next count", || {
        Ok(cluster.request("counter", "/")? == "2\n")
    })?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    let last = "{.status.containerStatuses[0].lastState.terminated.reason}";
    let reason = cluster.field(&format!("pod/{pod}"), last)?;
    assert!(!reason.is_empty(), "why it ended is told");
    assert_eq!(cluster.warnings()?, "");
    Ok(())
}
