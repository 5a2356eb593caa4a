//! Nothing outside the machine reaches the API, the kubelet or the cluster's DNS, whatever routes
//! it has; pods do.

use std::io::Write;
use std::net::TcpListener;

use anyhow::{Context, Result};
use peapod_tests::command::run;
use peapod_tests::{Cluster, process};

const HERE: &str = "198.51.100.1";
const THERE: &str = "198.51.100.2";
const NAMESPACE: &str = "peapod-outside";
const LINK: &str = "outside0";

/// A neighbour on a wire of its own, which sends everything to this machine.
struct Outside;

impl Outside {
    fn plug_in() -> Result<Self> {
        run("ip", ["netns", "add", NAMESPACE])?.ok()?;
        let outside = Self;
        ip(&format!(
            "link add {LINK} type veth peer name eth0 netns {NAMESPACE}"
        ))?;
        ip(&format!("address add {HERE}/24 dev {LINK}"))?;
        ip(&format!("link set {LINK} up"))?;
        ip(&format!("-n {NAMESPACE} address add {THERE}/24 dev eth0"))?;
        ip(&format!("-n {NAMESPACE} link set eth0 up"))?;
        ip(&format!("-n {NAMESPACE} route add default via {HERE}"))?;
        Ok(outside)
    }

    /// The status that an address answers with over HTTP; 000 when nobody does.
    fn ask(&self, url: &str) -> Result<String> {
        let curl = format!(
            "netns exec {NAMESPACE} curl -sk -o /dev/null -w %{{http_code}} --max-time 2 {url}"
        );
        Ok(run("ip", curl.split(' '))?.stdout)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // The link goes with its other end.
        for line in [
            format!("link delete {LINK}"),
            format!("netns delete {NAMESPACE}"),
        ] {
            if let Err(error) = ip(&line) {
                eprintln!("the neighbour could not be removed: {error:#}");
            }
        }
    }
}

fn ip(line: &str) -> Result<String> {
    run("ip", line.split(' '))?.ok()
}

/// Answers one request after the other, as long as the test runs.
fn answer_on(address: &str) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that is gone already is no concern of a server.
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        }
    });
    Ok(port)
}

#[test]
fn neighbours_reach_no_part_of_the_control_plane() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: inside}\nspec:\n  containers:\n  - {name: c, image: 'peapod.dev/demo:v1'}\n",
    )?;
    cluster
        .kubectl("wait --for=condition=Ready pod/inside --timeout=60s")?
        .ok()?;
    let node = cluster.node_ip()?;
    let (_, api_port) = cluster.listen().rsplit_once(':').context("no port")?;
    let service = cluster.field("service/kubernetes", "{.spec.clusterIP}")?;
    let dns = cluster.field("service/kube-dns -n kube-system", "{.spec.clusterIP}")?;
    let outside = Outside::plug_in()?;

    // The wire works, both ways.
    let open = answer_on(HERE)?;
    assert_eq!(outside.ask(&format!("http://{HERE}:{open}/"))?, "200");
    let private = answer_on(&node)?;

    let hidden = [
        format!("https://{HERE}:{api_port}/version"),
        format!("https://{HERE}:10250/healthz"),
        format!("https://{node}:{api_port}/version"),
        format!("https://{node}:10250/healthz"),
        format!("http://{node}:{private}/"),
        format!("https://{service}/version"),
        format!("http://{dns}:53/"),
    ];
    // By a router, as by default, and as a neighbour on the same wire.
    for by_neighbour in [false, true] {
        if by_neighbour {
            for address in [&node, &service, &dns] {
                ip(&format!("-n {NAMESPACE} route add {address}/32 dev eth0"))?;
            }
        }
        for url in &hidden {
            assert_eq!(outside.ask(url)?, "000", "{url} answers a neighbour");
        }
        let question = format!(
            "netns exec {NAMESPACE} dig +tries=1 +time=1 @{dns} kubernetes.default.svc.cluster.local"
        );
        let asked = run("ip", question.split(' '))?;
        assert_ne!(asked.status, 0, "DNS answers a neighbour: {}", asked.stdout);
    }

    let pid = process::of_pod("inside")?.to_string();
    for url in [
        format!("https://{node}:{api_port}/version"),
        format!("https://{service}/version"),
    ] {
        for from in [vec!["nsenter", "-t", &pid, "-n"], vec!["env"]] {
            let mut words = from;
            words.extend(["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}"]);
            words.extend(["--max-time", "5", &url]);
            let code = run(words[0], &words[1..])?.stdout;
            assert_ne!(code, "000", "{words:?}");
        }
    }
    Ok(())
}
