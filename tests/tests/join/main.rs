//! A cluster of machines: a server, and a machine (a network namespace) that joins it.

mod over_bgp;
mod routed;

use std::process::{Child, Command};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use peapod_tests::place::{MACHINE, SERVER, busybox, server};
use peapod_tests::{Cluster, Etcd, Place, Server, command, process, wait};

#[test]
fn a_machine_joins_with_a_token_and_is_a_node() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let place = Place::new()?;
    let (mut child, join) = server(&cluster, SERVER)?;
    let words: Vec<&str> = join.split(' ').collect();
    let (url, token, pin) = (words[1], words[3], words[5]);
    let (id, secret) = token.split_once('.').context("no token")?;

    for (given, pin, sentence) in [
        (format!("aaaaaa.{secret}"), pin, "knows no token aaaaaa"),
        (
            format!("{id}.0123456789abcdef"),
            pin,
            "its secret part is wrong",
        ),
        (token.to_owned(), "sha256:00", "has the hash sha256:"),
        ("short".to_owned(), pin, "a token must look like"),
    ] {
        let tried = place.peapod(&format!("join {url} --token {given} --ca-cert-hash {pin}"))?;
        let refusal = tried.refused()?;
        assert!(refusal.contains(sentence), "{refusal}");
    }
    let flags = "--node-name n1 --rack r1 --node-labels disk=fast \
                 --register-with-taints dedicated=x:NoExecute";
    let joined = place.peapod(&format!("{join} {flags}"))?.ok()?;
    assert!(
        joined.contains(&format!("n1 is a node of {url}")),
        "{joined}"
    );
    let refusal = place.peapod(&join)?.refused()?;
    assert!(
        refusal.contains("is node n1 of") && refusal.contains("already"),
        "{refusal}"
    );

    let field = |path: &str| cluster.field("node/n1", path);
    assert_eq!(field("{.status.addresses[0].address}")?, MACHINE);
    assert_eq!(field("{.metadata.labels.disk}")?, "fast");
    assert_eq!(field(r"{.metadata.labels.net\.peapod\.dev/rack}")?, "r1");
    assert_eq!(field("{.spec.taints[0].key}")?, "dedicated");

    // A pod there, with its log and exec by the certificate that the cluster has given.
    place
        .peapod(&format!("image load {}", busybox(&place)?))?
        .ok()?;
    cluster.apply(POD)?;
    cluster
        .kubectl("wait --for=condition=Ready pod/there --timeout=60s")?
        .ok()?;
    wait::until("exec by the node's certified API", || {
        let said = cluster
            .kubectl("exec there -- /bin/busybox echo hello")?
            .ok()?;
        Ok(said.trim() == "hello")
    })?;
    assert_eq!(cluster.kubectl("logs there")?.ok()?.trim(), "up");

    // A node is held to what is its own.
    let own = place.data.path().join("kubeconfig");
    let own = own.to_string_lossy();
    let get = |what: &str| cluster.kubectl(&format!("--kubeconfig {own} get {what}"));
    assert!(get("node n1")?.ok()?.contains("n1"));
    let refusal = get("secrets -A")?.refused()?;
    assert!(refusal.contains("forbidden"), "{refusal}");

    let apart = apart(&cluster, &place)?;

    // A token that is deleted is of no use.
    cluster.peapod(["token", "delete", token])?.ok()?;
    wait::until("the signature of a deleted token to go", || {
        let info = cluster.kubectl("get configmap cluster-info -n kube-public -o yaml")?;
        Ok(!info.ok()?.contains(id))
    })?;
    place.peapod("down --purge")?.ok()?;
    for mut ended in apart {
        ended.wait()?;
    }
    let refusal = place.peapod(&join)?.refused()?;
    assert!(refusal.contains("has expired or was deleted"), "{refusal}");
    cluster.purge()?;
    child.wait()?;
    Ok(())
}

