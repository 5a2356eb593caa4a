//! A machine whose only way to the API server is what BGP tells it, over two leaves.
//!
//! ```text
//!              ┌── leaf 1 ──┐
//!    server ───┤            ├─── machine        each leaf a `peapod router`
//!              └── leaf 2 ──┘
//! ```
//!
//! The server's address and the machine's stand on `lo`. The server's is announced by a `peapod
//! router` beside it, the machine's by its own agent.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use peapod_tests::place::{busybox, server};
use peapod_tests::{Cluster, Place, command, wait};
use serde_json::{Value, json};

use super::POD;

const SERVER: &str = "10.253.8.1";
const MACHINE: &str = "10.253.12.1";
/// Ways over the first leaf, of an operator's, until the machine speaks BGP: where, and which.
const FIRST_WAYS: [(&str, &str); 3] = [
    ("server", "10.253.12.1/32 via 10.253.14.2 metric 5000"),
    ("leaf", "10.253.12.1/32 via 10.253.10.2 metric 5000"),
    (
        "machine",
        "default via 10.253.10.1 src 10.253.12.1 metric 5000",
    ),
];
const LEAVES: [usize; 2] = [1, 2];

/// Two leaves, and the routers on them and beside the server.
struct Fabric {
    machine: Place,
    routers: Vec<Child>,
}

impl Fabric {
    fn new() -> Result<Self> {
        let fabric = Self {
            machine: Place::unwired("-bgp")?,
            routers: Vec::new(),
        };
        let there = fabric.machine.name.clone();
        ip(&format!("addr add {SERVER}/32 dev lo"))?;
        ip(&format!("netns add {there}"))?;
        ip(&format!("-n {there} link set lo up"))?;
        ip(&format!("-n {there} addr add {MACHINE}/32 dev lo"))?;
        for leaf in LEAVES {
            let (name, port) = (space(leaf), server_port(leaf));
            ip(&format!("netns add {name}"))?;
            inside(&name, "sysctl -qw net.ipv4.ip_forward=1")?;
            // The ends of a pair have different numbers, or the kernel is slow to tell of them.
            let [a, b] = [leaf * 2, leaf * 2 + 1].map(|n| 20_000 + n);
            for line in [
                format!("link add {port} index {a} type veth peer name server netns {name}"),
                format!(
                    "link add eth{leaf} index {b} netns {there} type veth peer name machine netns {name}"
                ),
                format!("link set {port} up"),
                format!("-n {name} link set server up"),
                format!("-n {name} link set machine up"),
                format!("-n {there} link set eth{leaf} up"),
            ] {
                ip(&line)?;
            }
        }
        let first = space(1);
        for line in [
            format!("addr add 10.253.14.1/24 dev {}", server_port(1)),
            format!("-n {first} addr add 10.253.14.2/24 dev server"),
            format!("-n {first} addr add 10.253.10.1/24 dev machine"),
            format!("-n {there} addr add 10.253.10.2/24 dev eth1"),
        ] {
            ip(&line)?;
        }
        fabric.first_ways("add")?;
        Ok(fabric)
    }

    /// Adds the ways of before BGP, or deletes them.
    fn first_ways(&self, what: &str) -> Result<()> {
        for (place, way) in FIRST_WAYS {
            let there = match place {
                "server" => String::new(),
                "leaf" => format!("-n {} ", space(1)),
                _ => format!("-n {} ", self.machine.name),
            };
            ip(&format!("{there}route {what} {way}"))?;
        }
        Ok(())
    }

    /// Starts the routers, with their files in a folder.
    fn start(&mut self, dir: &Path) -> Result<()> {
        let own = LEAVES.map(server_port);
        let mut beside = config(65_001, SERVER, &[&own[0], &own[1]]);
        beside["announce"] = json!([format!("{SERVER}/32")]);
        beside["sources"] = json!([SERVER]);
        self.routers.push(router(None, dir, &beside)?);
        for leaf in LEAVES {
            let (asn, id) = (65_100 + u32::try_from(leaf)?, format!("10.253.8.1{leaf}"));
            let config = config(asn, &id, &["server", "machine"]);
            self.routers.push(router(Some(&space(leaf)), dir, &config)?);
        }
        wait::until("the leaves to know the server", || {
            let ways =
                LEAVES.map(|leaf| ip(&format!("-n {} route show {SERVER} proto bgp", space(leaf))));
            Ok(ways
                .into_iter()
                .all(|way| way.is_ok_and(|way| !way.is_empty())))
        })
    }

    /// Next hops by BGP at the machine's end and at the server's, from one to the other.
    fn legs(&self) -> Result<[usize; 2]> {
        let there = &self.machine.name;
        let ways = [
            ip(&format!("-n {there} route show {SERVER} proto bgp"))?,
            ip(&format!("route show {MACHINE} proto bgp"))?,
        ];
        Ok(ways.map(|way| way.matches(" via ").count()))
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        for router in &mut self.routers {
            // It may have ended by itself; then the test has failed already.
            let _ = router.kill();
            let _ = router.wait();
        }
        let leaves = LEAVES.map(|leaf| format!("netns del {}", space(leaf)));
        for line in leaves
            .into_iter()
            .chain([format!("addr del {SERVER}/32 dev lo")])
        {
            if let Err(error) = ip(&line) {
                eprintln!("the fabric could not be removed: {error:#}");
            }
        }
    }
}

