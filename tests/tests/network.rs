//! Names, addresses and who can reach whom.

use anyhow::Result;
use peapod_tests::{Cluster, command, wait};

const TWO_TIER: &str = include_str!("../../examples/two-tier/two-tier.yaml");

#[test]
fn a_front_finds_its_back() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.apply(TWO_TIER)?;
    cluster
        .kubectl("wait --for=condition=Available deployment/front deployment/back --timeout=60s")?
        .ok()?;
    wait::until("an answer of the back", || {
        Ok(cluster
            .request("front", "/")?
            .contains("asked the back: hello v1 from back-"))
    })?;

    let node = cluster.field(
        "nodes",
        "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
    )?;
    let node = node.split(' ').next().unwrap_or_default();
    let url = format!("http://{node}:30080/");
    let said = command::run("curl", ["-sS", "--fail", "--max-time", "5", &url])?.ok()?;
    assert!(said.contains("front front-"), "by the node's port: {said}");

    let address = cluster.field("service/back", "{.spec.clusterIP}")?;
    for name in ["back", "back.default", "back.default.svc.cluster.local"] {
        let found = cluster
            .kubectl(&format!("exec deploy/front -- peapod-demo resolve {name}"))?
            .ok()?;
        assert!(
            found.lines().any(|line| line == address),
            "{name} is {found}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_reaches_the_api_with_its_token() -> Result<()> {
    let cluster = Cluster::up()?;
    // The demo speaks no TLS, so the machine's curl asks from inside the pod's network namespace:
    // what is tested is the address, the CA and the token.
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: asker}\nspec:\n  containers:\n  - {name: c, image: 'peapod.dev/demo:v1'}\n",
    )?;
    cluster
        .kubectl("wait --for=condition=Ready pod/asker --timeout=60s")?
        .ok()?;
    cluster
        .kubectl("create rolebinding asker --clusterrole=view --serviceaccount=default:default")?
        .ok()?;
    let found = cluster
        .kubectl("exec asker -- peapod-demo resolve kubernetes.default.svc")?
        .ok()?;
    let address = cluster.field("service/kubernetes", "{.spec.clusterIP}")?;
    assert!(found.lines().any(|line| line == address), "{found}");
    let files = "/var/run/secrets/kubernetes.io/serviceaccount";
    let pid = pid_of_pod("asker")?;
    let root = format!("/proc/{pid}/root{files}");
    let token = std::fs::read_to_string(format!("{root}/token"))?;
    let ca = format!("{root}/ca.crt");
    let url = format!("https://{address}/api/v1/namespaces/default/pods/asker");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let target = pid.to_string();
    let curl = [
        "-t",
        &target,
        "-n",
        "curl",
        "-sS",
        "--fail",
        "--max-time",
        "5",
        "--cacert",
        &ca,
        "-H",
        &bearer,
        &url,
    ];
    let said = command::run("nsenter", curl)?.ok()?;
    // For curl, JSON is laid out for people.
    let said = said.replace(' ', "");
    assert!(said.contains("\"name\":\"asker\""), "{said}");
    let refused = command::run(
        "curl",
        ["-sk", "-o", "/dev/null", "-w", "%{http_code}", &url],
    )?;
    assert_eq!(refused.stdout, "403");
    Ok(())
}

fn pid_of_pod(hostname: &str) -> Result<i32> {
    let wanted = format!("HOSTNAME={hostname}\0");
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else {
            continue;
        };
        if String::from_utf8_lossy(&environment).contains(&wanted) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    anyhow::bail!("no process of the pod {hostname}")
}
