//! Pods reach each other over the fabric, and its routers speak.

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
    cluster.apply(BGP_CONFIG)?;
    told_of_it(&cluster)?;
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

/// As it is without one.
const BGP_CONFIG: &str = "
apiVersion: net.peapod.dev/v1
kind: BgpConfig
metadata: {name: default}
spec: {}
";

/// What the plan leads to stands in its status, and what is measured of a node's network is had from
/// the node.
fn told_of_it(cluster: &Cluster) -> Result<()> {
    wait::until("the sizes of tables", || {
        let blocks = cluster.field("ipblocks", "{.items[*].metadata.name}")?;
        let path = "{.items[0].status.tables.spine.routes}";
        let routes = cluster.field("bgpconfigs", path)?;
        Ok(routes == blocks.split(' ').count().to_string())
    })?;
    wait::until("a node's metrics", || {
        let metrics = cluster
            .kubectl("get --raw /api/v1/nodes/node-1/proxy/metrics")?
            .ok()?;
        let has = |wanted: &str| metrics.lines().any(|line| line == wanted);
        let count = "kubeproxy_network_programming_duration_seconds_count ";
        let programmed = metrics.lines().find_map(|line| line.strip_prefix(count));
        Ok(has(r#"peapod_bgp_sessions{state="Established"} 2"#)
            && programmed.is_some_and(|n| n != "0"))
    })
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

/// A client beyond the leaves, at the spine, which has an address of its own there.
struct Beyond {
    /// How the namespaces of the fabric begin.
    prefix: String,
}

const CLIENT: &str = "198.51.100.9";

impl Beyond {
    fn new(cluster: &Cluster) -> Result<Self> {
        let settings = std::fs::read(cluster.data_dir().join("nodes/node-1/node.json"))?;
        let settings: Value = serde_json::from_slice(&settings)?;
        let node = settings["netns"].as_str().context("no namespace")?;
        let name = node.rsplit('/').next().unwrap_or_default();
        let prefix = name.trim_end_matches("node-1").to_owned();
        let beyond = Self { prefix };
        beyond.ip("spine-1", &format!("addr add {CLIENT}/32 dev lo"))?;
        let file = cluster.data_dir().join("fabric/spine-1/router.yaml");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["announce"] = serde_json::json!([format!("{CLIENT}/32")]);
        std::fs::write(&file, serde_json::to_vec(&config)?)?;
        // It is started again, with this.
        process::kill(&process::with_argument(&file.to_string_lossy())?)?;
        Ok(beyond)
    }

    fn ip(&self, member: &str, what: &str) -> Result<String> {
        let namespace = format!("{}{member}", self.prefix);
        let words = ["-n", &namespace].into_iter().chain(what.split(' '));
        command::run("ip", words)?.ok()
    }

    fn ask(&self, url: &str) -> Result<String> {
        let spine = format!("--net=/run/netns/{}spine-1", self.prefix);
        let curl = ["curl", "-sS", "--max-time", "3", "--interface", CLIENT, url];
        let said = command::run("nsenter", [spine.as_str()].into_iter().chain(curl))?;
        Ok(said.ok()?.trim().to_owned())
    }

    /// Takes all links of a switch down.
    fn cut(&self, switch: &str) -> Result<()> {
        for line in self.ip(switch, "-o link show type veth")?.lines() {
            let name = line.split(": ").nth(1).context("no name")?;
            let name = name.split('@').next().unwrap_or(name);
            self.ip(switch, &format!("link set {name} down"))?;
        }
        Ok(())
    }
}

/// An address of a pool, announced by the nodes with an endpoint, answers a client beyond the leaves
/// and sees its address; when the rack that answers is lost, the other one does.
#[test]
fn a_load_balancer_answers_beyond_the_leaves_though_a_rack_is_lost() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "4", "--fabric", "2x4"])?;
    cluster.load_demo_images()?;
    let beyond = Beyond::new(&cluster)?;
    cluster.apply(
        "
apiVersion: net.peapod.dev/v1
kind: LoadBalancerPool
metadata: {name: outside}
spec: {addresses: [203.0.113.8/29]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {tier: web}
  ports: [{port: 80, targetPort: 8080}]
---",
    )?;
    let web = |name: &str, node: &str| pod(name, node).replace("app:", "tier: web, app:");
    cluster.apply(&[web("one", "node-1"), web("four", "node-4")].concat())?;
    let address = wait::some("an address", || {
        let path = "{.status.loadBalancer.ingress[0].ip}";
        Ok(Some(cluster.field("service/web", path)?).filter(|ip| !ip.is_empty()))
    })?;
    let url = format!("http://{address}/");
    wait::until("an answer to a client beyond the leaves", || {
        Ok(beyond
            .ask(&format!("{url}client"))
            .is_ok_and(|client| client.contains(CLIENT)))
    })?;
    let answers = |from: &str| {
        beyond
            .ask(&url)
            .is_ok_and(|said| said.ends_with(&format!("from {from}")))
    };
    let first = wait::some("an answer", || {
        Ok(["one", "four"].into_iter().find(|pod| answers(pod)))
    })?;
    let (rack, other) = match first {
        "one" => (["leaf-1", "leaf-2"], "four"),
        _ => (["leaf-3", "leaf-4"], "one"),
    };
    for leaf in rack {
        beyond.cut(leaf)?;
    }
    wait::until("an answer of the other rack", || Ok(answers(other)))?;
    let client = beyond.ask(&format!("{url}client"))?;
    assert!(client.contains(CLIENT), "the source is kept: {client}");

    // Only racks that the pool selects announce its addresses.
    let select = |rack: &str| {
        let labels = format!(r#"{{"net.peapod.dev/rack":"{rack}"}}"#);
        let patch = format!(r#"{{"spec":{{"nodeSelector":{{"matchLabels":{labels}}}}}}}"#);
        let patch = [
            "patch",
            "loadbalancerpool",
            "outside",
            "--type=merge",
            "-p",
            &patch,
        ];
        cluster.kubectl_with(&patch, None)?.ok()
    };
    select("none")?;
    wait::until("the address to be withdrawn", || {
        let route = beyond.ip("spine-1", &format!("route show {address}"))?;
        Ok(route.is_empty())
    })?;
    select(if other == "one" { "rack-1" } else { "rack-2" })?;
    wait::until("an answer of the selected rack", || Ok(answers(other)))
}
