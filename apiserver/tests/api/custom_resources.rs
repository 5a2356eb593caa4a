//! Custom resources, driven by stock kubectl.

use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, WatchEvent, WatchParams};

use crate::common::{self, Listening};
use crate::kubectl::kubectl;

const DEFINITION: &str = include_str!("../golden/crontabs.yaml");

async fn run(to: &Listening, args: &str, input: &str) -> String {
    match kubectl(to, args, input).await {
        Ok(told) => told,
        Err(told) => panic!("kubectl {args}: {told}"),
    }
}

async fn refused(to: &Listening, args: &str, input: &str) -> String {
    match kubectl(to, args, input).await {
        Ok(told) => panic!("kubectl {args} was not refused: {told}"),
        Err(told) => told,
    }
}

async fn defined() -> Listening {
    let to = common::listening().await;
    let told = run(&to, "apply -f -", DEFINITION).await;
    assert_eq!(
        told,
        "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n"
    );
    run(
        &to,
        "wait --for=condition=Established --timeout=30s crd/crontabs.stable.example.com",
        "",
    )
    .await;
    to
}

fn crontab(spec: &str) -> String {
    format!(
        "apiVersion: stable.example.com/v1\nkind: CronTab\nmetadata: {{name: c, namespace: default}}\nspec: {spec}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn served_as_any_other_kind() {
    let to = defined().await;
    let told = run(
        &to,
        "apply -f -",
        &crontab("{cronSpec: '* * * * */5', image: x}"),
    )
    .await;
    assert_eq!(told, "crontab.stable.example.com/c created\n");
    let table = run(&to, "get ct", "").await;
    let words: Vec<&str> = table.split_whitespace().take(7).collect();
    assert_eq!(words, ["NAME", "SPEC", "REPLICAS", "AGE", "c", "*", "*"]);
    let spec = run(&to, "get ct c -o jsonpath={.spec}", "").await;
    assert_eq!(
        spec,
        r#"{"cronSpec":"* * * * */5","image":"x","replicas":1}"#
    );
    let generation = "get ct c -o jsonpath={.metadata.generation}";
    assert_eq!(run(&to, generation, "").await, "1");
    assert_eq!(
        run(&to, "scale ct/c --replicas=3", "").await,
        "crontab.stable.example.com/c scaled\n"
    );
    assert_eq!(run(&to, generation, "").await, "2");
    run(&to, "patch ct c --subresource=status --type=merge -p {\"status\":{\"replicas\":2},\"spec\":{\"replicas\":9}}", "").await;
    assert_eq!(
        run(
            &to,
            "get ct c -o jsonpath={.spec.replicas}/{.status.replicas}",
            ""
        )
        .await,
        "3/2"
    );
    assert_eq!(run(&to, generation, "").await, "2");
    let named = run(&to, "get ct -A --field-selector spec.image=x -o name", "").await;
    assert_eq!(named, "crontab.stable.example.com/c\n");
    assert_eq!(
        run(&to, "get ct -A --field-selector spec.image=y -o name", "").await,
        ""
    );
    assert!(
        run(&to, "get all", "")
            .await
            .contains("crontab.stable.example.com/c")
    );
    let explained = run(&to, "explain ct.spec.cronSpec", "").await;
    assert!(explained.contains("When it runs"), "{explained}");
    run(
        &to,
        "apply --server-side --force-conflicts -f -",
        &crontab("{image: other}"),
    )
    .await;
    let fields = run(&to, "get ct c -o jsonpath={.spec.image}", "").await;
    assert_eq!(fields, "other");
    to.stop.cancel();
}

/// What controllers written for kube-apiserver rely on: a lost update is told, a scale without a
/// count is a fault.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_name_their_version_and_scales_their_count() {
    let to = defined().await;
    let path = "/apis/stable.example.com/v1/namespaces/default/crontabs";
    let finalized = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "c", "finalizers": ["mine", "example.com/mine"]}, "spec": {"image": "x"}}"#;
    let create = "create --warnings-as-errors -f -";
    let told = refused(&to, create, finalized).await;
    assert!(
        told.contains("metadata.finalizers: \"mine\": prefer a domain-qualified finalizer name"),
        "{told}"
    );
    assert!(!told.contains("example.com/mine"), "{told}");
    let bare = r#"{"apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "c"}, "spec": {"image": "y"}}"#;
    let told = refused(&to, &format!("replace --raw {path}/c -f -"), bare).await;
    assert!(
        told.contains(
            "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
        ),
        "{told}"
    );
    let one = "patch ct c --type=merge -p {\"spec\":{\"replicas\":null}}";
    run(&to, one, "").await;
    let scale = run(&to, &format!("get --raw {path}/c/scale"), "").await;
    assert!(scale.contains("\"kind\":\"Scale\""), "{scale}");
    run(&to, "patch ct c --type=merge -p {\"spec\":null}", "").await;
    let told = refused(&to, &format!("get --raw {path}/c/scale"), "").await;
    assert!(told.contains("does not exist"), "{told}");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_in_the_words_of_upstream() {
    let to = defined().await;
    let told = refused(
        &to,
        "create -f -",
        &crontab("{cronSpec: '* * * *', replicas: 15}"),
    )
    .await;
    assert!(told.contains(r"spec.cronSpec: Invalid value: "), "{told}");
    assert!(
        told.contains(
            r"spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"
        ),
        "{told}"
    );
    assert!(
        told.contains("spec.replicas: Invalid value: 15: spec.replicas in body should be less than or equal to 10"),
        "{told}"
    );
    let told = refused(&to, "create -f -", &crontab("{odd: 1}")).await;
    assert!(
        told.contains(r#"strict decoding error: unknown field "spec.odd""#),
        "{told}"
    );
    let told = refused(
        &to,
        "apply --server-side --validate=false -f -",
        &crontab("{odd: 1}"),
    )
    .await;
    assert!(
        told.contains("failed to create typed patch object (default/c; stable.example.com/v1, Kind=CronTab): .spec.odd: field not declared in schema"),
        "{told}"
    );
    run(&to, "create --validate=false -f -", &crontab("{odd: 1}")).await;
    assert_eq!(run(&to, "get ct c -o jsonpath={.spec.odd}", "").await, "");
    let told = refused(&to, "patch ct c --type=strategic -p {\"spec\":{}}", "").await;
    assert!(
        told.contains("unknown format") || told.contains("strategic merge patch is not supported"),
        "{told}"
    );
    let bad = DEFINITION.replace("type: string", "");
    let bad = bad
        .replace("crontabs", "others")
        .replace("crontab", "other")
        .replace("CronTab", "Other");
    let told = refused(&to, "create --validate=false -f -", &bad).await;
    assert!(
        told.contains("Required value: must not be empty for specified object fields"),
        "{told}"
    );
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_takes_its_objects_with_it() {
    let to = defined().await;
    run(&to, "create -f -", &crontab("{image: x}")).await;
    run(
        &to,
        "delete crd crontabs.stable.example.com --timeout=30s",
        "",
    )
    .await;
    let told = refused(&to, "get ct", "").await;
    assert!(
        told.contains("could not find the requested resource")
            || told.contains("doesn't have a resource type"),
        "{told}"
    );
    run(&to, "apply -f -", DEFINITION).await;
    run(
        &to,
        "wait --for=condition=Established --timeout=30s crd/crontabs.stable.example.com",
        "",
    )
    .await;
    assert_eq!(run(&to, "get ct -A -o name", "").await, "");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_end_when_the_definition_changes_and_when_it_goes() {
    let to = defined().await;
    let kind = ApiResource {
        group: "stable.example.com".into(),
        version: "v1".into(),
        api_version: "stable.example.com/v1".into(),
        kind: "CronTab".into(),
        plural: "crontabs".into(),
    };
    let client = common::admin(&to.server);
    let objects: Api<DynamicObject> = Api::namespaced_with(client, "default", &kind);
    run(&to, "create -f -", &crontab("{image: x}")).await;
    let change = r#"[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/description","value":"x"}]"#;
    for (change, told) in [
        (
            format!("patch crd crontabs.stable.example.com --type=json -p {change}"),
            vec!["ADDED"],
        ),
        (
            "delete crd crontabs.stable.example.com --timeout=30s".to_owned(),
            vec!["ADDED", "DELETED"],
        ),
    ] {
        let events = objects.watch(&WatchParams::default(), "0").await.unwrap();
        run(&to, &change, "").await;
        let seen = events.filter_map(|event| async {
            match event.unwrap() {
                WatchEvent::Added(_) => Some("ADDED"),
                WatchEvent::Deleted(_) => Some("DELETED"),
                WatchEvent::Bookmark(_) => None,
                other => panic!("{other:?}"),
            }
        });
        let seen: Vec<_> = tokio::time::timeout(Duration::from_secs(30), seen.collect())
            .await
            .expect("the watch ends");
        assert_eq!(seen, told, "{change}");
    }
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_belong_to_who_came_first() {
    let to = defined().await;
    let second = DEFINITION
        .replace("plural: crontabs", "plural: jobs")
        .replace("name: crontabs.", "name: jobs.");
    run(&to, "apply -f -", &second).await;
    run(
        &to,
        "wait --for=condition=NamesAccepted=False --timeout=30s crd/jobs.stable.example.com",
        "",
    )
    .await;
    let told = run(&to, "get crd jobs.stable.example.com -o jsonpath={.status.conditions[?(@.type==\"NamesAccepted\")].message}", "").await;
    assert_eq!(told, r#""crontab" is already in use"#);
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_views_of_one_object() {
    let to = defined().await;
    run(&to, "create -f -", &crontab("{image: x}")).await;
    let v1 = DEFINITION.find("  - name: v1").unwrap();
    let end = DEFINITION.find("  scope:").unwrap();
    let beta = DEFINITION[v1..end]
        .replace("name: v1", "name: v1beta1")
        .replace("storage: true", "storage: false");
    let both = format!("{}{beta}{}", &DEFINITION[..end], &DEFINITION[end..]);
    run(&to, "apply -f -", &both).await;
    let mut versions = String::new();
    for _ in 0..200 {
        versions = kubectl(&to, "get --raw /apis/stable.example.com", "")
            .await
            .unwrap();
        if versions.contains("v1beta1") {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(
        versions.contains(r#""preferredVersion":{"groupVersion":"stable.example.com/v1","#),
        "{versions}"
    );
    let seen = run(
        &to,
        "get crontabs.v1beta1.stable.example.com c -o jsonpath={.apiVersion}",
        "",
    )
    .await;
    assert_eq!(seen, "stable.example.com/v1beta1");
    let listed = run(
        &to,
        "get --raw /apis/stable.example.com/v1beta1/crontabs",
        "",
    )
    .await;
    assert!(
        listed.contains(r#""apiVersion":"stable.example.com/v1beta1""#),
        "{listed}"
    );
    assert!(
        listed.contains(r#""items":[{"apiVersion":"stable.example.com/v1beta1""#),
        "{listed}"
    );
    to.stop.cancel();
}