fn space(leaf: usize) -> String {
    format!("peapod-joinb-{}-{leaf}", std::process::id())
}

/// The server's port towards a leaf.
fn server_port(leaf: usize) -> String {
    format!("pb{leaf}-{}", std::process::id())
}

fn config(asn: u32, id: &str, interfaces: &[&str]) -> Value {
    let neighbor = |on: &&str| json!({"interface": on, "remoteAs": "external", "bfd": true});
    json!({
        "asn": asn, "routerId": id, "install": true, "multipath": 8,
        "neighbors": interfaces.iter().map(neighbor).collect::<Vec<_>>(),
    })
}

/// Starts `peapod router`, here or in a namespace.
fn router(space: Option<&str>, dir: &Path, config: &Value) -> Result<Child> {
    let name = space.unwrap_or("beside");
    let file = dir.join(format!("{name}.yaml"));
    std::fs::write(&file, config.to_string())?;
    let peapod = command::peapod()?;
    let mut start = match space {
        None => Command::new(peapod),
        Some(space) => {
            let mut enter = Command::new("nsenter");
            enter.arg(format!("--net=/run/netns/{space}")).arg(peapod);
            enter
        }
    };
    let log = File::create(dir.join(format!("{name}.log")))?;
    let child = start.arg("router").arg("--config").arg(file);
    child
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .context("a router")
}

fn ip(line: &str) -> Result<String> {
    command::run("ip", line.split(' '))?
        .ok()
        .with_context(|| line.to_owned())
}

fn inside(space: &str, line: &str) -> Result<String> {
    let space = format!("--net=/run/netns/{space}");
    command::run(
        "nsenter",
        [space.as_str()].into_iter().chain(line.split(' ')),
    )?
    .ok()
}

/// The machine's agent announces its address, and learns the server's.
const BGP: &str = "
apiVersion: net.peapod.dev/v1
kind: BgpConfig
metadata: {name: default}
spec: {announce: {nodeIPs: true}}
---
apiVersion: net.peapod.dev/v1
kind: BgpPeer
metadata: {name: leaf-1}
spec: {interface: eth1, remoteAs: external, bfd: {}}
---
apiVersion: net.peapod.dev/v1
kind: BgpPeer
metadata: {name: leaf-2}
spec: {interface: eth2, remoteAs: external, bfd: {}}
";

#[test]
fn the_api_server_is_reached_by_what_bgp_tells() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let dir = tempfile::tempdir()?;
    let mut fabric = Fabric::new()?;
    fabric.start(dir.path())?;
    let (mut child, join) = server(&cluster, SERVER)?;
    let machine = &fabric.machine;
    let flags = format!("--node-name m1 --node-ip {MACHINE}");
    machine.peapod(&format!("{join} {flags}"))?.ok()?;
    machine
        .peapod(&format!("image load {}", busybox(machine)?))?
        .ok()?;
    cluster.apply(BGP)?;
    let both = |legs: [usize; 2]| wait::until("both ways", || Ok(fabric.legs()? == legs));
    both([2, 2])?;
    wait::until("BFD with both leaves", || {
        let told = cluster.field("bgpnode/m1", "{.status.sessions[*].bfd}")?;
        Ok(told == "Up Up")
    })?;
    // From now on there is no other way.
    fabric.first_ways("del")?;
    let began = Instant::now();
    let runs = |pod: &str| -> Result<()> {
        println!("pod {pod} after {:.0?}", began.elapsed());
        cluster.apply(&POD.replace("name: there", &format!("name: {pod}")))?;
        cluster
            .kubectl(&format!(
                "wait --for=condition=Ready pod/{pod} --timeout=60s"
            ))?
            .ok()?;
        // The other direction: from the server to the machine's API.
        wait::until("exec on the machine", || {
            let said = cluster.kubectl(&format!("exec {pod} -- /bin/busybox echo hello"))?;
            Ok(said.ok().is_ok_and(|said| said.trim() == "hello"))
        })
    };
    runs("before")?;

    // A leaf falls silent, with its links up.
    for hook in ["input", "output", "forward"] {
        let chain = format!("{{ type filter hook {hook} priority 0; policy drop; }}");
        inside(&space(1), "nft add table inet silent")?;
        inside(
            &space(1),
            &format!("nft add chain inet silent {hook} {chain}"),
        )?;
    }
    both([1, 1])?;
    runs("meanwhile")?;
    ensure!(
        cluster.field(
            "node/m1",
            r"{.status.conditions[?(@.type=='Ready')].status}"
        )? == "True",
        "the node was lost with one of its two leaves"
    );
    inside(&space(1), "nft delete table inet silent")?;
    both([2, 2])?;
    runs("after")?;
    println!("all is shown after {:.0?}", began.elapsed());
    machine.peapod("down --purge")?.ok()?;
    cluster.purge()?;
    child.wait()?;
    Ok(())
}
