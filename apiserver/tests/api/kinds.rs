//! Stock kubectl and one object of every important kind: what it applies stays as it is, and
//! tables have the columns that people and scripts know.

use crate::common::{self, Listening};
use crate::kubectl::kubectl;

const OBJECTS: &str = include_str!("../golden/every-kind.yaml");

async fn run(to: &Listening, args: &str, input: &str) -> String {
    match kubectl(to, args, input).await {
        Ok(told) => told,
        Err(told) => panic!("kubectl {args}: {told}"),
    }
}

/// Applied again, nothing changes: defaults do not conflict with what was left out, and no
/// write is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_applied_once() {
    let to = common::listening().await;
    run(&to, "apply -f -", OBJECTS).await;
    run(&to, "apply --server-side -f -", OBJECTS).await;
    let versions = "get -f - -o jsonpath={.items[*].metadata.resourceVersion}";
    let before = run(&to, versions, OBJECTS).await;
    run(&to, "apply --server-side -f -", OBJECTS).await;
    assert_eq!(run(&to, versions, OBJECTS).await, before);
    assert_eq!(run(&to, "diff --server-side -f -", OBJECTS).await, "");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_have_the_columns_that_people_know() {
    let to = common::listening().await;
    run(&to, "apply -f -", OBJECTS).await;
    for (what, heading, row) in [
        ("pods", "NAME READY STATUS RESTARTS AGE", "p 0/1 Pending 0"),
        (
            "deploy",
            "NAME READY UP-TO-DATE AVAILABLE AGE",
            "web 0/2 0 0",
        ),
        (
            "svc/web",
            "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
            "web ClusterIP 10.",
        ),
        ("sts", "NAME READY AGE", "db 0/1"),
        (
            "pvc",
            "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE",
            "c Pending",
        ),
        (
            "sc",
            "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE",
            "sc (default) example.com/x Delete Immediate false",
        ),
        ("no", "NAME STATUS ROLES AGE VERSION", "n1 Unknown <none>"),
        (
            "jobs",
            "NAME STATUS COMPLETIONS DURATION AGE",
            "j Running 0/1",
        ),
        (
            "cj",
            "NAME SCHEDULE TIMEZONE SUSPEND ACTIVE LAST SCHEDULE AGE",
            "cj */5 * * * * <none> False 0 <none>",
        ),
        (
            "ing",
            "NAME CLASS HOSTS ADDRESS PORTS AGE",
            "i <none> a.b 80",
        ),
        ("secret", "NAME TYPE DATA AGE", "s Opaque 1"),
        (
            "endpointslices/es",
            "NAME ADDRESSTYPE PORTS ENDPOINTS AGE",
            "es IPv4 80 10.1.1.1",
        ),
    ] {
        let table = run(&to, &format!("get {what}"), "").await;
        let mut lines = table.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ")
        });
        assert_eq!(lines.next().as_deref(), Some(heading), "{what}");
        let found = lines.any(|line| line.starts_with(row));
        assert!(found, "{what}: no row {row:?} in\n{table}");
    }
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subresources_and_verbs_of_the_kinds() {
    let to = common::listening().await;
    run(&to, "apply -f -", OBJECTS).await;
    run(&to, "scale deploy web --replicas=5", "").await;
    run(&to, "set image deploy/web web=nginx:1.28", "").await;
    let told = run(
        &to,
        "get deploy web -o jsonpath={.spec.replicas}{.metadata.generation}",
        "",
    );
    assert_eq!(told.await, "53");
    run(&to, "cordon n1", "").await;
    run(&to, "taint node n1 a=b:NoSchedule", "").await;
    let node = run(&to, "get node n1", "").await;
    assert!(node.contains("SchedulingDisabled"), "{node}");
    let moved = OBJECTS.replace(
        "selector: {matchLabels: {app: web}}\n  template",
        "selector: {matchLabels: {app: x}}\n  template",
    );
    assert_ne!(moved, OBJECTS);
    let told = kubectl(&to, "apply -f -", &moved).await.unwrap_err();
    assert!(told.contains("field is immutable"), "{told}");
    to.stop.cancel();
}

/// What a write of a subresource changes of the metadata differs by kind, as upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_written_with_a_subresource() {
    let to = common::listening().await;
    run(&to, "apply -f -", OBJECTS).await;
    let of =
        "get deploy web -o jsonpath={.metadata.generation}/{.metadata.labels.x}/{.status.replicas}";
    let patch = |patch: &str| format!("patch deploy web --type=merge {patch}");
    let label = r#"-p {"metadata":{"labels":{"x":"y"}},"status":{"replicas":2}}"#;
    run(&to, &patch(&format!("--subresource=status {label}")), "").await;
    assert_eq!(run(&to, of, "").await, "1//2", "a status changes no label");
    let note = r#"-p {"metadata":{"annotations":{"x":"y"}}}"#;
    run(&to, &patch(&format!("--subresource=status {note}")), "").await;
    assert_eq!(
        run(&to, of, "").await,
        "1//2",
        "a status is no new generation"
    );
    run(
        &to,
        &patch(r#"-p {"metadata":{"annotations":{"x":"z"}}}"#),
        "",
    )
    .await;
    assert_eq!(
        run(&to, of, "").await,
        "2//2",
        "annotations are for the ReplicaSets, too"
    );
    run(
        &to,
        &patch(r#"-p {"metadata":{"annotations":{"x":"a"}},"spec":{"replicas":5}}"#),
        "",
    )
    .await;
    assert_eq!(run(&to, of, "").await, "3//2");
    to.stop.cancel();
}
