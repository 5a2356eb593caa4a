//! Stock kubectl drives the cluster.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command, wait};

const HELLO: &str = include_str!("../../examples/hello/hello.yaml");

fn with_hello() -> Result<Cluster> {
    let cluster = Cluster::up()?;
    cluster.apply(HELLO)?;
    cluster
        .kubectl("rollout status deployment/hello --timeout=60s")?
        .ok()?;
    Ok(cluster)
}

/// A kubectl that goes on; ended when dropped.
struct Background(Child);

impl Background {
    fn start(cluster: &Cluster, line: &str) -> Result<Self> {
        let child = Command::new("kubectl")
            .args(line.split_whitespace())
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    fn lines(&mut self) -> Result<impl Iterator<Item = String> + use<>> {
        let stdout = self.0.stdout.take().context("no output")?;
        Ok(BufReader::new(stdout).lines().map_while(Result::ok))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn reads_and_writes() -> Result<()> {
    let cluster = with_hello()?;
    let again = cluster.apply(HELLO)?;
    assert!(again.contains("deployment.apps/hello unchanged"), "{again}");
    let applied = cluster.kubectl_with(
        &["apply", "--server-side", "-f", "-"],
        Some("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"),
    )?;
    assert!(applied.ok()?.contains("configmap/c serverside-applied"));

    let wide = cluster.kubectl("get pods -o wide")?.ok()?;
    for column in ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"] {
        assert!(wide.contains(column), "{column} in\n{wide}");
    }
    assert_eq!(wide.matches(" 1/1 ").count(), 3, "{wide}");

    let described = cluster.kubectl("describe deployment hello")?.ok()?;
    assert!(
        described.contains("3 desired | 3 updated | 3 total | 3 available"),
        "{described}"
    );
    let described = cluster
        .kubectl("describe pod -l app=hello --show-events=true")?
        .ok()?;
    assert!(
        described.contains("Successfully assigned default/hello-"),
        "{described}"
    );
    let described = cluster.kubectl("describe service hello")?.ok()?;
    assert!(described.contains("Endpoints:"), "{described}");
    let described = cluster.kubectl("describe node")?.ok()?;
    assert!(described.contains("KubeletReady"), "{described}");

    let explained = cluster
        .kubectl("explain pod.spec.containers.livenessProbe")?
        .ok()?;
    assert!(
        explained.contains("FIELD: livenessProbe <Probe>"),
        "{explained}"
    );

    let changed = HELLO.replace("replicas: 3", "replicas: 4");
    let diff = cluster.kubectl_with(&["diff", "-f", "-"], Some(&changed))?;
    assert_eq!(diff.status, 1, "{}", diff.stderr);
    assert!(diff.stdout.contains("+  replicas: 4"), "{}", diff.stdout);

    let waited =
        cluster.kubectl("wait --for=condition=Available deployment/hello --timeout=30s")?;
    assert!(waited.ok()?.contains("condition met"));
    Ok(())
}

#[test]
fn watches() -> Result<()> {
    let cluster = Cluster::up()?;
    let mut watch = Background::start(&cluster, "get configmaps -w --no-headers")?;
    let mut lines = watch.lines()?;
    // kube-root-ca.crt is there from the start, so its line says that the watch runs.
    assert!(
        lines
            .next()
            .context("no line")?
            .starts_with("kube-root-ca.crt")
    );
    cluster.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen}\n")?;
    assert!(lines.next().context("no line")?.starts_with("seen"));
    cluster.kubectl("delete configmap seen")?.ok()?;
    assert!(lines.next().context("no line")?.starts_with("seen"));
    Ok(())
}

#[test]
fn rolls_out() -> Result<()> {
    let cluster = with_hello()?;
    let image = || {
        cluster.field(
            "deployment/hello",
            "{.spec.template.spec.containers[0].image}",
        )
    };
    let settle = || {
        cluster
            .kubectl("rollout status deployment/hello --timeout=90s")?
            .ok()
    };

    cluster
        .kubectl("set image deployment/hello hello=peapod.dev/demo:v2")?
        .ok()?;
    settle()?;
    assert_eq!(image()?, "peapod.dev/demo:v2");
    wait::until("v2", || {
        Ok(cluster.request("hello", "/")?.contains("hello v2"))
    })?;

    cluster.kubectl("rollout undo deployment/hello")?.ok()?;
    settle()?;
    assert_eq!(image()?, "peapod.dev/demo:v1");

    let before = cluster.field("pods -l app=hello", "{.items[*].metadata.uid}")?;
    cluster.kubectl("rollout restart deployment/hello")?.ok()?;
    settle()?;
    wait::until("other pods", || {
        let after = cluster.field("pods -l app=hello", "{.items[*].metadata.uid}")?;
        Ok(!before.split(' ').any(|uid| after.contains(uid)))
    })?;

    cluster
        .kubectl("scale deployment/hello --replicas=1")?
        .ok()?;
    settle()?;
    wait::until("one pod", || {
        Ok(cluster
            .field("pods -l app=hello", "{.items[*].metadata.name}")?
            .split_whitespace()
            .count()
            == 1)
    })
}

#[test]
fn streams() -> Result<()> {
    let cluster = with_hello()?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;

    let logs = cluster.kubectl(&format!("logs {pod}"))?.ok()?;
    assert!(logs.contains("serving on"), "{logs}");
    let mut follow = Background::start(&cluster, &format!("logs -f {pod}"))?;
    assert!(
        follow
            .lines()?
            .next()
            .context("no line")?
            .contains("serving on")
    );

    let said = cluster.kubectl(&format!(
        "exec {pod} -- peapod-demo get http://127.0.0.1:8080/"
    ))?;
    assert!(said.ok()?.contains("hello v1 from"));
    let failed = cluster.kubectl(&format!("exec {pod} -- peapod-demo nonsense"))?;
    assert_eq!(failed.status, 1, "{}", failed.stderr);
    assert!(
        failed
            .stderr
            .contains("command terminated with exit code 1"),
        "{}",
        failed.stderr
    );

    // A terminal on both ends.
    let line = format!("kubectl exec -it {pod} -- peapod-demo get http://127.0.0.1:8080/");
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .env("KUBECONFIG", cluster.kubeconfig());
    let said = command::finish(terminal, None)?.ok()?;
    assert!(said.contains("hello v1 from"), "{said}");

    let mut forward = Background::start(&cluster, &format!("port-forward {pod} :8080"))?;
    // Held to the end: a closed pipe would end kubectl.
    let mut lines = forward.lines()?;
    let line = lines.next().context("no line")?;
    let port = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let url = format!("http://127.0.0.1:{}/", port.context("no port")?);
    for _ in 0..3 {
        let said = command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.ok()?;
        assert!(said.contains("hello v1 from"), "{said}");
    }
    Ok(())
}

/// As kubectl before 1.31 speaks: SPDY by itself, not in a WebSocket.
#[test]
fn streams_over_spdy() -> Result<()> {
    let cluster = with_hello()?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    let kubectl = |args: &[&str]| {
        let mut kubectl = Command::new("kubectl");
        kubectl
            .args(args)
            .env("KUBECONFIG", cluster.kubeconfig())
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        kubectl
    };
    let url = "http://127.0.0.1:8080/";
    let get = ["exec", &pod, "-v=8", "--", "peapod-demo", "get", url];
    let said = command::finish(kubectl(&get), None)?;
    assert!(said.stderr.contains("SPDY/3.1"), "{}", said.stderr);
    assert!(said.ok()?.contains("hello v1 from"));
    let wrong = ["exec", &pod, "--", "peapod-demo", "nonsense"];
    let failed = command::finish(kubectl(&wrong), None)?;
    assert_eq!(failed.status, 1, "{}", failed.stderr);
    let ended = "command terminated with exit code 1";
    assert!(failed.stderr.contains(ended), "{}", failed.stderr);

    let line = format!("kubectl exec -it {pod} -- peapod-demo get {url}");
    let mut terminal = kubectl(&[]);
    let environment: Vec<_> = terminal
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .envs(environment);
    let said = command::finish(terminal, None)?.ok()?;
    assert!(said.contains("hello v1 from"), "{said}");

    let mut forward = kubectl(&["port-forward", &pod, ":8080"]);
    forward.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut forward = Background(forward.spawn()?);
    // Held to the end: a closed pipe would end kubectl.
    let mut lines = forward.lines()?;
    let line = lines.next().context("no line")?;
    let port = line.split("127.0.0.1:").nth(1).context("no port")?;
    let port = port.split(' ').next().unwrap_or_default();
    let url = format!("http://127.0.0.1:{port}/");
    let said = command::run("curl", ["-sS", "--fail", "--max-time", "20", &url])?.ok()?;
    assert!(said.contains("hello v1 from"), "{said}");
    Ok(())
}

#[test]
fn top_shows_what_is_used() -> Result<()> {
    let cluster = with_hello()?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    // A container that has just started is not known at once.
    wait::until("the pod is measured", || {
        Ok(cluster
            .kubectl(&format!("top pod {pod} --no-headers"))?
            .ok()
            .is_ok_and(|line| line.starts_with(&pod)))
    })?;
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/{pod}");
    let used = cluster.kubectl(&format!("get --raw {path}"))?.ok()?;
    // The demo sleeps: its processor time may be nothing, its memory may not.
    let memory = used.split("\"memory\":\"").nth(1);
    let memory = memory.and_then(|rest| rest.split("Ki").next());
    let memory: u64 = memory.context("no memory")?.parse()?;
    assert!((50..500_000).contains(&memory), "{used}");
    assert!(used.contains("\"window\":"), "{used}");
    let nodes = cluster.kubectl("top nodes --no-headers")?.ok()?;
    assert_eq!(nodes.lines().count(), 1, "{nodes}");
    assert!(nodes.contains('%'), "{nodes}");
    let own = cluster.peapod(["top", "node"])?.ok()?;
    assert!(own.lines().count() == 2 && own.contains("Mi"), "{own}");
    let none =
        cluster.kubectl("get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods/none")?;
    assert!(none.stderr.contains("not found"), "{}", none.stderr);
    Ok(())
}

#[test]
fn deletes() -> Result<()> {
    let cluster = with_hello()?;
    let pod = cluster.field("pods -l app=hello", "{.items[0].metadata.name}")?;
    cluster.kubectl(&format!("delete pod {pod}"))?.ok()?;
    cluster
        .kubectl("rollout status deployment/hello --timeout=60s")?
        .ok()?;
    let now = cluster.field("pods -l app=hello", "{.items[*].metadata.name}")?;
    assert!(!now.contains(&pod), "{pod} should be gone from {now}");
    cluster
        .kubectl_with(&["delete", "-f", "-"], Some(HELLO))?
        .ok()?;
    wait::until("no pod and no set", || {
        Ok(cluster
            .kubectl("get pods,replicasets,endpointslices -l app=hello -o name")?
            .ok()?
            .is_empty())
    })?;
    let missing = cluster.kubectl("get pod nothing")?.refused()?;
    assert!(
        missing.contains("Error from server (NotFound): pods \"nothing\" not found"),
        "{missing}"
    );
    Ok(())
}
