//! What an operator is told: warnings, and metrics of every part.

use std::process::{Command, Stdio};

use anyhow::Result;
use peapod_tests::{Cluster, command, wait};

/// A firewall's table for as long as a test runs. It lets everything pass, and drops by policy.
struct Firewall;

impl Firewall {
    fn start() -> Result<Self> {
        let table = "table inet peapod-test { chain forwarding { \
                     type filter hook forward priority 0; policy drop; accept; }; }";
        command::run("nft", [table])?.ok()?;
        Ok(Self)
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let removed = command::run("nft", ["delete", "table", "inet", "peapod-test"]);
        if let Err(error) = removed.and_then(|run| run.ok()) {
            eprintln!("the firewall could not be removed: {error:#}");
        }
    }
}

#[test]
fn a_firewall_that_comes_and_goes_is_told_of() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    assert_eq!(cluster.warnings()?, "");
    let firewall = Firewall::start()?;
    wait::until("a warning", || {
        Ok(cluster
            .warnings()?
            .contains("nftables table inet peapod-test, chain forwarding"))
    })?;
    let rules = command::run(
        "nft",
        ["list", "chain", "inet", "peapod-test", "forwarding"],
    )?;
    assert!(rules.ok()?.contains("peapod: from pods"));
    drop(firewall);
    wait::until("the warning to go", || Ok(cluster.warnings()?.is_empty()))
}

#[test]
fn every_part_has_its_metrics() -> Result<()> {
    let cluster = Cluster::prepare()?;
    cluster.start()?;
    let metrics = cluster.kubectl("get --raw /metrics")?.ok()?;
    for name in [
        "apiserver_request_total",
        "workqueue_depth",
        "scheduler_",
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "peapod_netd_attached_pods",
        "coredns_dns_responses",
    ] {
        assert!(metrics.contains(name), "{name} in\n{metrics}");
    }
    // kubectl does not ask for OpenMetrics, which alone has this line.
    assert!(metrics.ends_with('\n') && !metrics.contains("# EOF"));
    Ok(())
}

#[test]
fn a_command_ends_without_a_word_when_nobody_reads_on() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut program = Command::new(command::peapod()?);
    program.args(["completion", "bash"]);
    let ended = program.stdout(writer).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((ended.status.code(), said.as_str()), (Some(141), ""));
    Ok(())
}
