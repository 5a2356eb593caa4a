//! Containers that pretend: what the API shows, what stands on the disk, and what survives a
//! restart of the agent.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use peapod_api::attach::PodNetwork;
use peapod_nodelet::runtime::Runtime;
use peapod_nodelet::runtime::hollow::Hollow;
use serde_json::{Value, json};

use crate::world::{World, container, id, phase, ready, wait};

async fn pretending() -> (World, Hollow) {
    let hollow = Hollow::default();
    (
        World::new(std::sync::Arc::new(hollow.clone())).await,
        hollow,
    )
}

fn app() -> Value {
    json!({"name": "app", "image": "example.com/app:1"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_from_creation_to_its_end() {
    let (mut world, hollow) = pretending().await;
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "cm"}, "data": {"mode": "fast"}}))
        .await;
    world
        .create::<Secret>(json!({"metadata": {"name": "s"}, "data": {"pass": "aHVudGVy"}}))
        .await;
    let mut app = app();
    app["env"] = json!([{"name": "MODE", "valueFrom":
        {"configMapKeyRef": {"name": "cm", "key": "mode"}}}]);
    app["volumeMounts"] = json!([{"name": "cm", "mountPath": "/cm"}]);
    let spec = json!({"containers": [app], "volumes": [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "e", "emptyDir": {}},
    ]});
    world.pod("web", spec).await;

    let pod = world.until("web", ready).await;
    let status = pod.status.as_ref().unwrap();
    assert_eq!(phase(&pod), "Running");
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(status.pod_ip.as_deref().unwrap().starts_with("10.244.0."));
    assert_eq!(container(&pod).restart_count, 0);

    let volumes = world.pod_dir(&pod).join("volumes");
    let read = |path: &Path| {
        std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    assert_eq!(
        read(&volumes.join("kubernetes.io~configmap/cm/mode")),
        "fast"
    );
    assert_eq!(read(&volumes.join("kubernetes.io~secret/s/pass")), "hunter");
    assert!(volumes.join("kubernetes.io~empty-dir/e").is_dir());
    let projected = std::fs::read_dir(volumes.join("kubernetes.io~projected")).unwrap();
    let token = projected.map(|entry| entry.unwrap().path()).next().unwrap();
    assert_eq!(read(&token.join("namespace")), "default");
    assert_eq!(read(&token.join("ca.crt")), "CA");
    assert_eq!(
        read(&token.join("token")).split('.').count(),
        3,
        "a token is a JWT"
    );
    let hosts = read(&world.pod_dir(&pod).join("etc/hosts"));
    assert!(hosts.contains(&format!("{}\tweb\n", status.pod_ip.as_deref().unwrap())));

    world
        .pods()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone("web").await;
    assert!(!world.pod_dir(&pod).exists());
    assert!(hollow.containers().await.unwrap().is_empty());
    assert!(world.network.attached().await.unwrap().is_empty());
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_follow_their_objects() {
    let (mut world, _hollow) = pretending().await;
    let spec = json!({"containers": [app()], "automountServiceAccountToken": false,
        "volumes": [{"name": "cm", "configMap": {"name": "late"}}]});
    let pod = world.pod("web", spec).await;
    let stuck = |pod: &Pod| phase(pod) == "Pending";
    world.until("web", stuck).await;
    world
        .create::<ConfigMap>(json!({"metadata": {"name": "late"}, "data": {"k": "1"}}))
        .await;
    world.until("web", ready).await;

    let file = world
        .pod_dir(&pod)
        .join("volumes/kubernetes.io~configmap/cm/k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "default");
    let change = Patch::Merge(json!({"data": {"k": "2"}}));
    maps.patch("late", &PatchParams::default(), &change)
        .await
        .unwrap();
    let changed = async {
        while std::fs::read_to_string(&file).unwrap() != "2" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(changed).await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_are_counted_across_restarts_of_the_agent() {
    let (mut world, hollow) = pretending().await;
    world.pod("web", json!({"containers": [app()]})).await;
    let first = world.until("web", ready).await;
    hollow.exit(&id(&first), 3).unwrap();
    let second = world
        .until("web", |pod| ready(pod) && container(pod).restart_count == 1)
        .await;
    let last = container(&second)
        .last_state
        .clone()
        .unwrap()
        .terminated
        .unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));

    world.restart_agent().await;
    // Something that only the new agent can do.
    world.pod("later", json!({"containers": [app()]})).await;
    world.until("later", ready).await;
    let third = world.until("web", ready).await;
    assert_eq!(id(&third), id(&second), "the container runs on");
    assert_eq!(container(&third).restart_count, 1);

    // It ends while nobody looks.
    world.stop_agent().await;
    hollow.exit(&id(&third), 0).unwrap();
    world.start_agent();
    world
        .until("web", |pod| container(pod).restart_count == 2)
        .await;
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_ends_and_pods_that_do_not_fit() {
    let (mut world, hollow) = pretending().await;
    world
        .pod(
            "job",
            json!({"restartPolicy": "Never", "containers": [app()]}),
        )
        .await;
    let job = world.until("job", ready).await;
    hollow.exit(&id(&job), 0).unwrap();
    world.until("job", |pod| phase(pod) == "Succeeded").await;

    let mut big = app();
    big["resources"] = json!({"requests": {"cpu": "4000"}});
    world.pod("big", json!({"containers": [big]})).await;
    let refused = world.until("big", |pod| phase(pod) == "Failed").await;
    assert_eq!(refused.status.unwrap().reason.as_deref(), Some("OutOfcpu"));

    let node: Api<Node> = Api::all(world.client.clone());
    let status = node.get("n1").await.unwrap().status.unwrap();
    assert_eq!(status.node_info.unwrap().operating_system, "linux");
    let services: Api<Service> = Api::namespaced(world.client.clone(), "default");
    assert!(services.get_opt("kubernetes").await.unwrap().is_some());
    world.stop_agent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_the_agent_was_away_is_cleared() {
    let (mut world, hollow) = pretending().await;
    world.pod("gone", json!({"containers": [app()]})).await;
    let pod = world.until("gone", ready).await;
    world.stop_agent().await;
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    world.pods().delete("gone", &now).await.unwrap();
    world.until_gone("gone").await;
    assert!(world.pod_dir(&pod).exists());

    world.start_agent();
    let cleared = async {
        while world.pod_dir(&pod).exists() || !hollow.containers().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    wait(cleared).await;
    assert!(world.network.attached().await.unwrap().is_empty());
    world.stop_agent().await;
}
