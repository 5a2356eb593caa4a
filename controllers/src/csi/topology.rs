//! Where a volume must be reachable from, as CSI asks and answers it. Pure.
//!
//! <https://kubernetes-csi.github.io/docs/topology.html>

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, TopologySelectorTerm,
    VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::CSINode;
use peapod_csi::v1::{Topology, TopologyRequirement};

use super::drivers::on_node;

/// A place: values of topology keys.
pub type Segments = BTreeMap<String, String>;

/// What places depend on.
pub struct World<'a> {
    /// The driver.
    pub driver: &'a str,
    /// Every CSINode.
    pub csi_nodes: &'a [Arc<CSINode>],
    /// Every node.
    pub nodes: &'a [Arc<Node>],
}

// === impl World ===

impl World<'_> {
    /// The keys that the driver told a node.
    fn keys(&self, node: &str) -> &[String] {
        let named = |one: &&Arc<CSINode>| one.metadata.name.as_deref() == Some(node);
        let found = self.csi_nodes.iter().find(named);
        let driver = found.and_then(|one| on_node(one, self.driver));
        driver
            .and_then(|driver| driver.topology_keys.as_deref())
            .unwrap_or_default()
    }

    /// Where a node is, if it has all the keys.
    fn place(&self, node: &Node, keys: &[String]) -> Option<Segments> {
        let labels = node.metadata.labels.as_ref()?;
        let place = keys
            .iter()
            .map(|key| Some((key.clone(), labels.get(key)?.clone())));
        place.collect()
    }

    /// Where the node of a name is.
    fn place_of(&self, name: &str) -> Result<Segments, String> {
        let keys = self.keys(name);
        if keys.is_empty() {
            return Err(format!("no topology key found for node {name}"));
        }
        let named = |node: &&Arc<Node>| node.metadata.name.as_deref() == Some(name);
        let node = self.nodes.iter().find(named);
        let place = node.and_then(|node| self.place(node, keys));
        place.ok_or_else(|| {
            format!(
                "topology labels of node {name} do not match topology keys {keys:?} of its CSINode"
            )
        })
    }

    /// Every place that the driver serves, sorted.
    pub fn places(&self) -> Vec<Segments> {
        let places = self.nodes.iter().filter_map(|node| {
            let keys = self.keys(node.metadata.name.as_deref()?);
            self.place(node, keys).filter(|place| !place.is_empty())
        });
        let mut places: Vec<_> = places.collect();
        places.sort();
        places.dedup();
        places
    }

    /// What a new volume's place must be: any that the class allows, else any there is; first of
    /// all the selected node's, or, if there is none, one by the claim's name, so that the claims
    /// of a StatefulSet spread.
    pub fn requirement(
        &self,
        allowed: &[TopologySelectorTerm],
        selected: Option<&str>,
        claim: &str,
    ) -> Result<Option<TopologyRequirement>, String> {
        let own = selected.map(|node| self.place_of(node)).transpose()?;
        let mut requisite: Vec<Segments> = allowed.iter().flat_map(flatten).collect();
        if requisite.is_empty() {
            requisite = self.places();
        }
        requisite.sort();
        requisite.dedup();
        if requisite.is_empty() {
            return Err("no available topology found".to_owned());
        }
        let first = match &own {
            None => spread(claim) % requisite.len(),
            Some(own) => {
                let within =
                    |term: &Segments| term.iter().all(|(key, value)| own.get(key) == Some(value));
                requisite.iter().position(within).ok_or_else(|| {
                    format!("topology {own:?} of the selected node is not in {requisite:?}")
                })?
            }
        };
        let mut preferred = requisite.clone();
        preferred.rotate_left(first);
        let said = |terms: Vec<Segments>| terms.into_iter().map(said).collect();
        Ok(Some(TopologyRequirement {
            requisite: said(requisite),
            preferred: said(preferred),
        }))
    }
}

/// A place as CSI says it.
pub fn said(place: Segments) -> Topology {
    Topology {
        segments: place.into_iter().collect(),
    }
}

/// The places that a term of a class allows: every combination of its keys' values.
fn flatten(term: &TopologySelectorTerm) -> Vec<Segments> {
    let mut places = vec![Segments::new()];
    for label in term.match_label_expressions.iter().flatten() {
        let with = |value: &String| {
            let with = |mut place: Segments| {
                place.insert(label.key.clone(), value.clone());
                place
            };
            places.iter().cloned().map(with).collect::<Vec<_>>()
        };
        places = label.values.iter().flat_map(with).collect();
    }
    places.retain(|place| !place.is_empty());
    places
}

