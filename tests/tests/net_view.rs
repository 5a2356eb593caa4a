//! The network engineer's view of a cluster: history, services, traces.

use anyhow::{Context, Result};
use peapod_tests::{Cluster, wait};
use serde_json::{Value, json};

const HELLO: &str = include_str!("../../examples/hello/hello.yaml");

fn view(cluster: &Cluster, line: &str) -> Result<Value> {
    let args = ["net", "-o", "json"]
        .into_iter()
        .chain(line.split_whitespace());
    Ok(serde_json::from_str(&cluster.peapod(args)?.ok()?)?)
}

fn hello(cluster: &Cluster) -> Result<()> {
    cluster.apply(HELLO)?;
    settle(cluster)
}

fn settle(cluster: &Cluster) -> Result<()> {
    cluster
        .kubectl("rollout status deployment/hello --timeout=120s")?
        .ok()
        .map(drop)
}

fn first_pod(cluster: &Cluster) -> Result<String> {
    cluster.field("pods -l app=hello", "{.items[0].metadata.name}")
}

/// The placements of the Deployment, as `POD ADDRESS open|Why`, in order.
fn history(cluster: &Cluster, subject: &str) -> Result<Vec<String>> {
    let found = view(cluster, &format!("history {subject}"))?;
    let items = found["items"].as_array().context("no items")?;
    let lines = items.iter().map(|item| {
        let spec = &item["spec"];
        format!(
            "{} {} {} {}",
            item["metadata"]["uid"].as_str().unwrap_or_default(),
            spec["podName"].as_str().unwrap_or_default(),
            spec["addresses"][0].as_str().unwrap_or_default(),
            spec["endReason"].as_str().unwrap_or("open"),
        )
    });
    Ok(lines.collect())
}

#[test]
fn history_outlives_pods_and_crashes() -> Result<()> {
    let cluster = Cluster::up()?;
    hello(&cluster)?;
    let pod = first_pod(&cluster)?;
    let address = cluster.field(&format!("pod/{pod}"), "{.status.podIP}")?;
    cluster.kubectl(&format!("delete pod {pod}"))?.ok()?;
    settle(&cluster)?;
    wait::until("the pod's placement to end", || {
        Ok(history(&cluster, &pod)?
            .iter()
            .any(|line| line.ends_with("Deleted")))
    })?;
    let found = view(&cluster, &format!("history {address}"))?;
    let mut names = found["items"].as_array().context("no items")?.iter();
    assert!(
        names.any(|one| one["spec"]["podName"] == pod.as_str()),
        "{found}"
    );
    let found = view(&cluster, "history deployment/hello")?;
    let replaced = found["items"].as_array().context("no items")?.iter();
    let mut replaced = replaced.filter(|one| one["spec"]["reason"] == "Rescheduled");
    let next = &replaced.next().context("no replacement")?["spec"];
    assert_eq!(next["after"], "Deleted");
    assert!(
        next["replaces"]
            .as_str()
            .unwrap_or_default()
            .starts_with(&pod)
    );

    let before = history(&cluster, "deploy/hello")?;
    assert_eq!(
        before.iter().filter(|line| line.ends_with(" open")).count(),
        3,
        "{before:#?}"
    );
    cluster.crash()?;
    cluster.start()?;
    assert_eq!(history(&cluster, "deploy/hello")?, before, "after a crash");
    cluster.stop()?;
    cluster.start()?;
    settle(&cluster)?;
    let after = history(&cluster, "deploy/hello")?;
    // One place for each pod; its address may be another one by then, which is another place.
    let places = |lines: &[String]| {
        let open = lines.iter().filter(|line| line.ends_with(" open"));
        let pods = open.filter_map(|line| line.split(' ').nth(1));
        let mut pods: Vec<String> = pods.map(str::to_owned).collect();
        pods.sort();
        pods
    };
    assert_eq!(
        places(&after),
        places(&before),
        "after a stop; all: {after:#?}"
    );
    // People read a table, and so does kubectl.
    let table = cluster.peapod(["net", "history", &pod])?.ok()?;
    assert!(
        table.contains("LEAVES") && table.contains("Deleted"),
        "{table}"
    );
    let listed = cluster.kubectl("get placements")?.ok()?;
    assert!(listed.contains(&pod), "{listed}");
    Ok(())
}

