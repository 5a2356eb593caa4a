//! Programs that speak the API: the Python client, and a controller written with kube-rs.

use std::path::Path;

use anyhow::Result;
use peapod_tests::{Cluster, command};

#[test]
fn the_python_client() -> Result<()> {
    let cluster = Cluster::up()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/everyday.py");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python3");
    let mut program = std::process::Command::new(python);
    program.arg(script).env("KUBECONFIG", cluster.kubeconfig());
    let said = command::finish(program, None)?.ok()?;
    assert!(said.ends_with("all done\n"), "{said}");
    Ok(())
}

#[test]
fn a_controller_written_with_kube_rs() -> Result<()> {
    let cluster = Cluster::up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(mirror::run(&cluster))
}

/// A controller that gives every ConfigMap labelled `mirror=yes` a twin that it owns.
mod mirror {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::{Context, Result};
    use futures::StreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::runtime::controller::{Action, Controller};
    use kube::runtime::wait::{await_condition, conditions};
    use kube::runtime::watcher;
    use kube::{Api, Client, Config, Resource, ResourceExt};
    use peapod_tests::{Cluster, wait::PATIENCE};

    pub async fn run(cluster: &Cluster) -> Result<()> {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config =
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let watched = watcher::Config::default()
            .labels("mirror=yes")
            .streaming_lists();
        let controller = Controller::new(maps.clone(), watched)
            .owns(maps.clone(), watcher::Config::default())
            .run(
                reconcile,
                |_, _, _| Action::requeue(Duration::from_secs(1)),
                Arc::new(client),
            );
        let controller = tokio::spawn(controller.for_each(|_| async {}));

        let original = ConfigMap {
            metadata: ObjectMeta {
                name: Some("original".to_owned()),
                labels: Some(BTreeMap::from([("mirror".to_owned(), "yes".to_owned())])),
                ..Default::default()
            },
            data: Some(BTreeMap::from([("a".to_owned(), "1".to_owned())])),
            ..Default::default()
        };
        maps.create(&PostParams::default(), &original).await?;
        let mirrored = |value: &'static str| {
            move |map: Option<&ConfigMap>| {
                map.and_then(|m| m.data.as_ref())
                    .and_then(|d| d.get("a"))
                    .is_some_and(|v| v == value)
            }
        };
        within(await_condition(
            maps.clone(),
            "original-twin",
            mirrored("1"),
        ))
        .await?;
        let change = Patch::Merge(serde_json::json!({"data": {"a": "2"}}));
        maps.patch("original", &PatchParams::default(), &change)
            .await?;
        within(await_condition(
            maps.clone(),
            "original-twin",
            mirrored("2"),
        ))
        .await?;

        let twin = maps.get("original-twin").await?;
        let uid = twin.uid().context("no uid")?;
        maps.delete("original", &DeleteParams::default()).await?;
        within(await_condition(
            maps,
            "original-twin",
            conditions::is_deleted(&uid),
        ))
        .await?;
        controller.abort();
        Ok(())
    }

    async fn within<T, E: std::error::Error + Send + Sync + 'static>(
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        Ok(tokio::time::timeout(PATIENCE, work)
            .await
            .context("waited too long")??)
    }

    async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(Client::clone(&client), "default");
        let owner = map.controller_owner_ref(&()).unwrap_or_default();
        let name = format!("{}-twin", map.name_any());
        let twin = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                owner_references: Some(vec![owner]),
                ..Default::default()
            },
            data: map.data.clone(),
            ..Default::default()
        };
        maps.patch(
            &name,
            &PatchParams::apply("mirror").force(),
            &Patch::Apply(&twin),
        )
        .await?;
        Ok(Action::await_change())
    }
}
