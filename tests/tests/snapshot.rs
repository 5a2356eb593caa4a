//! Backups by `peapod snapshot`, of a running server, restored into another one, looked at by kubectl.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use peapod_tests::{Etcd, Run, Server, command};
use serde_json::Value;

const ALONE: [&str; 2] = ["--without", "controllers,scheduler"];

fn peapod<S: AsRef<str>>(server: &Server, args: &[S]) -> Result<Run> {
    let kubeconfig = server.kubeconfig().display().to_string();
    let mut all = vec!["--kubeconfig", &kubeconfig];
    all.extend(args.iter().map(AsRef::as_ref));
    command::run(command::peapod()?, all)
}

fn restore(into: &Server, file: &str, flags: &[String]) -> Result<Run> {
    let data = into.data_dir().display().to_string();
    let mut all = vec!["snapshot", "restore", file, "--data-dir", &data];
    all.extend(flags.iter().map(|flag| &**flag));
    command::run(command::peapod()?, all)
}

/// Gives a server that is not started the keys of another.
fn with_keys_of(of: &Server, to: &Server) -> Result<()> {
    let pki = to.data_dir().join("pki");
    std::fs::create_dir_all(&pki)?;
    for name in ["ca.crt", "ca.key", "sa.key"] {
        std::fs::copy(of.data_dir().join("pki").join(name), pki.join(name))?;
    }
    Ok(())
}

fn revision(server: &Server) -> Result<u64> {
    let said = server.kubectl(&["get", "--raw", "/api/v1/configmaps?limit=1"])?;
    let said = said.ok()?;
    let list: Value = serde_json::from_str(&said)?;
    Ok(list["metadata"]["resourceVersion"]
        .as_str()
        .context("no revision")?
        .parse()?)
}

/// What must be as it was: names, UIDs and contents.
fn content(server: &Server) -> Result<Vec<String>> {
    let kinds = "configmaps,secrets,services,namespaces,clusterroles";
    let said = server.kubectl(&["get", kinds, "-A", "-o", "json"])?.ok()?;
    let list: Value = serde_json::from_str(&said)?;
    let mut lines = Vec::new();
    for one in list["items"].as_array().context("no list")? {
        let meta = &one["metadata"];
        let name = meta["name"].as_str().context("no name")?;
        // What each start writes: where it is, what its keys are, and a token for joining.
        let written = ["cluster-info", "peapod-cluster", "server-keys"];
        if !written.contains(&name) && !name.starts_with("bootstrap-token-") {
            let (kind, space, uid) = (&one["kind"], &meta["namespace"], &meta["uid"]);
            lines.push(format!("{kind} {space} {name} {uid} {}", one["data"]));
        }
    }
    lines.sort();
    Ok(lines)
}

#[test]
fn a_backup_of_a_running_server_is_another_one() -> Result<()> {
    let mut one = Server::start(&ALONE)?;
    for n in 0..5 {
        let name = format!("c{n}");
        one.kubectl(&["create", "configmap", &name, "--from-literal=a=b"])?
            .ok()?;
    }
    one.kubectl(&["create", "secret", "generic", "s", "--from-literal=a=b"])?
        .ok()?;
    one.kubectl(&["create", "service", "clusterip", "svc", "--tcp=80"])?
        .ok()?;
    one.kubectl(&["delete", "configmap", "c3"])?.ok()?;
    let file = one.data_dir().join("backup").display().to_string();
    let said = peapod(&one, &["snapshot", "save", &file])?.ok()?;
    ensure!(said.contains("objects and claims at revision"), "{said}");
    let before = content(&one)?;
    // Written afterwards, and lost.
    one.kubectl(&["create", "configmap", "late", "--from-literal=a=b"])?
        .ok()?;
    let lost = revision(&one)?;
    let verified = peapod(&one, &["snapshot", "verify", &file])?.ok()?;
    ensure!(said.contains(verified.trim()), "{said}{verified}");

    let data = one.data_dir().display().to_string();
    let running = command::run(
        command::peapod()?,
        ["snapshot", "restore", &file, "--data-dir", &data],
    )?;
    ensure!(running.refused()?.contains("stop it first"));
    one.stop()?;
    ensure!(
        restore(&one, &file, &[])?
            .refused()?
            .contains("is not empty")
    );

    let mut two = Server::prepare(&ALONE)?;
    with_keys_of(&one, &two)?;
    let said = restore(&two, &file, &[])?.ok()?;
    ensure!(said.contains("revisions go on from"), "{said}");
    two.run()?;
    two.ready()?;
    ensure!(
        content(&two)? == before,
        "{:#?}\n{before:#?}",
        content(&two)?
    );
    ensure!(revision(&two)? > lost);
    // The address of the service is given, and taken.
    let service = |name: &str, ip: &str| {
        let ip = format!("--clusterip={ip}");
        two.kubectl(&["create", "service", "clusterip", name, "--tcp=80", &ip])
    };
    let address = ["get", "service", "svc", "-o", "jsonpath={.spec.clusterIP}"];
    let given = two.kubectl(&address)?.ok()?;
    ensure!(
        service("other", &given)?
            .refused()?
            .contains("already allocated")
    );
    // Whoever watched the lost future lists again.
    let path = format!("/api/v1/configmaps?watch=1&timeoutSeconds=5&resourceVersion={lost}");
    let watched = two.kubectl(&["get", "--raw", &path])?;
    let told = format!("{}{}", watched.stdout, watched.stderr);
    ensure!(
        told.contains("Expired") || told.contains("too old"),
        "{told}"
    );
    two.kubectl(&["create", "configmap", "late", "--from-literal=c=d"])?
        .ok()?;
    damaged(Path::new(&file))
}

/// A backup that is not whole is told from one that is.
fn damaged(file: &Path) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    bytes.truncate(bytes.len() - 100);
    std::fs::write(file, &bytes)?;
    let name = file.display().to_string();
    let said = command::run(command::peapod()?, ["snapshot", "verify", &name])?.refused()?;
    ensure!(said.contains("is damaged"), "{said}");
    let fresh = Server::prepare(&ALONE)?;
    let said = restore(&fresh, &name, &[])?.refused()?;
    ensure!(said.contains("is damaged"), "{said}");
    ensure!(!fresh.data_dir().join("store/db").exists());
    Ok(())
}

#[test]
fn a_cluster_moves_from_sled_to_etcd() -> Result<()> {
    let etcd = Etcd::start(1)?;
    let mut one = Server::start(&ALONE)?;
    one.kubectl(&["create", "configmap", "c", "--from-literal=a=b"])?
        .ok()?;
    let file = one.data_dir().join("backup").display().to_string();
    peapod(&one, &["snapshot", "save", &file])?.ok()?;
    let (before, last) = (content(&one)?, revision(&one)?);
    one.stop()?;
    let flags = [etcd.flags(), ALONE.map(str::to_owned).to_vec()].concat();
    let mut two = Server::prepare(&flags)?;
    with_keys_of(&one, &two)?;
    restore(&two, &file, &etcd.flags())?.ok()?;
    ensure!(
        restore(&two, &file, &etcd.flags())?
            .refused()?
            .contains("there is something under")
    );
    two.run()?;
    two.ready()?;
    let after = content(&two)?;
    ensure!(after == before, "{after:#?}\n{before:#?}");
    ensure!(revision(&two)? > last);
    Ok(())
}
