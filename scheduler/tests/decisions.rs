//! Decisions: each file in `tests/decisions` is a small cluster, a pod, and what becomes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use peapod_scheduler::core::decide::{Candidate, Diagnosis, decide};
use peapod_scheduler::core::drivers::{Capacity, Drivers};
use peapod_scheduler::core::node::NodeSpec;
use peapod_scheduler::core::preempt::{Budget, preempt};
use peapod_scheduler::core::shape::Shape;
use peapod_scheduler::core::snapshot::{Facts, Snapshot};
use peapod_scheduler::core::volumes::{Bind, Claim, Class, Volume};
use peapod_scheduler::view;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::{Value, json};

/// One file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    nodes: Vec<NodeCase>,
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    pods: Vec<PodCase>,
    #[serde(default)]
    budgets: Vec<PodDisruptionBudget>,
    #[serde(default)]
    claims: Vec<PersistentVolumeClaim>,
    #[serde(default)]
    volumes: Vec<PersistentVolume>,
    #[serde(default)]
    classes: Vec<StorageClass>,
    #[serde(default)]
    csi_nodes: Vec<CSINode>,
    #[serde(default)]
    csi_drivers: Vec<CSIDriver>,
    #[serde(default)]
    capacities: Vec<CSIStorageCapacity>,
    pod: PodCase,
    expect: Expect,
}

/// A node; `cpu` 4, `memory` 8Gi and `pods` 110 unless told otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeCase {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    allocatable: BTreeMap<String, Value>,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    images: Vec<Value>,
}

/// A pod; `requests` is short for one container with them, `node` for `spec.nodeName`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PodCase {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    node: String,
    #[serde(default)]
    requests: BTreeMap<String, Value>,
    #[serde(default)]
    deleting: bool,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    started: i64,
    #[serde(default)]
    spec: Value,
}

fn default_namespace() -> String {
    "default".to_owned()
}

/// What becomes of the pod: one of these nodes, or none with this message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default)]
    node: Vec<String>,
    #[serde(default)]
    binds: Vec<String>,
    #[serde(default)]
    message: String,
    /// What preemption says when it does nothing.
    preemption: Option<String>,
    /// The node that preemption clears, and who has to go.
    preempts: Option<Preempts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preempts {
    node: String,
    victims: Vec<String>,
}

/// Numbers may be written as numbers.
fn texts(list: &BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let pairs = list.iter();
    pairs.map(|(k, v)| (k.clone(), text(v))).collect()
}

fn merged(mut base: Value, over: &Value) -> Value {
    if let (Value::Object(base), Value::Object(over)) = (&mut base, over) {
        base.extend(over.clone());
    }
    base
}

impl NodeCase {
    fn spec(&self) -> NodeSpec {
        let mut allocatable = texts(&self.allocatable);
        for (name, amount) in [("cpu", "4"), ("memory", "8Gi"), ("pods", "110")] {
            let amount = amount.to_owned();
            allocatable.entry(name.to_owned()).or_insert(amount);
        }
        let mut labels = self.labels.clone();
        let hostname = peapod_api::labels::HOSTNAME.to_owned();
        labels.entry(hostname).or_insert(self.name.clone());
        let node: view::Node = serde_json::from_value(json!({
            "metadata": {"name": self.name, "labels": labels},
            "spec": merged(json!({}), &self.spec),
            "status": {"allocatable": allocatable, "images": self.images},
        }))
        .unwrap();
        NodeSpec::of(&node)
    }
}

impl PodCase {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn shape(&self) -> Arc<Shape> {
        let container = json!({"image": "app", "resources": {"requests": texts(&self.requests)}});
        let owners = self.owner.as_ref().map(|uid| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid,
                    "controller": true}])
        });
        let pod: view::Pod = serde_json::from_value(json!({
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels,
                         "ownerReferences": owners},
            "spec": merged(json!({"containers": [container]}), &self.spec),
        }))
        .unwrap();
        Arc::new(Shape::of(&pod))
    }
}

