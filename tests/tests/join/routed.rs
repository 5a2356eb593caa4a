//! Machines on networks of their own: a router between them knows nothing of pods, so these speak
//! through tunnels.

use anyhow::{Context, Result, ensure};
use peapod_tests::place::{busybox, server};
use peapod_tests::{Cluster, Place, command, wait};

/// The server's address, on its link to the router.
const SERVER: &str = "10.253.8.1";

/// A router between the server and two machines.
struct Router {
    name: String,
    machines: Vec<Place>,
}

impl Router {
    fn new() -> Result<Self> {
        let pid = std::process::id();
        let mut router = Self {
            name: format!("peapod-joinr-{pid}"),
            machines: Vec::new(),
        };
        let name = router.name.clone();
        for line in [
            format!("netns add {name}"),
            format!("link add pr{pid} type veth peer name eth0 netns {name}"),
            format!("addr add {SERVER}/24 dev pr{pid}"),
            format!("link set pr{pid} up"),
            "route add 10.253.10.0/24 via 10.253.8.2".to_owned(),
            "route add 10.253.11.0/24 via 10.253.8.2".to_owned(),
            format!("-n {name} addr add 10.253.8.2/24 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            ip(&line)?;
        }
        router.inside("sysctl -qw net.ipv4.ip_forward=1")?;
        for number in [1, 2] {
            let place = Place::unwired(&format!("-{number}"))?;
            let (there, net) = (&place.name, format!("10.253.{}", 9 + number));
            for line in [
                format!("netns add {there}"),
                format!("link add eth{number} netns {name} type veth peer name eth0 netns {there}"),
                format!("-n {name} addr add {net}.1/24 dev eth{number}"),
                format!("-n {name} link set eth{number} up"),
                format!("-n {there} addr add {net}.2/24 dev eth0"),
                format!("-n {there} link set eth0 up"),
                format!("-n {there} link set lo up"),
                format!("-n {there} route add default via {net}.1"),
            ] {
                ip(&line)?;
            }
            router.machines.push(place);
        }
        Ok(router)
    }

    fn inside(&self, line: &str) -> Result<String> {
        let space = format!("--net=/run/netns/{}", self.name);
        let words = std::iter::once(space.as_str()).chain(line.split(' '));
        command::run("nsenter", words)?.ok()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.machines.clear();
        if let Err(error) = ip(&format!("netns del {}", self.name)) {
            eprintln!("the router could not be removed: {error:#}");
        }
    }
}

fn ip(line: &str) -> Result<String> {
    command::run("ip", line.split(' '))?
        .ok()
        .with_context(|| line.to_owned())
}

fn pods() -> String {
    let pod = |name: &str, node: &str, what: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, {what}}}]
---"
        )
    };
    let sleeps = "image: 'busybox:test', command: [/bin/busybox, sleep, '100000']";
    let serves = "image: 'peapod.dev/demo:v1'";
    [pod("client", "m1", sleeps), pod("server", "m2", serves)].concat()
}

#[test]
fn pods_speak_through_tunnels_across_a_router() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let router = Router::new()?;
    let (mut child, join) = server(&cluster, SERVER)?;
    let archives = [
        busybox(&router.machines[0])?,
        command::demo_archive("v1")?.to_string_lossy().into_owned(),
    ];
    for (place, (node, archive)) in router
        .machines
        .iter()
        .zip(["m1", "m2"].iter().zip(&archives))
    {
        place.peapod(&format!("{join} --node-name {node}"))?.ok()?;
        place.peapod(&format!("image load {archive}"))?.ok()?;
    }
    // Nothing of a pod's is to be seen outside of the tunnels.
    router.inside("nft add table ip seen")?;
    router.inside("nft add chain ip seen forward { type filter hook forward priority 0 ; }")?;
    router.inside("nft add rule ip seen forward ip saddr 10.244.0.0/16 counter")?;
    router.inside("nft add rule ip seen forward udp dport 4789 counter")?;
    cluster.apply(&pods())?;
    cluster
        .kubectl("wait --for=condition=Ready pod/client pod/server --timeout=60s")?
        .ok()?;
    cluster.kubectl("expose pod server --port=8080")?.ok()?;
    let own = cluster.field("pod/client", "{.status.podIP}")?;
    let direct = cluster.field("pod/server", "{.status.podIP}")?;
    let service = cluster.field("service/server", "{.spec.clusterIP}")?;
    let uid = cluster.field("pod/client", "{.metadata.uid}")?;
    let sandbox = format!("runtime/sandboxes/{uid}/net");
    let sandbox = router.machines[0].data.path().join(sandbox);
    let inside = format!("--net={}", sandbox.display());
    for address in [direct, service] {
        let url = format!("http://{address}:8080/client");
        let ask = [&inside, "curl", "-sS", "--max-time", "3", &url];
        wait::until("an answer from the other machine", || {
            let said = command::run("nsenter", ask)?.ok()?;
            // The server sees the pod's own address.
            Ok(said.contains(&format!("{own}]:")) || said.contains(&format!("{own}:")))
        })?;
    }
    let seen = router.inside("nft list table ip seen")?;
    let counts: Vec<&str> = seen
        .lines()
        .filter(|line| line.contains("counter"))
        .collect();
    ensure!(
        counts.len() == 2 && counts[0].contains("packets 0 ") && !counts[1].contains("packets 0 "),
        "{seen}"
    );
    for place in &router.machines {
        place.peapod("down --purge")?.ok()?;
    }
    cluster.purge()?;
    child.wait()?;
    Ok(())
}