/// The network agent in a process of its own: it may die, and what is there stays; what is new
/// waits for it.
fn apart(cluster: &Cluster, place: &Place) -> Result<[Child; 2]> {
    process::end(&[place.pid()?], Signal::SIGTERM)?;
    let mut netd = place.start("netd")?;
    let node = place.start("node --without netd")?;
    wait::until("exec by the node agent that runs apart", || {
        let said = cluster.kubectl("exec there -- /bin/busybox echo hello")?;
        Ok(said.ok().is_ok_and(|said| said.trim() == "hello"))
    })?;
    let refusal = place.peapod(&format!("netd {}", place.data_dir()))?;
    let refusal = refusal.refused()?;
    assert!(refusal.contains("another network agent runs"), "{refusal}");

    netd.kill()?;
    netd.wait()?;
    cluster.apply(&POD.replace("name: there", "name: later"))?;
    wait::until("a pod whose network is waited for", || {
        let path = r"{.status.conditions[?(@.type=='PodReadyToStartContainers')].status}";
        Ok(cluster.field("pod/later", path)? == "False")
    })?;
    assert_eq!(cluster.field("pod/later", "{.status.podIP}")?, "");
    let netd = place.start("netd")?;
    as_a_plugin(place)?;
    cluster
        .kubectl("wait --for=condition=Ready pod/later --timeout=60s")?
        .ok()?;
    let restarts = "{.status.containerStatuses[0].restartCount}";
    assert_eq!(cluster.field("pod/there", restarts)?, "0");
    let ip = cluster.field("pod/there", "{.status.podIP}")?;
    let inside = cluster.kubectl("exec there -- /bin/busybox ip -o addr show dev eth0")?;
    assert!(inside.ok()?.contains(&format!(" {ip}/32 ")));
    Ok([netd, node])
}

/// The same agent as a CNI plugin, run as a container runtime runs it.
fn as_a_plugin(place: &Place) -> Result<()> {
    let data = place.data.path();
    let plugin = data.join("peapod-cni");
    std::os::unix::fs::symlink(command::peapod()?, &plugin)?;
    let run = |verb: &str, input: &str| {
        let mut plugin_there = Command::new("nsenter");
        plugin_there
            .arg(format!("--net=/run/netns/{}", place.name))
            .arg(&plugin)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0");
        command::finish(plugin_there, Some(input))
    };
    let config = |socket: &str| {
        serde_json::json!({"cniVersion": "1.1.0", "name": "pods", "type": "peapod-cni",
            "socket": data.join("run").join(socket)})
        .to_string()
    };
    let own = config("netd.sock");
    wait::until("the agent as a plugin", || {
        Ok(run("STATUS", &own)?.status == 0)
    })?;
    let told = run("VERSION", &own)?.ok()?;
    assert!(told.contains("supportedVersions"), "{told}");
    run("DEL", &own)?.ok()?;
    let garbage = run("ADD", "garbage")?;
    assert!(garbage.status == 1 && garbage.stdout.contains("\"code\":6"));
    let down = run("STATUS", &config("none.sock"))?;
    assert!(down.status == 1 && down.stdout.contains("\"code\":50"));
    assert!(down.stdout.contains("is `peapod netd` running"));
    Ok(())
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: there}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
  - {name: c, image: 'busybox:test', command: [/bin/busybox, sh, -c, 'echo up; busybox sleep 100000']}
";

/// A machine that joined one of two servers goes on with the other when that one dies, and starts
/// again without it.
#[test]
fn a_node_outlives_the_server_that_it_joined() -> Result<()> {
    let _turn = Cluster::prepare()?;
    let place = Place::new()?;
    let etcd = Etcd::start(1)?;
    let mut one = Server::prepare_at(SERVER, &etcd.flags())?;
    one.run()?;
    one.ready()?;
    let mut flags = etcd.flags();
    let keys = one.data_dir().join("pki");
    flags.extend(["--pki-dir".to_owned(), keys.display().to_string()]);
    let mut two = Server::prepare_at(SERVER, &flags)?;
    two.run()?;
    two.ready()?;
    let join = one.log();
    let join = join
        .lines()
        .find(|line| line.trim().starts_with("peapod join "));
    let join = join
        .context("no join command")?
        .trim()
        .trim_start_matches("peapod ");
    place.peapod(&format!("{join} --node-name n1"))?.ok()?;
    place
        .peapod(&format!("image load {}", busybox(&place)?))?
        .ok()?;
    let known = place.data.path().join("servers.json");
    wait::until("the node to know both servers", || {
        let known = std::fs::read_to_string(&known).unwrap_or_default();
        Ok(known.contains(one.listen()) && known.contains(two.listen()))
    })?;

    one.kill()?;
    let runs = |pod: &str| -> Result<()> {
        let manifest = POD.replace("name: there", &format!("name: {pod}"));
        let file = place.data.path().join("pod.yaml");
        std::fs::write(&file, manifest)?;
        wait::until("a default service account", || {
            let apply = two.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
            Ok(apply.status == 0)
        })?;
        let ready = [
            "wait",
            "--for=condition=Ready",
            &format!("pod/{pod}"),
            "--timeout=60s",
        ];
        two.kubectl(&ready)?.ok().map(drop)
    };
    runs("after")?;
    process::end(&[place.pid()?], Signal::SIGTERM)?;
    let mut node = place.start("node")?;
    runs("again")?;
    place.peapod("down --purge")?.ok()?;
    node.wait()?;
    Ok(())
}
