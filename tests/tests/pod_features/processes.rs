//! Process IDs that containers share: the pod's, and a debugged container's.

use anyhow::Result;
use peapod_tests::{Cluster, wait};

use crate::ready;

#[test]
fn containers_see_each_others_processes() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let pod = |name: &str, shared: bool| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  shareProcessNamespace: {shared}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: app, image: 'busybox:test', imagePullPolicy: Never, command: [sleep, '1234']}}
  - {{name: side, image: 'busybox:test', imagePullPolicy: Never, command: [sleep, '5678']}}
"
        )
    };
    cluster.apply(&pod("together", true))?;
    cluster.apply(&pod("apart", false))?;
    ready(&cluster, "together")?;
    ready(&cluster, "apart")?;
    let processes = |pod: &str, container: &str| {
        let line = format!("exec {pod} -c {container} -- ps -o pid,args");
        cluster.kubectl(&line)?.ok()
    };
    assert!(processes("together", "side")?.contains("sleep 1234"));
    assert!(!processes("apart", "side")?.contains("sleep 1234"));

    // The end of one container is not the end of the others, nor of what they share.
    let kill = "for p in /proc/[0-9]*; do
        case $(cat $p/cmdline) in sleep1234) kill -9 ${p#/proc/};; esac; done";
    let args = ["exec", "together", "-c", "side", "--", "sh", "-c", kill];
    cluster.kubectl_with(&args, None)?.ok()?;
    let restarts = |name: &str| {
        let path = format!("{{.status.containerStatuses[?(@.name==\"{name}\")].restartCount}}");
        cluster.field("pod/together", &path)
    };
    wait::until("the restart", || Ok(restarts("app")? == "1"))?;
    wait::until("the new process", || {
        Ok(processes("together", "side")?.contains("sleep 1234"))
    })?;
    assert_eq!(restarts("side")?, "0");

    // A debugger sees the container that it targets.
    let debug = "debug apart --image=busybox:test --image-pull-policy=Never --target=app \
                 --container=debugger -- sh -c ps";
    cluster.kubectl(debug)?.ok()?;
    wait::until("the debugger's words", || {
        let said = cluster.kubectl("logs apart -c debugger")?;
        Ok(said.ok().is_ok_and(|text| text.contains("sleep 1234")))
    })?;
    let said = cluster.kubectl("logs apart -c debugger")?.ok()?;
    assert!(!said.contains("sleep 5678"), "{said}");

    // Nothing stays of it.
    cluster.kubectl("delete pod together apart")?.ok()?;
    let left = cluster.data_dir().join("runtime/sandboxes");
    wait::until("the end of the namespaces", || {
        Ok(std::fs::read_dir(&left)?.count() == 0)
    })
}