#[test]
fn services_and_traces_show_what_the_kernel_has() -> Result<()> {
    let cluster = Cluster::up()?;
    hello(&cluster)?;
    wait::until("the service map", || {
        let shown = view(&cluster, "services hello")?;
        let all = shown.as_array().context("no list")?;
        Ok(!all.is_empty()
            && all.iter().all(|one| {
                one["programmed"] == "yes"
                    && one["endpoints"].as_array().is_some_and(|e| e.len() == 3)
            }))
    })?;
    let endpoints = view(&cluster, "endpoints hello")?;
    let pods = endpoints.as_array().context("no list")?.iter();
    let ready: Vec<&Value> = pods.filter(|one| one["state"] == "ready").collect();
    assert!(ready.len() >= 3, "{endpoints}");

    let pod = first_pod(&cluster)?;
    let trace = view(&cluster, &format!("trace {pod} svc/hello"))?;
    assert_eq!(trace["reached"], true, "{trace:#}");
    let kinds: Vec<&str> = trace["hops"]
        .as_array()
        .context("no hops")?
        .iter()
        .filter_map(|hop| hop["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["pod", "service", "node", "pod"], "{trace:#}");
    assert!(
        trace["hops"][2]["answeredFrom"].is_string(),
        "the node answered: {trace:#}"
    );
    assert!(
        trace["hops"][3]["micros"].is_u64(),
        "the pod answered: {trace:#}"
    );
    let tracked = trace["conntrack"].as_str().context("no conntrack")?;
    assert!(tracked.contains("answered by"), "{tracked}");

    // To a pod by its address, by echo requests; and to a port where nobody listens.
    let other = ready
        .iter()
        .find(|one| one["pod"] != pod.as_str())
        .context("no other pod")?;
    let address = other["address"].as_str().context("no address")?;
    let trace = view(&cluster, &format!("trace {pod} {address} --protocol icmp"))?;
    assert_eq!(trace["reached"], true, "{trace:#}");
    let trace = view(&cluster, &format!("trace {pod} {address} --port 9"))?;
    let verdict = trace["verdict"].as_str().unwrap_or_default();
    assert!(verdict.contains("nobody listens"), "{trace:#}");

    // A service whose pods are gone is refused, and the trace says by whom.
    cluster
        .kubectl("scale deployment/hello --replicas=1")?
        .ok()?;
    settle(&cluster)?;
    cluster.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: empty}, \
             spec: {selector: {app: nobody}, ports: [{port: 80}]}}",
    )?;
    let pod = first_pod(&cluster)?;
    wait::until("the empty service", || {
        let trace = view(&cluster, &format!("trace {pod} empty"))?;
        let verdict = trace["verdict"].as_str().unwrap_or_default();
        Ok(verdict.contains("the service has no endpoint"))
    })?;
    for name in ["topology", "peers", "policies", "budget"] {
        view(&cluster, name)?;
    }
    let wrong = cluster.peapod(["net", "trace", "nobody", "hello"])?;
    assert!(
        wrong.status != 0 && wrong.stderr.contains("no running pod"),
        "{}",
        wrong.stderr
    );
    Ok(())
}

#[test]
fn traces_go_from_node_to_node() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "2"])?;
    cluster.load_demo_images()?;
    hello(&cluster)?;
    wait::until("the service map of both nodes", || {
        let shown = view(&cluster, "services hello")?;
        let all = shown.as_array().context("no list")?;
        let has = |node: &str| all.iter().any(|one| one["node"] == node);
        Ok(has("node-1") && has("node-2") && all.iter().all(|one| one["programmed"] == "yes"))
    })?;
    // Two of the three are on different nodes.
    let pods = cluster.field(
        "pods -l app=hello",
        "{range.items[*]}{.metadata.name}={.spec.nodeName};{end}",
    )?;
    let pods: Vec<(&str, &str)> = pods
        .split(';')
        .filter_map(|pod| pod.split_once('='))
        .collect();
    let on = |node: &str| pods.iter().find(|pod| pod.1 == node).map(|pod| pod.0);
    let from = on("node-1").context("no pod on node-1")?;
    let to = on("node-2").context("no pod on node-2")?;
    let trace = view(&cluster, &format!("trace {from} {to}"))?;
    let hops = trace["hops"].as_array().context("no hops")?.iter();
    // What is between the nodes is the machine's business.
    let hops: Vec<String> = hops
        .filter(|hop| hop["kind"] != "router")
        .filter_map(|hop| {
            Some(format!(
                "{} {}",
                hop["kind"].as_str()?,
                hop["name"].as_str()?
            ))
        })
        .collect();
    let ends = [format!("pod default/{from}"), format!("pod default/{to}")];
    assert_eq!(
        hops,
        [&ends[0], "node node-1", "node node-2", &ends[1]],
        "{trace:#}"
    );
    assert!(trace["hops"][1]["answeredFrom"].is_string(), "{trace:#}");
    // From another machine the nodes are asked for it: the same way, and the same answers.
    let away = ["net", "--instance-dir", "/nonexistent"];
    let ask = ["trace", from, to, "-o", "json"];
    let trace = cluster.peapod(away.into_iter().chain(ask))?.ok()?;
    let trace: Value = serde_json::from_str(&trace)?;
    assert_eq!(trace["reached"], true, "{trace:#}");
    for (hop, node) in [(1, "node-1"), (2, "node-2")] {
        let hops = trace["hops"].as_array().context("no hops")?.iter();
        let mut hops = hops.filter(|hop| hop["kind"] != "router");
        let hop = hops.nth(hop).context("too few hops")?;
        assert_eq!(
            (&hop["name"], &hop["source"]),
            (&json!(node), &json!("kernel")),
            "{trace:#}"
        );
    }
    Ok(())
}

