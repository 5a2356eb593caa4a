//! Blocks of addresses of nodes, and nodes that fall silent.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use peapod_api::net::{IpBlock, IpPool};
use serde_json::json;

use super::frame::{Cluster, count, create, eventually, patch};

#[tokio::test]
async fn a_node_gets_a_block_of_each_family_and_keeps_it() {
    let cluster = Cluster::start().await;
    let (nodes, blocks) = (cluster.cluster::<Node>(), cluster.cluster::<IpBlock>());
    for name in ["n1", "n2"] {
        create(&nodes, json!({"metadata": {"name": name}})).await;
    }
    eventually("pod CIDRs on both", || async {
        let nodes = nodes.list(&ListParams::default()).await.unwrap();
        let cidrs = nodes
            .iter()
            .filter_map(|node| node.spec.as_ref()?.pod_cidrs.as_ref());
        cidrs.map(Vec::len).collect::<Vec<_>>() == [2, 2]
    })
    .await;
    assert_eq!(count(&blocks).await, 4);
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    eventually("the blocks of the node that went", || async {
        count(&blocks).await == 2
    })
    .await;
    let left = blocks.list(&ListParams::default()).await.unwrap();
    assert!(left.iter().all(|block| block.spec.node == "n2"));
}

/// The controllers' part of what a node with small blocks goes through; the agent is played.
#[tokio::test]
async fn a_node_grows_a_block_and_gives_it_back() {
    let config = peapod_controllers::Config {
        block_idle: Duration::from_millis(10),
        cluster_cidrs: Vec::new(),
        ..Default::default()
    };
    let cluster = Cluster::with(config).await;
    let (nodes, blocks) = (cluster.cluster::<Node>(), cluster.cluster::<IpBlock>());
    let (pods, pools) = (cluster.api::<Pod>(), cluster.cluster::<IpPool>());
    let small =
        json!({"metadata": {"name": "small"}, "spec": {"cidr": "10.1.0.0/24", "blockSize": 30}});
    create(&pools, small).await;
    let overlapping =
        json!({"metadata": {"name": "more"}, "spec": {"cidr": "10.1.0.128/25", "blockSize": 30}});
    let overlapping = serde_json::from_value(overlapping).unwrap();
    let refused = pools.create(&PostParams::default(), &overlapping).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("overlap with the IpPool \"small\"")
    );
    create(&nodes, json!({"metadata": {"name": "n1"}})).await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}})
    };
    for name in ["p1", "p2", "p3"] {
        create(&pods, pod(name)).await;
    }
    let used = |wanted: u64| {
        let pools = pools.clone();
        async move {
            let status = pools.get("small").await.unwrap().status;
            status.is_some_and(|status| status.blocks.used == wanted)
        }
    };
    eventually("a second block", || used(2)).await;
    let node = nodes.get("n1").await.unwrap();
    let cidrs = node.spec.unwrap().pod_cidrs.unwrap();
    assert_eq!(cidrs, ["10.1.0.0/30"], "a copy of the first");
    let refused = pools.delete("small", &DeleteParams::default()).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("2 of its blocks are held by nodes (n1)")
    );
    for name in ["p1", "p2", "p3"] {
        let now = DeleteParams::default().grace_period(0);
        pods.delete(name, &now).await.unwrap();
    }
    let further = "10-1-0-4-30";
    eventually("the second block to be asked back", || async {
        let block = blocks.get(further).await.unwrap();
        block.metadata.deletion_timestamp.is_some()
    })
    .await;
    patch(&blocks, further, json!({"metadata": {"finalizers": null}})).await;
    eventually("it to be free", || used(1)).await;
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    eventually("all to be free", || used(0)).await;
    pools
        .delete("small", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_silent_node_is_tainted_and_its_pods_leave() {
    let config = peapod_controllers::Config {
        node_grace: Duration::from_millis(1500),
        ..Default::default()
    };
    let cluster = Cluster::with(config).await;
    let (nodes, pods) = (cluster.cluster::<Node>(), cluster.api::<Pod>());
    let ready = |name: &str, heartbeat: &str| {
        json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastHeartbeatTime": heartbeat},
        ]}})
    };
    for name in ["alive", "silent"] {
        create(&nodes, ready(name, "2026-01-01T00:00:00Z")).await;
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "silent", "containers": [{"name": "c", "image": "i"}],
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": 0}],
    }});
    create(&pods, pod).await;
    let mut beat = 0;
    eventually("the pod to leave the silent node", || {
        beat += 1;
        let heartbeat = format!("2026-01-01T00:{:02}:{:02}Z", beat / 60 % 60, beat % 60);
        let (nodes, pods, body) = (nodes.clone(), pods.clone(), ready("alive", &heartbeat));
        async move {
            let patch = Patch::Merge(json!({"status": body["status"]}));
            nodes
                .patch_status("alive", &PatchParams::default(), &patch)
                .await
                .unwrap();
            pods.get_opt("p").await.unwrap().is_none()
        }
    })
    .await;
    let silent = nodes.get("silent").await.unwrap();
    let conditions = silent.status.unwrap().conditions.unwrap();
    let ready = conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_deref()),
        ("Unknown", Some("NodeStatusUnknown"))
    );
    let alive = nodes.get("alive").await.unwrap();
    assert_eq!(
        alive.spec.and_then(|spec| spec.taints).unwrap_or_default(),
        []
    );
}
