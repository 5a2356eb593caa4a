//! Programs that speak the API: the Python client, and a controller written with kube-rs.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use peapod_tests::{Cluster, command};

#[test]
fn the_python_client() -> Result<()> {
    let cluster = Cluster::up()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/everyday.py");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python3");
    let mut program = Command::new(python);
    program.arg(script).env("KUBECONFIG", cluster.kubeconfig());
    let said = command::finish(program, None)?.ok()?;
    assert!(said.ends_with("all done\n"), "{said}");
    Ok(())
}

/// Those of the equivalents of upstream's conformance tests (`tests/conformance`) of nodes and
/// storage that are quick and whose mechanism nothing else here asks for.
#[test]
fn what_upstreams_conformance_tests_ask_of_nodes() -> Result<()> {
    const ASKED: &str = "^.sig-(node|storage). .*(websockets|invalid sysctls|optional updates|\
        image defaults|EtcHosts|termination message|hostIPs|various prefixes|subpaths with|DRA|\
        EmptyDir volumes should support|ephemeral container|VolumeAttachment|Lease)";
    let cluster = Cluster::up()?;
    let peapod = command::peapod()?;
    conformance(&cluster, ASKED, |run| {
        run.args(["-j", "8", "--images", "small", "--load"]);
        run.arg(peapod).arg(cluster.data_dir());
    })
}

/// Those of sig-api-machinery that need no image and are quick.
#[test]
fn what_upstreams_conformance_tests_ask_of_the_api() -> Result<()> {
    const ASKED: &str = "^.sig-api-machinery. .*(FieldValidation|AggregatedDiscovery|Discovery should|\
        Table transformation|sub-resource works|defaulting for requests|CRD with validation schema|\
        ResourceQuota .*(best effort|terminating|lifecycle|promptly)|Watchers .*concurrent|\
        AdmissionPolicy .*should (validate|mutate|allow|support)|API chunking should return|\
        Watchers should be able)";
    conformance(&Cluster::up()?, ASKED, |_| ())
}

/// Runs the tests whose names match. None may fail.
fn conformance(cluster: &Cluster, asked: &str, more: impl FnOnce(&mut Command)) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut program = Command::new(root.join("../target/clients/bin/python3"));
    program
        .arg(root.join("conformance/run.py"))
        .arg(cluster.kubeconfig())
        .arg(asked)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    more(&mut program);
    let run = command::finish(program, None)?;
    let said = run.ok()?;
    assert!(said.ends_with(", 0 failed\n"), "{said}");
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

#[test]
fn an_operator_with_its_own_kind() -> Result<()> {
    let cluster = Cluster::up()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(operator::run(&cluster))
}

