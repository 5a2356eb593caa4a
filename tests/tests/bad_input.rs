//! What bad input gets: a sentence with the field, flag or file and the remedy, and nothing lost.

use std::process::Command;

use anyhow::Result;
use peapod_tests::{Cluster, command};

#[test]
fn malformed_manifests_are_refused_and_named() -> Result<()> {
    let cluster = Cluster::up()?;
    for (manifest, expected) in [
        ("{\"apiVersion\": \"v1\", \"kind\":", "error parsing"),
        (
            "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n",
            "no matches for kind \"Nonsense\" in version \"v1\"",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\nmore: 1\n",
            "more",
        ),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: UPPER}\n",
            "metadata.name: Invalid value: \"UPPER\"",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n",
            "spec.containers[0].image: Required value",
        ),
    ] {
        let refusal = cluster
            .kubectl_with(&["apply", "-f", "-"], Some(manifest))?
            .refused()?;
        assert!(
            refusal.to_lowercase().starts_with("error") || refusal.contains("is invalid"),
            "{refusal}"
        );
        let mut own = Command::new(command::peapod()?);
        own.args(["apply", "-f", "-"])
            .env("KUBECONFIG", cluster.kubeconfig());
        let refusal = command::finish(own, Some(manifest))?.refused()?;
        assert!(refusal.starts_with("error: "), "{refusal}");
        assert!(refusal.contains(expected), "{expected:?} in {refusal}");
    }
    let long = "x".repeat(254);
    let refusal = cluster
        .kubectl(&format!("create configmap {long}"))?
        .refused()?;
    assert!(refusal.contains("must be no more than 253"), "{refusal}");
    Ok(())
}

#[test]
fn up_refuses_what_cannot_work() -> Result<()> {
    let cluster = Cluster::prepare()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let data = cluster.data_dir().to_string_lossy().into_owned();
    let run = command::run(
        command::peapod()?,
        ["up", "--data-dir", &data, "--listen", &address],
    )?;
    let refusal = run.refused()?;
    assert!(
        refusal.contains("is taken by another program") && refusal.contains("--listen"),
        "{refusal}"
    );

    let run = command::run(
        command::peapod()?,
        ["up", "--data-dir", &data, "--containerd", "/nowhere.sock"],
    )?;
    let refusal = run.refused()?;
    assert!(refusal.contains("/nowhere.sock"), "{refusal}");

    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid=65534", "--clear-groups"])
        .arg(command::peapod()?)
        .args(["up", "--data-dir", &data]);
    let refusal = command::finish(nobody, None)?.refused()?;
    assert!(
        refusal.contains("sudo") || refusal.contains("Permission denied"),
        "{refusal}"
    );
    Ok(())
}
