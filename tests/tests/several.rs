//! Several servers over one etcd are one cluster: leaders among them, and what happens when one dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use peapod_tests::{Etcd, Server, command};
use serde_json::json;

/// A bound that only a fault reaches.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks until it is so; what fails meanwhile is asked again.
async fn eventually(what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asking = async {
        while !matches!(so().await, Ok(true)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .context(what.to_owned())
}

async fn holder(client: &Client, lease: &str) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = leases.get(lease).await?;
    lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("no holder")
}

/// How many servers the `kubernetes` Service leads to: here each has a port of its own.
async fn addresses(client: &Client) -> Result<usize> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let of_it = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    let slices = slices.list(&of_it).await?.items;
    let endpoints = slices.iter().filter_map(|slice| slice.endpoints.as_ref());
    Ok(endpoints.map(Vec::len).sum())
}

/// A deployment of pods that a node need not run.
fn deployment(name: &str) -> Result<Deployment> {
    let labels = json!({"app": name});
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "demo:v1"}]},
            },
        },
    }))?)
}

/// Creates a deployment, and waits until the controllers have made its pods.
async fn is_worked_on(client: &Client, name: &str) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments
        .create(&PostParams::default(), &deployment(name)?)
        .await?;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let of_it = ListParams::default().labels(&format!("app={name}"));
    eventually("pods of the deployment", async || {
        Ok(pods.list(&of_it).await?.items.len() == 2)
    })
    .await
}

