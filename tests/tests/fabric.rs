//! A rack on one machine: nodes, leaves and spines in namespaces, which speak BGP.

use anyhow::{Context, Result};
use peapod_tests::{Cluster, Machine, command, process, wait};
use serde_json::Value;

/// The states of a router's sessions with the neighbours whose interfaces begin so.
fn sessions(cluster: &Cluster, router: &str, with: &str) -> Result<Vec<String>> {
    let socket = cluster
        .data_dir()
        .join(format!("fabric/{router}/control.sock"));
    let socket = socket.to_string_lossy();
    let said = cluster.peapod(["net", "--socket", &socket, "peers", "-o", "json"])?;
    let peers: Value = serde_json::from_str(&said.ok()?)?;
    let peers = peers.as_array().context("no list of peers")?;
    let of = |peer: &&Value| peer.to_string().contains(with);
    let states = peers.iter().filter(of);
    Ok(states
        .filter_map(|peer| peer["state"].as_str().map(str::to_owned))
        .collect())
}

fn all_established(cluster: &Cluster, router: &str, with: &str, count: usize) -> Result<bool> {
    let states = sessions(cluster, router, with)?;
    let up = |state: &String| state.eq_ignore_ascii_case("established");
    Ok(states.len() == count && states.iter().all(up))
}

fn pod(name: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: 'peapod.dev/demo:v1'}}]
---"
    )
}

#[test]
fn pods_reach_each_other_over_the_fabric() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "4", "--fabric", "2x4"])?;
    cluster.load_demo_images()?;
    wait::until("every session of the nodes", || {
        let states = cluster.field("bgpnodes", "{.items[*].status.sessions[*].state}")?;
        let up = states.split(' ').filter(|state| *state == "Established");
        Ok(up.count() == 8)
    })?;
    wait::until("the peers to say so", || {
        let told = cluster.field("bgppeers", "{.items[*].status.state}")?;
        Ok(told == "Established Established")
    })?;
    cluster.apply(&[pod("server", "node-4"), pod("client", "node-1")].concat())?;
    cluster
        .kubectl("wait --for=condition=Ready pod/server pod/client --timeout=60s")?
        .ok()?;
    cluster.kubectl("expose pod server --port=8080")?.ok()?;
    let direct = cluster.field("pod/server", "{.status.podIP}")?;
    let service = cluster.field("service/server", "{.spec.clusterIP}")?;
    let client = cluster.field("pod/client", "{.metadata.uid}")?;
    let sandbox = format!("nodes/node-1/runtime/sandboxes/{client}/net");
    let pod = cluster.data_dir().join(sandbox).display().to_string();
    let settings = std::fs::read(cluster.data_dir().join("nodes/node-1/node.json"))?;
    let settings: Value = serde_json::from_slice(&settings)?;
    let node = settings["netns"].as_str().context("no namespace")?;
    // From a pod, and from the node itself.
    for (from, address) in [(pod.as_str(), &direct), (&pod, &service), (node, &direct)] {
        let inside = format!("--net={from}");
        let url = format!("http://{address}:8080/");
        wait::until("an answer from the other rack", || {
            let ask = [&inside, "curl", "-sS", "--max-time", "3", &url];
            let said = command::run("nsenter", ask)?.ok();
            Ok(said.is_ok_and(|said| said.contains("from server")))
        })?;
    }
    Ok(())
}

#[test]
fn leaves_and_spines_speak_and_a_dead_leaf_comes_back() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let before = Machine::now()?;
    cluster.start_with(&["--nodes", "4", "--fabric", "2x4"])?;
    let racks = r"{.items[*].metadata.labels.net\.peapod\.dev/rack}";
    assert_eq!(
        cluster.field("nodes", racks)?,
        "rack-1 rack-1 rack-2 rack-2"
    );
    let fabric = |what: &str| {
        wait::until(what, || {
            let spine = all_established(&cluster, "spine-2", "leaf-", 4)?;
            Ok(spine && all_established(&cluster, "leaf-3", "spine-", 2)?)
        })
    };
    fabric("the sessions of leaves and spines")?;
    let config = cluster.data_dir().join("fabric/leaf-3/router.yaml");
    let leaf = process::with_argument(&config.to_string_lossy())?;
    assert_eq!(leaf.len(), 1, "one process for a leaf");
    process::kill(&leaf)?;
    fabric("the sessions of a leaf that was killed")?;
    cluster.purge()?;
    Machine::now()?.must_equal(&before)
}