impl Case {
    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for node in &self.nodes {
            snapshot.set_node(&node.name, node.spec());
        }
        for (name, labels) in &self.namespaces {
            let labels = Arc::new(labels.clone());
            snapshot.namespaces.insert(name.clone(), labels);
        }
        for pod in &self.pods {
            let facts = Facts {
                uid: Arc::from(pod.name.as_str()),
                priority: pod.priority,
                started: pod.started,
                terminating: pod.deleting,
            };
            snapshot.place(&pod.key().into(), &pod.shape(), &pod.node, facts);
        }
        for budget in &self.budgets {
            let name = budget.metadata.name.clone().unwrap();
            snapshot.budgets.insert(name, Budget::of(budget));
        }
        let name = |meta: &kube::core::ObjectMeta| meta.name.clone().unwrap();
        for claim in &self.claims {
            let key = format!("default/{}", name(&claim.metadata));
            snapshot.volumes.claims.insert(key, Claim::of(claim));
        }
        for volume in &self.volumes {
            let (name, volume) = (name(&volume.metadata), Volume::of(volume));
            snapshot.volumes.volumes.insert(name, volume);
        }
        for class in &self.classes {
            let (name, class) = (name(&class.metadata), Class::of(class));
            snapshot.volumes.classes.insert(name, class);
        }
        let drivers = &mut snapshot.volumes.drivers;
        for node in &self.csi_nodes {
            drivers
                .limits
                .insert(name(&node.metadata), Drivers::limits_of(node));
        }
        for driver in self.csi_drivers.iter().filter(|one| Drivers::tells(one)) {
            drivers.telling.insert(name(&driver.metadata));
        }
        for one in &self.capacities {
            let key = format!("default/{}", name(&one.metadata));
            drivers.capacities.insert(key, Capacity::of(one));
        }
        snapshot
    }

    fn check(&self) {
        let mut snapshot = self.snapshot();
        let (key, shape) = (self.pod.key(), self.pod.shape());
        let candidate = Candidate {
            key: &key,
            shape: &shape,
            priority: self.pod.priority,
            nominated: None,
        };
        // A tie may fall either way; what is expected must hold for every seed.
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            match decide(candidate, &mut snapshot, &mut rng) {
                Ok(choice) => {
                    assert_eq!(self.expect.message, "", "went to {}", choice.node);
                    let expected = self.expect.node.iter().any(|node| **node == *choice.node);
                    assert!(expected, "{:?}, went to {}", self.expect.node, choice.node);
                    let binds: Vec<_> = choice.binds.iter().map(bind_text).collect();
                    assert_eq!(binds, self.expect.binds);
                }
                Err(why) => {
                    assert_eq!(why.to_string(), self.expect.message);
                    self.check_preemption(candidate, &why, &mut snapshot, &mut rng);
                }
            }
        }
    }

    fn check_preemption(
        &self,
        pod: Candidate<'_>,
        why: &Diagnosis,
        snapshot: &mut Snapshot,
        rng: &mut StdRng,
    ) {
        if self.expect.preempts.is_none() && self.expect.preemption.is_none() {
            return;
        }
        match preempt(pod, why, snapshot, rng) {
            Ok(preemption) => {
                let expected = self.expect.preempts.as_ref().unwrap();
                assert_eq!(*preemption.node, *expected.node);
                let victims: Vec<_> = preemption.victims.iter().map(|(_, uid)| &**uid).collect();
                assert_eq!(victims, expected.victims);
            }
            Err(why) => assert_eq!(Some(why.to_string()), self.expect.preemption),
        }
    }
}

fn bind_text(bind: &Bind) -> String {
    match bind {
        Bind::To { claim, volume } => format!("{claim} to {volume}"),
        Bind::Provision { claim } => format!("provision {claim}"),
    }
}

#[test]
fn decisions() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let failed = files.iter().filter(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        let checked = std::panic::catch_unwind(|| {
            let case: Case = serde_saphyr::from_str(&text).unwrap();
            case.check();
        });
        if checked.is_err() {
            eprintln!("^ in {}", file.display());
        }
        checked.is_err()
    });
    let failed = failed.count();
    assert_eq!(
        failed,
        0,
        "{failed} of {} cases failed, see above",
        files.len()
    );
}
