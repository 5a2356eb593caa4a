//! StatefulSets, DaemonSets, Jobs and CronJobs.

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, ReplicationController};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::frame::{Cluster, count, create, eventually, patch};

fn template(labels: Value, image: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// The names of all pods, and their images.
async fn pods(cluster: &Cluster) -> Vec<(String, String)> {
    let all = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let image = |pod: &Pod| {
        pod.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    };
    all.iter().map(|pod| (pod.name_any(), image(pod))).collect()
}

fn named(names: &[&str], image: &str) -> Vec<(String, String)> {
    names
        .iter()
        .map(|name| ((*name).to_owned(), image.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_stateful_set_has_names_claims_and_revisions() {
    let cluster = Cluster::start().await;
    let sets = cluster.api::<StatefulSet>();
    let claims = cluster.api::<PersistentVolumeClaim>();
    let mut mounting = template(json!({"app": "db"}), "v1");
    mounting["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    create(&sets, json!({
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": mounting,
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"},
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }],
        },
    })).await;
    let ready = |replicas: i32| {
        let sets = &sets;
        move || async move {
            let set = sets.get("db").await.unwrap();
            let status = set.status.unwrap_or_default();
            status.ready_replicas == Some(replicas)
                && status.replicas == replicas
                && status.updated_replicas == Some(replicas)
                && status.current_revision == status.update_revision
                && status.observed_generation == set.metadata.generation
        }
    };
    eventually("three replicas", ready(3)).await;
    assert_eq!(pods(&cluster).await, named(&["db-0", "db-1", "db-2"], "v1"));
    assert_eq!(count(&claims).await, 3);
    let pod = cluster.api::<Pod>().get("db-1").await.unwrap();
    let spec = pod.spec.unwrap();
    assert_eq!(
        (spec.hostname.as_deref(), spec.subdomain.as_deref()),
        (Some("db-1"), Some("db"))
    );

    patch(&sets, "db", image("v2")).await;
    eventually("the update", || async {
        ready(3)().await && pods(&cluster).await == named(&["db-0", "db-1", "db-2"], "v2")
    })
    .await;
    assert_eq!(count(&cluster.api::<ControllerRevision>()).await, 2);

    patch(&sets, "db", json!({"spec": {"replicas": 1}})).await;
    eventually("one replica", ready(1)).await;
    eventually("the claims of the others to go", || async {
        count(&claims).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_daemon_set_has_a_pod_on_every_node() {
    let cluster = Cluster::start().await;
    let nodes = cluster.cluster::<Node>();
    for name in ["n1", "n2"] {
        create(&nodes, json!({"metadata": {"name": name}})).await;
    }
    let sets = cluster.api::<DaemonSet>();
    create(
        &sets,
        json!({
            "metadata": {"name": "agent"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": template(json!({"app": "agent"}), "v1"),
            },
        }),
    )
    .await;
    let ready = |number: i32| {
        let sets = &sets;
        move || async move {
            let set = sets.get("agent").await.unwrap();
            let status = set.status.unwrap_or_default();
            status.number_available == Some(number)
                && status.desired_number_scheduled == number
                && status.updated_number_scheduled == Some(number)
                && status.observed_generation == set.metadata.generation
        }
    };
    eventually("a pod on each node", ready(2)).await;
    create(&nodes, json!({"metadata": {"name": "n3"}})).await;
    eventually("a pod on the new node", ready(3)).await;
    patch(&sets, "agent", image("v2")).await;
    eventually("the update", || async {
        let all = pods(&cluster).await;
        ready(3)().await && all.len() == 3 && all.iter().all(|(_, image)| image == "v2")
    })
    .await;
    nodes.delete("n3", &DeleteParams::default()).await.unwrap();
    eventually("the pod to go with its node", || async {
        pods(&cluster).await.len() == 2
    })
    .await;
}

fn job(name: &str, ends: &str, spec: Value) -> Value {
    let mut job = json!({
        "metadata": {"name": name},
        "spec": {"template": template(json!({"ends": ends}), "v1")},
    });
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    for (field, value) in spec.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    job
}

/// Whether a job has a condition, and why.
async fn condition(cluster: &Cluster, name: &str, kind: &str) -> Option<String> {
    let job = cluster.api::<Job>().get_opt(name).await.unwrap()?;
    let conditions = job.status?.conditions?;
    let found = conditions
        .into_iter()
        .find(|one| one.type_ == kind && one.status == "True")?;
    found.reason
}

#[tokio::test]
async fn jobs_complete_and_fail_and_expire() {
    let cluster = Cluster::start().await;
    let jobs = cluster.api::<Job>();
    create(
        &jobs,
        job(
            "good",
            "Succeeded",
            json!({"completions": 5, "parallelism": 2}),
        ),
    )
    .await;
    eventually("completion", || async {
        condition(&cluster, "good", "Complete").await.as_deref() == Some("CompletionsReached")
    })
    .await;
    let status = jobs.get("good").await.unwrap().status.unwrap();
    assert_eq!(
        (status.succeeded, status.failed, status.active),
        (Some(5), None, None)
    );
    let left = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(left.items.len(), 5);
    assert!(
        left.iter().all(|pod| pod.finalizers().is_empty()),
        "every end is counted"
    );

    create(&jobs, job("bad", "Failed", json!({"backoffLimit": 0}))).await;
    eventually("failure", || async {
        condition(&cluster, "bad", "Failed").await.as_deref() == Some("BackoffLimitExceeded")
    })
    .await;

    let indexed = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    create(&jobs, job("indexed", "Succeeded", indexed)).await;
    eventually("all indexes", || async {
        condition(&cluster, "indexed", "Complete").await.is_some()
    })
    .await;
    let status = jobs.get("indexed").await.unwrap().status.unwrap();
    assert_eq!(status.completed_indexes.as_deref(), Some("0-2"));

    create(
        &jobs,
        job("brief", "Succeeded", json!({"ttlSecondsAfterFinished": 0})),
    )
    .await;
    eventually("the job to be deleted", || async {
        jobs.get_opt("brief").await.unwrap().is_none()
    })
    .await;
}

#[tokio::test]
async fn what_a_job_releases_is_not_held_and_what_it_adopts_is() {
    const HELD: &str = "batch.kubernetes.io/job-tracking";
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<Job>(), job("one", "Running", json!({}))).await;
    eventually("a pod", || async { count(&pods).await == 1 }).await;
    let name = pods.list(&ListParams::default()).await.unwrap().items[0].name_any();
    let held = |pod: &Pod| {
        let owned = !pod.owner_references().is_empty();
        (owned, pod.finalizers().iter().any(|one| one == HELD))
    };
    assert_eq!(held(&pods.get(&name).await.unwrap()), (true, true));

    let orphan = json!({"metadata": {"ownerReferences": null, "finalizers": null}});
    patch(&pods, &name, orphan).await;
    eventually("the pod to be adopted", || async {
        held(&pods.get(&name).await.unwrap()) == (true, true)
    })
    .await;

    patch(&pods, &name, json!({"metadata": {"labels": null}})).await;
    eventually("the pod to be released", || async {
        held(&pods.get(&name).await.unwrap()) == (false, false)
    })
    .await;
}

#[tokio::test]
async fn a_cron_job_starts_jobs_when_they_are_due() {
    let cluster = Cluster::start().await;
    let crons = cluster.api::<CronJob>();
    let mut template = job("unused", "Succeeded", json!({}));
    template.as_object_mut().unwrap().remove("metadata");
    create(
        &crons,
        json!({
            "metadata": {"name": "tick"},
            "spec": {"schedule": "* * * * *", "jobTemplate": template},
        }),
    )
    .await;
    let past = json!({"status": {"lastScheduleTime": "2026-01-01T00:00:00Z"}});
    let patched = crons
        .patch_status("tick", &PatchParams::default(), &Patch::Merge(past))
        .await;
    patched.unwrap();
    eventually("a job to be started and to succeed", || async {
        let status = crons.get("tick").await.unwrap().status.unwrap_or_default();
        status.last_successful_time.is_some()
    })
    .await;
    let jobs = cluster
        .api::<Job>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert!(jobs.iter().all(|job| job.name_any().starts_with("tick-")));
}

#[tokio::test]
async fn a_replication_controller_keeps_its_pods() {
    let cluster = Cluster::start().await;
    let controllers = cluster.api::<ReplicationController>();
    create(
        &controllers,
        json!({
            "metadata": {"name": "old"},
            "spec": {"replicas": 2, "template": template(json!({"app": "old"}), "v1")},
        }),
    )
    .await;
    let ready = |replicas: i32| {
        let controllers = &controllers;
        move || async move {
            let status = controllers.get("old").await.unwrap().status;
            let status = status.unwrap_or_default();
            status.replicas == replicas && status.ready_replicas == Some(replicas)
        }
    };
    eventually("two pods", ready(2)).await;
    patch(&controllers, "old", json!({"spec": {"replicas": 1}})).await;
    eventually("one pod", ready(1)).await;
    let left = cluster
        .api::<Pod>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let owner = &left.items[0].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.api_version.as_str()),
        ("ReplicationController", "v1")
    );
}

#[tokio::test]
async fn a_pods_ephemeral_volume_has_a_claim_that_is_the_pods() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let template = json!({"spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Mi"}},
    }});
    let pod = json!({"metadata": {"name": "web"}, "spec": {
        "containers": [{"name": "web", "image": "web"}],
        "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}],
    }});
    create(&cluster.api::<Pod>(), pod).await;
    eventually("the claim", || async {
        let claim = claims.get_opt("web-scratch").await.unwrap();
        claim.is_some_and(|claim| claim.owner_references()[0].kind == "Pod")
    })
    .await;
    let params = DeleteParams::default();
    cluster.api::<Pod>().delete("web", &params).await.unwrap();
    eventually("the claim to go with its pod", || async {
        claims.get_opt("web-scratch").await.unwrap().is_none()
    })
    .await;
}
