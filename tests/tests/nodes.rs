//! Several nodes on one machine, each in a network namespace of its own.

use anyhow::{Context, Result};
use peapod_tests::{Cluster, Machine, command, process, wait};

/// A pod for each node, which sleeps.
const EVERYWHERE: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:test', command: [sh, -c, 'echo here; sleep 100000']}
      - name: host
        image: busybox:test
        command: [sleep, '100000']
";

/// One that shares the network of its node.
const HOST_NETWORK: &str = "
apiVersion: v1
kind: Pod
metadata: {name: on-host}
spec:
  hostNetwork: true
  nodeName: node-2
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: 'busybox:test', command: [sleep, '100000']}
";

/// One that answers on port 8080, on the second node, behind a service.
const SERVER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: 'peapod.dev/demo:v1'}]
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 8080}]}
";

/// Pods of every node reach the server, by its own address and by its service's.
fn everyone_reaches_the_server(cluster: &Cluster) -> Result<()> {
    let direct = cluster.field("pod/server", "{.status.podIP}")?;
    let service = cluster.field("service/server", "{.spec.clusterIP}")?;
    let names = "{.items[?(@.metadata.labels.app=='everywhere')].metadata.name}";
    let pods = cluster.field("pods", names)?;
    let pods: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        for address in [&direct, &service] {
            let ask = format!("exec {pod} -c c -- wget -qO- http://{address}:8080/");
            wait::until("an answer from another node", || {
                let said = cluster.kubectl(&ask)?.ok();
                Ok(said.is_ok_and(|said| said.contains("from server")))
            })?;
        }
    }
    Ok(())
}

/// The processes of the nodes' agents.
fn agents(cluster: &Cluster) -> Result<Vec<i32>> {
    let data = cluster.data_dir().to_string_lossy().into_owned();
    process::with_argument(&format!("node\0--data-dir\0{data}/nodes/"))
}

/// A link of somebody else's on the machine, with a route to some pods' addresses.
struct Foreign;

impl Foreign {
    fn new(route: &str) -> Result<Self> {
        command::run("ip", "link add pd-foreign type bridge".split(' '))?.ok()?;
        let foreign = Self;
        command::run("ip", "link set pd-foreign up".split(' '))?.ok()?;
        let add = format!("route add {route} dev pd-foreign");
        command::run("ip", add.split(' '))?.ok()?;
        Ok(foreign)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = command::run("ip", "link del pd-foreign".split(' '));
    }
}

#[test]
fn ranges_that_the_machine_has_another_way_to_are_refused() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let foreign = Foreign::new("10.244.128.0/24")?;
    let before = Machine::now()?;
    let refusal = cluster.try_start(&["--nodes", "2"])?.refused()?;
    for word in ["10.244.128.0/24", "pd-foreign", "--pod-cidr"] {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
    Machine::now()?.must_equal(&before)?;
    drop(foreign);
    cluster.start_with(&["--nodes", "2"])?;
    Ok(())
}

#[test]
fn nodes_come_run_pods_outlive_a_crash_and_leave_nothing() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let before = Machine::now()?;
    cluster.start_with(&["--nodes", "3"])?;
    let status = cluster.status()?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    let named: Vec<_> = nodes
        .iter()
        .filter_map(|node| node["name"].as_str())
        .collect();
    assert_eq!(named, ["node-1", "node-2", "node-3"]);
    cluster.load_busybox()?;
    cluster.load_demo_images()?;
    cluster.apply(EVERYWHERE)?;
    cluster.apply(HOST_NETWORK)?;
    cluster.apply(SERVER)?;
    cluster
        .kubectl("rollout status daemonset/everywhere --timeout=60s")?
        .ok()?;
    cluster
        .kubectl("wait --for=condition=Ready pod/on-host pod/server --timeout=60s")?
        .ok()?;

    // Logs and exec on every node; a pod with the host's network has its own node's.
    let pods = cluster.field("pods", "{.items[*].metadata.name}")?;
    for pod in pods.split(' ').filter(|pod| pod.starts_with("everywhere")) {
        wait::until("the log of a pod on any node", || {
            let logs = cluster.kubectl(&format!("logs {pod} -c c"))?.ok()?;
            Ok(logs.trim() == "here")
        })?;
        let said = cluster
            .kubectl(&format!("exec {pod} -c host -- echo there"))?
            .ok()?;
        assert_eq!(said.trim(), "there");
    }
    let address = cluster.field("pod/on-host", "{.status.podIP}")?;
    assert_eq!(
        address,
        cluster.field("node/node-2", "{.status.addresses[0].address}")?
    );
    let interfaces = cluster
        .kubectl("exec on-host -- ls /proc/self/net/dev_snmp6")?
        .ok()?;
    assert!(
        interfaces.contains("eth0") && !interfaces.contains("br"),
        "{interfaces}"
    );
    let ask = "hostname; cat /etc/hostname; echo $HOSTNAME";
    let named = cluster
        .kubectl_with(&["exec", "on-host", "--", "sh", "-c", ask], None)?
        .ok()?;
    assert_eq!(named, "node-2\nnode-2\nnode-2\n");

    everyone_reaches_the_server(&cluster)?;
    let containers = cluster.field(
        "pods",
        "{.items[*].status.containerStatuses[*].containerID}",
    )?;
    cluster.crash()?;
    wait::until("the nodes' agents to end with the instance", || {
        Ok(agents(&cluster)?.is_empty())
    })?;
    cluster.start()?;
    cluster
        .kubectl("rollout status daemonset/everywhere --timeout=60s")?
        .ok()?;
    let after = cluster.field(
        "pods",
        "{.items[*].status.containerStatuses[*].containerID}",
    )?;
    assert_eq!(after, containers, "nothing was started anew");
    everyone_reaches_the_server(&cluster)?;

    let refusal = cluster.try_start(&["--nodes", "2"])?;
    assert!(refusal.stdout.contains("already runs here"), "{refusal:?}");
    cluster.stop()?;
    let refusal = cluster.try_start(&["--nodes", "2"])?.refused()?;
    assert!(refusal.contains("--nodes differs"), "{refusal}");
    cluster.purge()?;
    Machine::now()?.must_equal(&before)
}
