//! What fails in a fabric, under traffic: packets are counted in both directions and both
//! families, between a pod of one rack and a pod of another.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peapod_lab::traffic::{Loss, Traffic};
use peapod_tests::rounds::rounds;
use peapod_tests::{Rack, wait};
use serde_json::Value;

/// BFD of the fabric finds a silence within 3 x 300 ms; a busy machine may leave a process
/// without a processor for longer. The hold timer, which would be at work else, has 90 s.
const BFD_BOUND: Duration = Duration::from_secs(5);
/// Traffic goes on for so long after everything is well again.
const AFTER: Duration = Duration::from_millis(300);

/// A client in the first rack, a server in the second, and one behind it that may be anywhere.
const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: 'peapod.dev/demo:v1'}]
---
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  nodeName: node-3
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: 'peapod.dev/demo:v1'}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: movable}
spec:
  replicas: 1
  selector: {matchLabels: {app: movable}}
  template:
    metadata: {labels: {app: movable}}
    spec:
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            preference:
              matchExpressions:
              - {key: kubernetes.io/hostname, operator: In, values: [node-4]}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: 'peapod.dev/demo:v1'}]
";

fn start(flags: &[&str]) -> Result<Rack> {
    let rack = Rack::up(4, "2x4", flags)?;
    rack.cluster.apply(PODS)?;
    rack.cluster
        .kubectl("wait --for=condition=Ready pod --all --timeout=60s")?
        .ok()?;
    rack.complete()?;
    Ok(rack)
}

/// What traffic loses while something happens.
fn under_traffic(rack: &Rack, what: &str, happens: impl FnOnce() -> Result<()>) -> Result<Loss> {
    let traffic = rack.traffic("client", "server")?;
    let from = Instant::now();
    happens()?;
    std::thread::sleep(AFTER);
    let flows: Vec<_> = traffic.into_iter().flat_map(Traffic::stop).collect();
    let loss = Loss::of(&flows, from);
    println!("{what}: {loss}");
    Ok(loss)
}

/// The block of a node, in IPv4.
fn block(rack: &Rack, node: &str) -> Result<String> {
    rack.cluster
        .field(&format!("node/{node}"), "{.spec.podCIDR}")
}

/// Whether a member's kernel has a route by BGP.
fn routed(rack: &Rack, member: &str, prefix: &str) -> Result<bool> {
    let shown = rack.within(member, &format!("ip route show {prefix} proto bgp"))?;
    Ok(!shown.trim().is_empty())
}

/// One that falls silent, with its links up, is gone around as soon as BFD finds out; nothing is
/// lost when it speaks again.
fn silent(rack: &Rack, member: &str) -> Result<()> {
    let before = rack.tables()?;
    let loss = under_traffic(rack, &format!("{member} falls silent"), || {
        rack.silence(member)?;
        wait::until("everybody to know", || {
            let told = rack.tables()?;
            Ok(told.iter().all(|(name, now)| {
                name == member || now != &before[name] || !concerned(member, name)
            }))
        })
    })?;
    ensure!(loss.lost > 0, "no flow was over {member}");
    ensure!(loss.longest < BFD_BOUND, "the hold timer, not BFD: {loss}");
    let loss = under_traffic(rack, &format!("{member} speaks again"), || {
        rack.speak(member)?;
        rack.complete()?;
        rack.as_before(&before)
    })?;
    ensure!(loss.lost == 0, "{member} comes back: {loss}");
    Ok(())
}

/// Whether a router of the first rack, or a spine, is linked to this one.
fn concerned(member: &str, other: &str) -> bool {
    match member.starts_with("spine") {
        true => other.starts_with("leaf"),
        false => other.starts_with("spine") || ["node-1", "node-2"].contains(&other),
    }
}

