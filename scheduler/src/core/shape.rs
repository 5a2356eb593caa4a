//! A pod's shape: everything about it that decides where it may go and what it does to others.
//!
//! The pods of one ReplicaSet have one shape. The snapshot holds each shape once and counts its
//! pods by node, so that selectors are evaluated once per shape instead of once per pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use peapod_api::selector::{Requirement, Selector};

use super::plugins::images::normalized_image;
use super::plugins::node_affinity::{NodeDemand, NodeTerm};
use super::plugins::ports::HostPort;
use super::resources::{DEFAULT_MEMORY, DEFAULT_MILLI_CPU, Demand, Resources, of_pod};
use crate::view;

/// What the scheduler knows of a pod, shared by all pods that are alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The uid of the ReplicaSet, StatefulSet or ReplicationController that owns it; such pods
    /// are spread even when they do not ask for it.
    pub owner: Option<String>,
    /// What it asks for.
    pub requests: Resources,
    /// What it counts for in scores: milli-CPU and bytes, with defaults for what is not named.
    pub weighed: (i64, i64),
    /// The ports it takes of its node.
    pub ports: Vec<HostPort>,
    /// Which nodes it accepts and prefers.
    pub node: NodeDemand,
    /// The taints it tolerates.
    pub tolerations: Vec<Tolerates>,
    /// How it is spread.
    pub spread: Vec<Spread>,
    /// Which pods it wants near and far.
    pub affinity: PodDemand,
    /// The images of its containers, normalised.
    pub images: Vec<String>,
    /// How many containers it has, init containers too.
    pub containers: usize,
    /// The claims that it mounts.
    pub claims: Vec<String>,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
}

/// A toleration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tolerates {
    /// The taint's key; every key when `None`.
    pub key: Option<String>,
    /// How the value is compared.
    pub value: Match,
    /// The effect; every effect when `None`.
    pub effect: Option<String>,
}

/// How a toleration compares a taint's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// Any value.
    Any,
    /// This value.
    Equal(String),
    /// An integer below this.
    Less(i64),
    /// An integer above this.
    Greater(i64),
    /// No value: the toleration is malformed.
    Nothing,
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spread {
    /// How uneven the domains may be.
    pub max_skew: i64,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// `DoNotSchedule`; else `ScheduleAnyway`.
    pub hard: bool,
    /// Fewer domains than this count as one that is empty.
    pub min_domains: usize,
    /// The pods that are counted.
    pub selector: Selector,
    /// Whether nodes that the pod's node affinity excludes are left out.
    pub honor_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are left out.
    pub honor_taints: bool,
}

/// A pod (anti-)affinity term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    /// Which pods.
    pub selector: Selector,
    /// In which namespaces.
    pub namespaces: Vec<String>,
    /// And in the namespaces with such labels.
    pub namespace_selector: Option<Selector>,
    /// Near means: the same value of this node label.
    pub topology_key: String,
}

/// All of a pod's terms about other pods. The weights of preferences against are negative.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodDemand {
    /// Must be near all of these.
    pub near: Vec<Term>,
    /// Must not be near any of these.
    pub far: Vec<Term>,
    /// Would rather be near these (or not).
    pub preferred: Vec<(i64, Term)>,
}

// === impl Shape ===

impl Shape {
    /// Reduces a pod.
    pub fn of(pod: &view::Pod) -> Self {
        let spec = &pod.spec;
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let weighed = requests(spec, Some((DEFAULT_MILLI_CPU, DEFAULT_MEMORY)));
        let spread = spec.topology_spread_constraints.iter();
        let containers = || spec.init_containers.iter().chain(&spec.containers);
        let images = containers().filter_map(|c| c.image.as_deref());
        Self {
            owner: spreading_owner(pod),
            requests: requests(spec, None),
            weighed: (weighed.milli_cpu, weighed.memory),
            ports: host_ports(spec),
            node: NodeDemand::of(spec.node_selector.as_ref(), affinity),
            tolerations: spec.tolerations.iter().map(Tolerates::of).collect(),
            spread: spread.map(|c| Spread::of(c, &labels)).collect(),
            affinity: PodDemand::of(affinity, &namespace, &labels),
            images: images.map(normalized_image).collect(),
            containers: containers().count(),
            claims: claims(pod),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            namespace,
            labels,
        }
    }

    /// Whether other pods' decisions depend on more of it than its resources and labels.
    pub fn has_terms(&self) -> bool {
        self.affinity != PodDemand::default()
    }

    /// The node labels that its decision divides nodes by.
    pub fn topology_keys(&self) -> impl Iterator<Item = &str> {
        let spread = self.spread.iter().map(|s| s.topology_key.as_str());
        spread.chain(self.affinity.terms().map(|t| t.topology_key.as_str()))
    }

    /// The node whose name it demands, as the pods of a DaemonSet do.
    pub fn only_node(&self) -> Option<&str> {
        match self.node.required.as_deref() {
            Some([NodeTerm { name: Some(n), .. }]) => Some(n),
            _ => None,
        }
    }
}

fn requests(spec: &view::PodSpec, floor: Option<(i64, i64)>) -> Resources {
    fn demand(container: &view::Container) -> Demand<'_> {
        let resources = container.resources.as_ref();
        Demand {
            requests: resources.and_then(|r| r.requests.as_ref()),
            sidecar: container.restart_policy.as_deref() == Some("Always"),
        }
    }
    let pod_level = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    of_pod(
        spec.init_containers.iter().map(demand),
        spec.containers.iter().map(demand),
        pod_level,
        spec.overhead.as_ref(),
        floor,
    )
}