/// The tables of a node of another machine are read through the API, by those who may.
fn elsewhere(cluster: &Cluster) -> Result<()> {
    let away = ["net", "--instance-dir", "/nonexistent", "-o", "json"];
    let ask = |words: &[&str]| -> Result<Value> {
        let words = away.iter().chain(words).copied();
        Ok(serde_json::from_str(&cluster.peapod(words)?.ok()?)?)
    };
    let block = cluster.field("node/node-2", "{.spec.podCIDR}")?;
    let routes = ask(&["routes", "--node", "node-1"])?;
    let route = routes.as_array().context("no routes")?.iter();
    let mut route = route.filter(|one| one["prefix"] == block.as_str());
    let route = route.next().context("no route to the other node")?;
    assert_eq!(
        route["nextHops"].as_array().map(Vec::len),
        Some(2),
        "{route:#}"
    );
    let told = ask(&["advertised", "--node", "node-1"])?;
    let told = told.as_array().context("nobody is told")?;
    assert_eq!(told.len(), 2, "{told:#?}");
    let refusal = cluster.peapod([
        "net",
        "--instance-dir",
        "/nonexistent",
        "routes",
        "--node",
        "no",
    ])?;
    let refusal = refusal.refused()?;
    assert!(refusal.contains("node no"), "{refusal}");
    let path = "/api/v1/nodes/node-1/proxy/agents/bgp?ask=%7B%22show%22%3A%22peers%22%7D";
    let peers = cluster.kubectl(&format!("get --raw {path}"))?.ok()?;
    assert!(peers.contains("leaf-1"), "{peers}");
    let refusal = cluster
        .kubectl(&format!("get --raw {path} --as=somebody"))?
        .refused()?;
    assert!(refusal.contains("forbidden"), "{refusal}");
    Ok(())
}

#[test]
fn a_fabric_is_drawn() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start_with(&["--nodes", "2", "--fabric", "1x2"])?;
    wait::until("both leaves to have a session with the spine", || {
        let topology = view(&cluster, "topology")?;
        let links = topology["spines"][0]["links"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        Ok(links.len() == 2 && links.iter().all(|link| link[1] == "Established"))
    })?;
    wait::until("every node to have sessions with two leaves", || {
        let topology = view(&cluster, "topology")?;
        let links = topology["links"].as_array().cloned().unwrap_or_default();
        Ok(links.len() == 4 && links.iter().all(|link| link["state"] == "Established"))
    })?;
    let topology = view(&cluster, "topology")?;
    let leaves = topology["leaves"].as_array().context("no leaves")?;
    assert_eq!(leaves.len(), 2, "{topology:#}");
    elsewhere(&cluster)?;
    let drawn = cluster.peapod(["net", "topology", "-o", "mermaid"])?.ok()?;
    assert!(drawn.starts_with("graph TD"), "{drawn}");
    // The name that a router tells of itself is what the other shows.
    let socket = cluster.data_dir().join("fabric/spine-1/control.sock");
    let peers = cluster
        .peapod([
            "net",
            "--socket",
            &socket.to_string_lossy(),
            "peers",
            "-o",
            "json",
        ])?
        .ok()?;
    let peers: Value = serde_json::from_str(&peers)?;
    assert_eq!(peers[0]["hostname"], "leaf-1", "{peers:#}");
    Ok(())
}