/// A number by a claim's name: claims `NAME-0`, `NAME-1`, ... of a StatefulSet have successive ones.
fn spread(claim: &str) -> usize {
    let (name, ordinal) = match claim.rsplit_once('-') {
        Some((name, ordinal)) if !name.is_empty() => match ordinal.parse::<u32>() {
            // A StatefulSet's claim is TEMPLATE-SET-ORDINAL: of one set they begin together.
            Ok(ordinal) => (name.split_once('-').map_or(name, |(_, set)| set), ordinal),
            Err(_) => (claim, 0),
        },
        _ => (claim, 0),
    };
    // FNV-1a: stable over versions, unlike the standard library's.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.wrapping_add(ordinal) as usize
}

/// The nodes that reach a volume which is in any one of these places.
pub fn affinity(places: &[Topology]) -> Option<VolumeNodeAffinity> {
    let terms = places.iter().filter(|place| !place.segments.is_empty());
    let terms = terms.map(|place| {
        let sorted: BTreeMap<_, _> = place.segments.iter().collect();
        let all = sorted
            .into_iter()
            .map(|(key, value)| NodeSelectorRequirement {
                key: key.clone(),
                operator: "In".to_owned(),
                values: Some(vec![value.clone()]),
            });
        NodeSelectorTerm {
            match_expressions: Some(all.collect()),
            match_fields: None,
        }
    });
    let terms: Vec<_> = terms.collect();
    if terms.is_empty() {
        return None;
    }
    let required = NodeSelector {
        node_selector_terms: terms,
    };
    Some(VolumeNodeAffinity {
        required: Some(required),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::{golden, objects};
    use k8s_openapi::api::storage::v1::StorageClass;

    fn text(places: &[Topology]) -> String {
        let place = |place: &Topology| {
            let sorted: BTreeMap<_, _> = place.segments.iter().collect();
            let pairs: Vec<_> = sorted.iter().map(|(k, v)| format!("{k}={v}")).collect();
            pairs.join(",")
        };
        places.iter().map(place).collect::<Vec<_>>().join(" | ")
    }

    /// Nodes and CSINodes; what each class asks for, for lines `# claim NAME [on NODE]`.
    fn run(input: &str) -> String {
        let csi_nodes: Vec<CSINode> = objects(input, "CSINode");
        let csi_nodes: Vec<_> = csi_nodes.into_iter().map(Arc::new).collect();
        let nodes: Vec<Node> = objects(input, "Node");
        let nodes: Vec<_> = nodes.into_iter().map(Arc::new).collect();
        let world = World {
            driver: "d",
            csi_nodes: &csi_nodes,
            nodes: &nodes,
        };
        let mut out = Vec::new();
        for class in objects::<StorageClass>(input, "StorageClass") {
            for line in input
                .lines()
                .filter_map(|line| line.strip_prefix("# claim "))
            {
                let (claim, node) = match line.split_once(" on ") {
                    Some((claim, node)) => (claim, Some(node)),
                    None => (line, None),
                };
                let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
                let name = class.metadata.name.as_deref().unwrap_or_default();
                let asked = match world.requirement(allowed, node, claim) {
                    Err(fault) => fault,
                    Ok(None) => "anywhere".to_owned(),
                    Ok(Some(asked)) => format!(
                        "requisite {}; preferred {}",
                        text(&asked.requisite),
                        text(&asked.preferred)
                    ),
                };
                out.push(format!("{name}: {line}: {asked}"));
            }
        }
        out.join("\n")
    }

    #[test]
    fn golden_cases() {
        golden("csi_topology", run);
    }

    #[test]
    fn an_answer_becomes_an_affinity() {
        let place = said([("zone".to_owned(), "a".to_owned())].into());
        let affinity = affinity(&[place, Topology::default()]).unwrap();
        let terms = affinity.required.unwrap().node_selector_terms;
        assert_eq!(terms.len(), 1);
        let all = terms[0].match_expressions.as_ref().unwrap();
        assert_eq!(
            (all[0].key.as_str(), all[0].operator.as_str()),
            ("zone", "In")
        );
        assert_eq!(super::affinity(&[]), None);
    }
}
