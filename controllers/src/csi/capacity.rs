//! How much room drivers have where: CSIStorageCapacity objects, which the scheduler reads.
//!
//! One object for each class of a driver and each place that it serves; [`wanted`] says which.
//! Nothing tells when a driver's room changes, so that it is asked once a minute, as upstream
//! does, and whenever a volume comes or goes.
//!
//! <https://kubernetes.io/docs/concepts/storage/storage-capacity/>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ObjectMeta;
use peapod_csi::v1::controller_service_capability::rpc::Type as Call;
use peapod_csi::v1::{GetCapacityRequest, GetCapacityResponse};
use sha2::{Digest, Sha256};

use super::WORKERS;
use super::attach::source;
use super::drivers::{Drivers, Job, Reached};
use super::parameters;
use super::provision::core::bytes;
use super::topology::{Segments, World, said};
use crate::common::Key;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "csi-capacity";
/// Where the objects are, as upstream's are in the side car's namespace.
const NAMESPACE: &str = "kube-system";
/// Labels of an object: its driver, and that it is ours.
const DRIVER: &str = "csi.storage.k8s.io/drivername";
/// See [`DRIVER`].
const MANAGER: (&str, &str) = ("csi.storage.k8s.io/managed-by", "peapod");
/// How old what is known of a driver's room may be.
const AGE: Duration = Duration::from_secs(60);

struct Capacities {
    ctx: Context,
    drivers: Drivers,
}

/// Wires the loop; its keys are drivers.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let informers = ctx.informers.clone();
    let telling = move || {
        let drivers = informers.csi_drivers.all();
        let telling = drivers
            .into_iter()
            .filter(|one| one.spec.storage_capacity == Some(true));
        telling.map(|one| Key::of(&*one)).collect::<Vec<_>>()
    };
    let on_nodes = telling;
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.csi_drivers)
        .on(&ctx.informers.csi_nodes, move |_| on_nodes())
        .on(&ctx.informers.storage_classes, |change| {
            change
                .latest()
                .map(|class| Key::cluster(&class.provisioner))
        })
        .on(&ctx.informers.volumes, |change| {
            let moved = change.old.is_none() || change.new.is_none();
            let source = change.latest().and_then(source).filter(|_| moved);
            source.map(|source| Key::cluster(&source.driver))
        })
        .reads(&ctx.informers.csi_capacities)
        .reads(&ctx.informers.nodes)
        .workers(WORKERS)
        .run(
            tasks,
            Capacities {
                ctx: ctx.clone(),
                drivers: drivers.clone(),
            },
        );
}

/// The name of the object for a class and a place.
fn name(driver: &str, class: &str, place: Option<&Segments>) -> String {
    let place: Vec<_> = place
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let digest = Sha256::digest(format!("{driver}\n{class}\n{}", place.join("\n")));
    let hex: String = digest
        .iter()
        .take(10)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("csisc-{hex}")
}

/// The objects there should be, their sizes still to be asked for: by name.
fn wanted(
    driver: &str,
    classes: &[Arc<StorageClass>],
    places: &[Option<Segments>],
) -> BTreeMap<String, (Arc<StorageClass>, Option<Segments>)> {
    let of_driver = classes.iter().filter(|class| class.provisioner == driver);
    let pairs = of_driver.flat_map(|class| {
        places.iter().map(move |place| {
            let class_name = class.metadata.name.as_deref().unwrap_or_default();
            let name = name(driver, class_name, place.as_ref());
            (name, (class.clone(), place.clone()))
        })
    });
    pairs.collect()
}

/// The object of an answer. A driver without places has room everywhere.
fn object(
    name: &str,
    driver: &str,
    class: &StorageClass,
    place: Option<&Segments>,
    answer: &GetCapacityResponse,
) -> CSIStorageCapacity {
    let labels = [(DRIVER, driver), MANAGER].map(|(key, value)| (key.to_owned(), value.to_owned()));
    CSIStorageCapacity {
        metadata: ObjectMeta {
            namespace: Some(NAMESPACE.to_owned()),
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            ..Default::default()
        },
        storage_class_name: class.metadata.name.clone().unwrap_or_default(),
        node_topology: Some(LabelSelector {
            match_labels: place.cloned(),
            match_expressions: None,
        }),
        capacity: Some(bytes(answer.available_capacity)),
        maximum_volume_size: answer
            .maximum_volume_size
            .filter(|size| *size > 0)
            .map(bytes),
    }
}