/// An operator: it defines the kind `Fleet`, keeps as many ConfigMaps for each as it asks for,
/// counts them in its status, and cleans up by a finalizer.
mod operator {
    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::{Context, Result};
    use futures::StreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::runtime::controller::{Action, Controller};
    use kube::runtime::finalizer::{Event, finalizer};
    use kube::runtime::wait::{await_condition, conditions};
    use kube::runtime::watcher;
    use kube::{Api, Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt};
    use peapod_tests::{Cluster, wait::PATIENCE};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    #[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
    #[kube(group = "example.com", version = "v1", kind = "Fleet", namespaced)]
    #[kube(status = "FleetStatus", shortname = "fl")]
    #[kube(scale(
        spec_replicas_path = ".spec.size",
        status_replicas_path = ".status.ready"
    ))]
    struct FleetSpec {
        #[schemars(range(min = 0, max = 5))]
        size: i32,
    }

    #[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
    struct FleetStatus {
        ready: i32,
    }

    type Fault = kube::runtime::finalizer::Error<kube::Error>;

    pub async fn run(cluster: &Cluster) -> Result<()> {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let manager = PatchParams::apply("fleet-operator");
        let name = Fleet::crd_name();
        definitions
            .patch(name, &manager, &Patch::Apply(Fleet::crd()))
            .await?;
        within(await_condition(
            definitions.clone(),
            name,
            conditions::is_crd_established(),
        ))
        .await?;

        let fleets: Api<Fleet> = Api::namespaced(client.clone(), "default");
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let controller =
            Controller::new(fleets.clone(), watcher::Config::default().streaming_lists())
                .owns(maps.clone(), watcher::Config::default())
                .run(
                    reconcile,
                    |_, _, _| Action::requeue(Duration::from_secs(1)),
                    Arc::new(client.clone()),
                );
        let controller = tokio::spawn(controller.for_each(|_| async {}));

        fleets
            .create(
                &PostParams::default(),
                &Fleet::new("f", FleetSpec { size: 3 }),
            )
            .await?;
        let ready = |count: i32| {
            move |fleet: Option<&Fleet>| {
                fleet
                    .and_then(|f| f.status.as_ref())
                    .is_some_and(|s| s.ready == count)
            }
        };
        within(await_condition(fleets.clone(), "f", ready(3))).await?;
        let larger = Patch::Merge(serde_json::json!({"spec": {"replicas": 4}}));
        fleets
            .patch_scale("f", &PatchParams::default(), &larger)
            .await?;
        within(await_condition(fleets.clone(), "f", ready(4))).await?;
        let too_large = Patch::Merge(serde_json::json!({"spec": {"size": 9}}));
        let refused = fleets.patch("f", &PatchParams::default(), &too_large).await;
        assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));

        let uid = fleets.get("f").await?.uid().context("no uid")?;
        fleets.delete("f", &DeleteParams::default()).await?;
        within(await_condition(fleets, "f", conditions::is_deleted(&uid))).await?;
        let left = maps.list(&ListParams::default().labels("fleet=f")).await?;
        assert!(
            left.items.is_empty(),
            "the finalizer removes what the fleet had"
        );
        controller.abort();
        definitions.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn within<T, E: std::error::Error + Send + Sync + 'static>(
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        Ok(tokio::time::timeout(PATIENCE, work)
            .await
            .context("waited too long")??)
    }

    async fn reconcile(fleet: Arc<Fleet>, client: Arc<Client>) -> Result<Action, Fault> {
        let fleets: Api<Fleet> = Api::namespaced(Client::clone(&client), "default");
        finalizer(&fleets, "example.com/fleet", fleet, |event| async {
            match event {
                Event::Apply(fleet) => keep(&fleet, Client::clone(&client)).await,
                Event::Cleanup(fleet) => remove(&fleet, Client::clone(&client)).await,
            }
        })
        .await
    }

    fn labelled(fleet: &Fleet) -> String {
        format!("fleet={}", fleet.name_any())
    }

    async fn keep(fleet: &Fleet, client: Client) -> Result<Action, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let manager = PatchParams::apply("fleet-operator").force();
        for index in 0..fleet.spec.size {
            let name = format!("{}-{index}", fleet.name_any());
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    labels: Some([("fleet".to_owned(), fleet.name_any())].into()),
                    owner_references: fleet.controller_owner_ref(&()).map(|owner| vec![owner]),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            };
            maps.patch(&name, &manager, &Patch::Apply(&map)).await?;
        }
        let found = maps
            .list(&ListParams::default().labels(&labelled(fleet)))
            .await?;
        let ready = i32::try_from(found.items.len()).unwrap_or(i32::MAX);
        let fleets: Api<Fleet> = Api::namespaced(client, "default");
        let status = serde_json::json!({"status": FleetStatus { ready }});
        fleets
            .patch_status(
                &fleet.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await?;
        Ok(Action::await_change())
    }

    async fn remove(fleet: &Fleet, client: Client) -> Result<Action, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let selected = ListParams::default().labels(&labelled(fleet));
        maps.delete_collection(&DeleteParams::default(), &selected)
            .await?;
        Ok(Action::await_change())
    }
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