#[test]
fn flows_go_around_what_fails() -> Result<()> {
    let rack = start(&[])?;
    silent(&rack, "leaf-1")?;
    silent(&rack, "spine-1")?;

    // A link, again and again: routes come back as they were, in tables and kernels.
    let before = rack.tables()?;
    let rounds = rounds(4);
    under_traffic(&rack, &format!("a link is cut {rounds} times"), || {
        let mut took = Vec::new();
        for round in 0..rounds {
            let port = ["eth1", "eth2"][round % 2];
            rack.set_link("node-1", port, false)?;
            wait::until("the flows to leave the link", || {
                Ok(rack.tables()?["node-1"] != before["node-1"])
            })?;
            let mended = Instant::now();
            rack.set_link("node-1", port, true)?;
            rack.complete()?;
            rack.as_before(&before)
                .with_context(|| format!("round {round}"))?;
            took.push(mended.elapsed());
        }
        took.sort();
        let (median, longest) = (took.get(took.len() / 2), took.last());
        println!("all is as before after {median:.1?}, at most {longest:.1?}");
        Ok(())
    })?;

    // The process of a leaf dies and is started again.
    let loss = under_traffic(&rack, "the process of leaf-1 is killed", || {
        rack.crash("leaf-1")?;
        rack.complete()?;
        rack.as_before(&before)
    })?;
    ensure!(loss.longest < BFD_BOUND, "{loss}");
    let loss = under_traffic(&rack, "the process of node-1 is killed, with BFD", || {
        rack.crash("node-1")?;
        rack.complete()?;
        rack.as_before(&before)
    })?;
    ensure!(loss.longest < BFD_BOUND, "{loss}");

    without_bfd(&rack)?;
    let before = rack.tables()?;
    under_traffic(
        &rack,
        "the process of node-1 is killed, without BFD",
        || {
            rack.crash("node-1")?;
            rack.complete()?;
            rack.as_before(&before)
        },
    )?;
    Ok(())
}

/// Nodes and leaves do without BFD from now on.
fn without_bfd(rack: &Rack) -> Result<()> {
    for port in ["eth1", "eth2"] {
        let patch = r#"{"spec":{"bfd":null}}"#;
        let line = format!("patch bgppeer leaf-{port} --type=merge -p {patch}");
        rack.cluster.kubectl(&line)?.ok()?;
    }
    for leaf in ["leaf-1", "leaf-2", "leaf-3", "leaf-4"] {
        rack.reconfigure(leaf, |config| {
            let neighbors = config["neighbors"].as_array_mut().into_iter().flatten();
            for neighbor in neighbors.filter_map(Value::as_object_mut) {
                if neighbor["interface"]
                    .as_str()
                    .is_some_and(|name| name.starts_with("node"))
                {
                    neighbor.remove("bfd");
                }
            }
        })?;
    }
    rack.complete()
}

#[test]
fn nodes_and_racks_are_lost_and_come_back() -> Result<()> {
    let rack = start(&["--node-monitor-grace-period", "15"])?;
    let cluster = &rack.cluster;
    let before = rack.tables()?;
    assert_eq!(
        cluster.field("pods -l app=movable", "{.items[0].spec.nodeName}")?,
        "node-4"
    );
    let lost = block(&rack, "node-4")?;
    // The node is lost: nothing else is.
    let loss = under_traffic(&rack, "node-4 is lost", || {
        rack.silence("node-4")?;
        wait::until("its routes to go", || {
            Ok(!routed(&rack, "leaf-3", &lost)? && !routed(&rack, "node-1", &lost)?)
        })
    })?;
    ensure!(loss.lost == 0, "{loss}");

    // Meanwhile the rack of the server is lost, but for its nodes' way to the API.
    let server = block(&rack, "node-3")?;
    for leaf in ["leaf-3", "leaf-4"] {
        rack.silence(leaf)?;
    }
    wait::until("the rack's routes to go", || {
        Ok(!routed(&rack, "node-1", &server)?)
    })?;
    let first = block(&rack, "node-1")?;
    ensure!(routed(&rack, "node-2", &first)?, "the other rack is well");
    wait::until("the lost node's pod to be elsewhere", || {
        let nodes = cluster.field(
            "pods -l app=movable --field-selector=status.phase=Running",
            "{.items[*].spec.nodeName}",
        )?;
        Ok(nodes
            .split(' ')
            .any(|node| !node.is_empty() && node != "node-4"))
    })?;
    cluster
        .kubectl("rollout status deployment/movable --timeout=60s")?
        .ok()?;

    for member in ["leaf-3", "leaf-4", "node-4"] {
        rack.speak(member)?;
    }
    rack.complete()?;
    rack.as_before(&before)?;
    cluster
        .kubectl("wait --for=condition=Ready node --all --timeout=60s")?
        .ok()?;
    let loss = under_traffic(&rack, "peapod itself is killed, with all it keeps", || {
        cluster.crash()?;
        cluster.start()?;
        rack.complete()?;
        rack.as_before(&before)
    })?;
    ensure!(loss.lost == 0, "{loss}");
    Ok(())
}