impl Controller for Capacities {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let driver = &key.name;
        let informers = &self.ctx.informers;
        let telling = informers.csi_drivers.get(key);
        let telling = telling.is_some_and(|one| one.spec.storage_capacity == Some(true));
        let reached = match telling {
            true => self.drivers.reach(driver, Job::Provisioner, None).await?,
            false => None,
        };
        let reached = reached.filter(|one| one.abilities.can(Call::GetCapacity));
        let wanted = match &reached {
            Some(reached) => wanted(
                driver,
                &informers.storage_classes.all(),
                &self.places(driver, reached),
            ),
            None => BTreeMap::new(),
        };
        self.prune(driver, &wanted).await?;
        let Some(_) = reached.as_ref().filter(|_| !wanted.is_empty()) else {
            return Ok(Outcome::Done);
        };
        for (name, (class, place)) in &wanted {
            self.refresh(driver, name, class, place.as_ref()).await?;
        }
        Ok(Outcome::After(AGE))
    }
}

impl Capacities {
    fn places(&self, driver: &str, reached: &Reached) -> Vec<Option<Segments>> {
        if !reached.abilities.topology {
            return vec![None];
        }
        let informers = &self.ctx.informers;
        let world = World {
            driver,
            csi_nodes: &informers.csi_nodes.all(),
            nodes: &informers.nodes.all(),
        };
        world.places().into_iter().map(Some).collect()
    }

    /// Deletes our objects of a driver that are not wanted.
    async fn prune<T>(&self, driver: &str, wanted: &BTreeMap<String, T>) -> Result<()> {
        for one in self.ctx.informers.csi_capacities.in_namespace(NAMESPACE) {
            let labels = one.metadata.labels.clone().unwrap_or_default();
            let is = |key: &str, value: &str| labels.get(key).is_some_and(|label| label == value);
            let ours = is(DRIVER, driver) && is(MANAGER.0, MANAGER.1);
            let name = one.metadata.name.as_deref().unwrap_or_default();
            if ours && !wanted.contains_key(name) {
                write::delete::<CSIStorageCapacity>(&self.ctx, &one.metadata).await?;
            }
        }
        Ok(())
    }

    async fn refresh(
        &self,
        driver: &str,
        name: &str,
        class: &StorageClass,
        place: Option<&Segments>,
    ) -> Result<()> {
        // A driver of node-local storage knows only its own node's.
        let near = place.and_then(|place| self.node_in(driver, place));
        let Some(reached) = self
            .drivers
            .reach(driver, Job::Provisioner, near.as_deref())
            .await?
        else {
            return Ok(());
        };
        let parameters = class.parameters.clone().unwrap_or_default();
        let request = GetCapacityRequest {
            volume_capabilities: Vec::new(),
            // What the class's author got wrong is told where a volume is asked for.
            parameters: parameters::for_driver(&parameters).unwrap_or_default(),
            accessible_topology: place.cloned().map(said),
        };
        let answer = reached.driver.call(request).await?;
        let new = object(name, driver, class, place, &answer);
        match self
            .ctx
            .informers
            .csi_capacities
            .get(&Key::new(NAMESPACE, name))
        {
            None => match write::create(&self.ctx, &new).await {
                Err(error) if error.is_already_exists() => {}
                result => result.map(drop)?,
            },
            Some(old) => {
                let mut merged = CSIStorageCapacity::clone(&old);
                merged.capacity = new.capacity;
                merged.maximum_volume_size = new.maximum_volume_size;
                write::update(&self.ctx, &*old, &merged).await?;
            }
        }
        Ok(())
    }

    fn node_in(&self, driver: &str, place: &Segments) -> Option<String> {
        let informers = &self.ctx.informers;
        let nodes = informers.csi_nodes.all();
        let mut names = nodes
            .iter()
            .filter(|node| super::drivers::on_node(node, driver).is_some())
            .filter_map(|node| node.metadata.name.clone());
        names.find(|name| {
            let node = informers.nodes.get(&Key::cluster(name));
            let labels = node
                .and_then(|node| node.metadata.labels.clone())
                .unwrap_or_default();
            place
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_for_each_class_and_place() {
        let class = |name: &str, provisioner: &str| -> Arc<StorageClass> {
            let class = json!({"metadata": {"name": name}, "provisioner": provisioner});
            Arc::new(serde_json::from_value(class).unwrap())
        };
        let classes = [class("a", "d"), class("b", "d"), class("c", "other")];
        let place = |zone: &str| Some(Segments::from([("zone".to_owned(), zone.to_owned())]));
        let wanted = wanted("d", &classes, &[place("x"), place("y")]);
        assert_eq!(wanted.len(), 4);
        let (name, (class, place)) = wanted.first_key_value().unwrap();
        let answer = GetCapacityResponse {
            available_capacity: 5 << 30,
            maximum_volume_size: Some(1 << 30),
            minimum_volume_size: None,
        };
        let made = object(name, "d", class, place.as_ref(), &answer);
        assert_eq!(made.capacity.unwrap().0, "5Gi");
        assert_eq!(made.maximum_volume_size.unwrap().0, "1Gi");
        assert_eq!(made.node_topology.unwrap().match_labels, *place);
    }
}