/// A second server of the first one's cluster.
fn another(etcd: &Etcd, first: &Server) -> Result<Server> {
    let mut flags = etcd.flags();
    flags.extend([
        "--pki-dir".to_owned(),
        first.data_dir().join("pki").display().to_string(),
    ]);
    Server::start(&flags)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_when_it_dies_another_does() -> Result<()> {
    let etcd = Etcd::start_secure(1)?;
    let mut one = Server::start(&etcd.flags())?;
    let first = one.client().await?;
    is_worked_on(&first, "before").await?;
    let leader = holder(&first, "kube-controller-manager").await?;
    ensure!(leader == holder(&first, "kube-scheduler").await?);

    let mut two = another(&etcd, &one)?;
    let second = two.client().await?;
    // The keys are the same: either knows who the other's administrator is.
    ensure!(leader == holder(&second, "kube-controller-manager").await?);
    ensure!(addresses(&second).await? == 2);
    // Killed and started again it is the same candidate, and need not wait for itself.
    one.kill()?;
    one.run()?;
    one.ready()?;
    ensure!(leader == holder(&second, "kube-controller-manager").await?);
    is_worked_on(&second, "between").await?;

    // One that is told to stop hands over at once; one that is killed, when its lease has run out.
    one.stop()?;
    for lease in ["kube-controller-manager", "kube-scheduler"] {
        eventually("the second to lead", async || {
            let now = holder(&second, lease).await?;
            Ok(!now.is_empty() && now != leader)
        })
        .await?;
    }
    ensure!(addresses(&second).await? == 1);
    one.run()?;
    one.ready()?;
    two.kill()?;
    let first = one.client().await?;
    is_worked_on(&first, "after").await?;
    ensure!(leader == holder(&first, "kube-controller-manager").await?);
    Ok(())
}

/// What `peapod token create --server` prints, without `peapod server`.
fn to_join(first: &Server, more: &[&str]) -> Result<Vec<String>> {
    let data_dir = first.data_dir().display().to_string();
    let mut args = vec!["token", "--data-dir", &data_dir, "create"];
    args.extend(more);
    let said = command::run(command::peapod()?, args)?.ok()?;
    Ok(said.split_whitespace().skip(2).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_further_server_joins_by_a_token() -> Result<()> {
    let etcd = Etcd::start_secure(1)?;
    let first_flags = [
        etcd.flags(),
        vec!["--service-cidr".to_owned(), "10.97.0.0/16".to_owned()],
    ]
    .concat();
    let one = Server::start(&first_flags)?;
    let flags = to_join(&one, &["--server"])?;
    let mut two = Server::start(&flags)?;
    let (first, second) = (one.client().await?, two.client().await?);
    is_worked_on(&second, "by-the-second").await?;
    ensure!(addresses(&first).await? == 2);
    let services: Api<Service> = Api::default_namespaced(second.clone());
    let address = services
        .get("kubernetes")
        .await?
        .spec
        .and_then(|s| s.cluster_ip);
    ensure!(address.as_deref() == Some("10.97.0.1"), "{address:?}");

    // It has joined: the token may go, and what it could read goes with it.
    let secrets: Api<Secret> = Api::namespaced(first.clone(), "kube-system");
    let id = flags[3].split('.').next().context("a token")?.to_owned();
    let sealed = format!("peapod-server-{id}");
    let kept = secrets.get(&sealed).await?.data.unwrap_or_default();
    ensure!(
        kept.values()
            .all(|one| !String::from_utf8_lossy(&one.0).contains("PRIVATE KEY"))
    );
    let token = format!("bootstrap-token-{id}");
    secrets.delete(&token, &DeleteParams::default()).await?;
    eventually("the keys to go with the token", async || {
        Ok(secrets.get_opt(&sealed).await?.is_none())
    })
    .await?;
    two.stop()?;
    two.run()?;
    two.ready()?;
    // By itself it is one that others can join.
    let flags = to_join(&two, &["--server"])?;
    let three = Server::start(&flags)?;
    ensure!(addresses(&three.client().await?).await? == 3);

    let refused = |flags: &[String]| Server::prepare(flags)?.refused();
    let said = refused(&flags_with(&flags, 7, &"A".repeat(43)))?;
    ensure!(said.contains("--certificate-key does not open"), "{said}");
    let of_nodes = to_join(&one, &["--print-join-command"])?;
    let said = refused(&flags_with(&flags, 3, &of_nodes[2]))?;
    ensure!(said.contains("token create --server"), "{said}");
    Ok(())
}

/// The same flags, with another value at a place.
fn flags_with(flags: &[String], at: usize, value: &str) -> Vec<String> {
    let mut flags = flags.to_vec();
    flags[at] = value.to_owned();
    flags
}

#[test]
fn only_servers_over_etcd_are_joined() -> Result<()> {
    let one = Server::start::<&str>(&[])?;
    let data_dir = one.data_dir().display().to_string();
    let asked = ["token", "--data-dir", &data_dir, "create", "--server"];
    let said = command::run(command::peapod()?, asked)?.refused()?;
    ensure!(said.contains("keeps its objects for itself"), "{said}");
    Ok(())
}

#[test]
fn a_store_that_cannot_be_had_is_refused_in_one_sentence() -> Result<()> {
    let etcd = Etcd::start_secure(1)?;
    let other = Etcd::start_secure(1)?;
    let path = |etcd: &Etcd, name: &str| etcd.file(name).display().to_string();
    let (ca, certificate, key) = (
        path(&etcd, "ca.crt"),
        path(&etcd, "client.crt"),
        path(&etcd, "client.key"),
    );
    let secure = etcd.store();
    let plain = secure.replace("https", "http");
    let ours = ["--etcd-certfile", &certificate, "--etcd-keyfile", &key];
    for (flags, sentence) in [
        (
            vec!["--store", "etcd=10.0.0.1:2379"],
            "is no URL of an etcd member",
        ),
        (
            vec!["--store", "postgres"],
            "it must be sled, or etcd=URL,...",
        ),
        (vec!["--store", &*secure], "pass --etcd-cafile"),
        (
            vec!["--store", "sled", "--etcd-cafile", &*ca],
            "are for --store etcd=",
        ),
        (
            vec!["--store", &*plain, "--etcd-cafile", &*ca],
            "URLs that begin with https",
        ),
        (
            vec!["--store", &*secure, "--etcd-cafile", &*key],
            "holds no certificate in PEM",
        ),
        (
            vec!["--store", &*secure, "--etcd-cafile", &*ca],
            "cannot reach etcd at https://127.0.0.1",
        ),
        (
            [
                &[
                    "--store",
                    &*secure,
                    "--etcd-cafile",
                    &*path(&other, "ca.crt"),
                ][..],
                &ours,
            ]
            .concat(),
            "invalid peer certificate",
        ),
        (
            vec!["--store", "etcd=http://127.0.0.1:9"],
            "is it running, with a quorum?",
        ),
    ] {
        let said = Server::prepare(&flags)?.refused()?;
        let last = said
            .lines()
            .filter(|line| line.starts_with("error"))
            .count();
        ensure!(last == 1 && said.contains(sentence), "{flags:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_server_with_other_keys_or_another_store_is_refused() -> Result<()> {
    let etcd = Etcd::start(1)?;
    let mut one = Server::start(&etcd.flags())?;
    let said = Server::prepare(&etcd.flags())?.refused()?;
    ensure!(said.contains("--pki-dir"), "{said}");
    one.stop()?;
    let dir = one.data_dir().display().to_string();
    let run = peapod_tests::command::run(
        peapod_tests::command::peapod()?,
        ["server", "--data-dir", &dir, "--listen", one.listen()],
    )?;
    let said = run.refused()?;
    ensure!(said.contains("--store says sled"), "{said}");
    Ok(())
}