fn spreading_owner(pod: &view::Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    let owner = controllers.next()?;
    let spreads = matches!(
        owner.kind.as_str(),
        "ReplicaSet" | "StatefulSet" | "ReplicationController"
    );
    spreads.then(|| owner.uid.clone())
}

fn host_ports(spec: &view::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| &c.ports);
    ports.filter_map(HostPort::of).collect()
}

fn claims(pod: &view::Pod) -> Vec<String> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let name = |volume: &view::Volume| match &volume.persistent_volume_claim {
        Some(claim) => Some(claim.claim_name.clone()),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| format!("{pod_name}-{}", volume.name)),
    };
    pod.spec.volumes.iter().filter_map(name).collect()
}

// === impl Tolerates ===

impl Tolerates {
    fn of(toleration: &Toleration) -> Self {
        let text = toleration.value.clone().unwrap_or_default();
        let number = || text.parse::<i64>().ok();
        let value = match toleration.operator.as_deref() {
            Some("Exists") => Match::Any,
            None | Some("" | "Equal") => Match::Equal(text),
            Some("Lt") => number().map_or(Match::Nothing, Match::Less),
            Some("Gt") => number().map_or(Match::Nothing, Match::Greater),
            Some(_) => Match::Nothing,
        };
        let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            key: full(&toleration.key),
            value,
            effect: full(&toleration.effect),
        }
    }
}

// === impl Spread ===

impl Spread {
    fn of(constraint: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Self {
        let keys = constraint.match_label_keys.as_deref();
        let alike = same_values(keys, labels, Requirement::In);
        let honors = |policy: &Option<String>, default: &str| {
            policy.as_deref().unwrap_or(default) == "Honor"
        };
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: constraint.topology_key.clone(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            min_domains: constraint.min_domains.unwrap_or(1).max(1) as usize,
            selector: selector(constraint.label_selector.as_ref(), alike),
            honor_affinity: honors(&constraint.node_affinity_policy, "Honor"),
            honor_taints: honors(&constraint.node_taints_policy, "Ignore"),
        }
    }
}

// === impl PodDemand ===

impl PodDemand {
    fn of(affinity: Option<&Affinity>, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let term = |term: &PodAffinityTerm| Term::of(term, namespace, labels);
        let mut all = Self::default();
        if let Some(near) = affinity.and_then(|a| a.pod_affinity.as_ref()) {
            let required = &near.required_during_scheduling_ignored_during_execution;
            let preferred = &near.preferred_during_scheduling_ignored_during_execution;
            all.near = required.iter().flatten().map(term).collect();
            let weigh = preferred.iter().flatten();
            let weigh = weigh.map(|w| (i64::from(w.weight), term(&w.pod_affinity_term)));
            all.preferred.extend(weigh);
        }
        if let Some(far) = affinity.and_then(|a| a.pod_anti_affinity.as_ref()) {
            let required = &far.required_during_scheduling_ignored_during_execution;
            let preferred = &far.preferred_during_scheduling_ignored_during_execution;
            all.far = required.iter().flatten().map(term).collect();
            let weigh = preferred.iter().flatten();
            let weigh = weigh.map(|w| (-i64::from(w.weight), term(&w.pod_affinity_term)));
            all.preferred.extend(weigh);
        }
        all
    }

    fn terms(&self) -> impl Iterator<Item = &Term> {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        self.near.iter().chain(&self.far).chain(preferred)
    }
}

// === impl Term ===

impl Term {
    fn of(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut more = same_values(term.match_label_keys.as_deref(), labels, Requirement::In);
        more.extend(same_values(
            term.mismatch_label_keys.as_deref(),
            labels,
            Requirement::NotIn,
        ));
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        namespaces.sort();
        namespaces.dedup();
        let namespace_selector = term.namespace_selector.as_ref();
        Self {
            selector: selector(term.label_selector.as_ref(), more),
            namespaces,
            namespace_selector: namespace_selector.map(|s| selector(Some(s), Vec::new())),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether it is about pods of this shape.
    pub fn matches(&self, shape: &Shape, namespaces: &Namespaces) -> bool {
        self.concerns(&shape.namespace, namespaces) && self.selector.matches(&shape.labels)
    }

    fn concerns(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        self.namespaces.iter().any(|known| known == namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                let labels = namespaces.get(namespace);
                selector.is_everything() || labels.is_some_and(|l| selector.matches(l))
            })
    }
}

/// The labels of every namespace.
pub type Namespaces = std::collections::HashMap<String, Arc<BTreeMap<String, String>>>;

/// A selector and further demands. No selector selects nothing, and so does a malformed one.
fn selector(from: Option<&LabelSelector>, more: Vec<Requirement>) -> Selector {
    let Some(Ok(selector)) = from.map(Selector::from_label_selector) else {
        return Selector::nothing();
    };
    if more.is_empty() {
        return selector;
    }
    Selector::all(
        selector
            .requirements()
            .iter()
            .cloned()
            .chain(more)
            .collect(),
    )
}

fn same_values(
    keys: Option<&[String]>,
    labels: &BTreeMap<String, String>,
    demand: fn(String, Vec<String>) -> Requirement,
) -> Vec<Requirement> {
    let known = keys.unwrap_or_default().iter();
    known
        .filter_map(|key| Some(demand(key.clone(), vec![labels.get(key)?.clone()])))
        .collect()
}
