//! A node whose pods are linked by Debian's CNI plugins: ptp, host-local and portmap.

use std::path::Path;

use anyhow::{Context, Result};
use peapod_tests::{Cluster, command, process, wait};
use serde_json::{Value, json};

const PLUGINS: &str = "/usr/lib/cni";
const SUBNET: &str = "10.251.7.";
const PORT: u16 = 18_471;

/// Writes the network's configuration, with or without ports of the node.
fn configure(dir: &Path, ports: bool) -> Result<()> {
    let mut plugins = vec![json!({
        "type": "ptp", "mtu": 1400,
        "ipam": {
            "type": "host-local", "dataDir": dir.join("addresses"),
            "ranges": [[{"subnet": format!("{SUBNET}0/24")}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    })];
    if ports {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    }
    let network = json!({"cniVersion": "1.0.0", "name": "foreign", "plugins": plugins});
    Ok(std::fs::write(
        dir.join("10-foreign.conflist"),
        network.to_string(),
    )?)
}

/// The tables of iptables that portmap leaves behind, as it does everywhere.
struct Tables(String);

impl Tables {
    fn now() -> Result<Self> {
        Ok(Self(command::run("nft", ["list", "tables"])?.ok()?))
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        for family in ["ip", "ip6"] {
            if self.0.contains(&format!("table {family} nat\n")) {
                continue;
            }
            // One that portmap had no use for is not there.
            let _ = command::run("nft", ["delete", "table", family, "nat"]);
        }
    }
}

/// The addresses that host-local has given.
fn given(dir: &Path) -> Result<Vec<String>> {
    let files = std::fs::read_dir(dir.join("addresses/foreign"))?.flatten();
    let mut names: Vec<String> = files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(SUBNET))
        .collect();
    names.sort();
    Ok(names)
}

fn get(url: &str) -> Result<String> {
    command::run("curl", ["-sS", "--fail", "--max-time", "5", url])?.ok()
}

fn pod(name: &str, port: u16) -> String {
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "c", "image": "busybox:test",
                "command": ["/bin/sh", "-c", "echo hello > /index.html; exec httpd -f -p 80 -h /"],
                "ports": [{"containerPort": 80, "hostPort": port}],
            }],
        },
    });
    pod.to_string()
}

#[test]
fn pods_are_linked_by_the_plugins_of_others() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let _tables = Tables::now()?;
    let conf = tempfile::tempdir()?;
    let dir = conf.path();
    configure(dir, true)?;
    let dir_flag = dir.to_string_lossy();
    let ranges = ["--pod-cidr", "10.251.0.0/16"];
    let plugins = ["--cni-conf-dir", &dir_flag, "--cni-bin-dir", PLUGINS];
    cluster.start_with(&[&ranges[..], &plugins].concat())?;
    cluster.load_busybox()?;

    cluster.apply(&pod("web", PORT))?;
    cluster
        .kubectl("wait --for=condition=Ready pod/web --timeout=60s")?
        .ok()?;
    let ip = cluster.field("pod/web", "{.status.podIP}")?;
    assert_eq!(given(dir)?, std::slice::from_ref(&ip));
    assert_eq!(get(&format!("http://{ip}/"))?.trim(), "hello");
    let node = cluster.node_ip()?;
    assert_eq!(get(&format!("http://{node}:{PORT}/"))?.trim(), "hello");

    // Services and names are the network agent's as ever, for pods and from pods.
    cluster.kubectl("expose pod web --port 80")?.ok()?;
    wait::until("the service", || {
        Ok(cluster
            .request("web", "/")
            .is_ok_and(|said| said.trim() == "hello"))
    })?;
    let address = cluster.field("service/web", "{.spec.clusterIP}")?;
    let pid = process::of_pod("web")?.to_string();
    let url = format!("http://{address}/");
    let inside = ["-t", &pid, "-n", "curl", "-sS", "--max-time", "5", &url];
    let own = command::run("nsenter", inside)?.ok()?;
    assert_eq!(own.trim(), "hello", "the pod reaches itself");
    let name = "exec web -- /bin/busybox nslookup web.default.svc.cluster.local";
    wait::until("the service's name", || {
        Ok(cluster.kubectl(name)?.stdout.contains(&address))
    })?;

    // What plugins cannot do is said.
    configure(dir, false)?;
    cluster.apply(&pod("portless", PORT + 1))?;
    wait::until("the event that names what is missing", || {
        let events = "get events --field-selector involvedObject.name=portless";
        Ok(cluster
            .kubectl(events)?
            .ok()?
            .contains("add the plugin portmap"))
    })?;
    cluster.kubectl("delete pod portless")?.ok()?;
    configure(dir, true)?;

    // After a crash the pod keeps its network, and is released as it was attached.
    cluster.crash()?;
    cluster.start_with(&ranges)?;
    assert_eq!(get(&format!("http://{ip}/"))?.trim(), "hello");
    assert_eq!(cluster.field("pod/web", "{.status.podIP}")?, ip);
    cluster.kubectl("delete pod web")?.ok()?;
    wait::until(
        "the address to be given back",
        || Ok(given(dir)?.is_empty()),
    )?;

    // A cluster that goes down has them released as well.
    cluster.apply(&pod("again", PORT))?;
    cluster
        .kubectl("wait --for=condition=Ready pod/again --timeout=60s")?
        .ok()?;
    assert_eq!(given(dir)?.len(), 1);
    cluster.purge()?;
    assert!(given(dir).context("what host-local keeps")?.is_empty());
    let rules = command::run("iptables-save", ["-t", "nat"])?.ok()?;
    assert!(!rules.contains(&PORT.to_string()), "{rules}");
    Ok(())
}
