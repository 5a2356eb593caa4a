//! Who owns whom. Pure: observations go in, objects to look at come out.
//!
//! Every object that the API has is a node, by uid. An owner that is named but was not seen
//! yet is a *virtual* node, to be looked up: it may be gone, or its watch may be behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// The uid of an object.
pub type Uid = String;

/// Where an object is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// API group, empty for the core.
    pub group: Arc<str>,
    /// Kind.
    pub kind: Arc<str>,
    /// Namespace, empty for a cluster-scoped object. That of a virtual node is guessed from its
    /// dependent.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An object as a watch shows it.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its uid.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// How far it is on its way out.
    pub leaving: Leaving,
}

/// How far an object is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leaving {
    /// It stays.
    #[default]
    No,
    /// It is being deleted, and waits for nothing of ours.
    Deleted,
    /// It is being deleted and waits for its dependents to go (foreground).
    AfterDependents,
    /// It is being deleted and waits for its dependents to be let go of (orphan).
    Orphaning,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Observation {
    /// An object was added or changed.
    Seen(Object),
    /// An object is gone, or was found to be.
    Gone(Uid),
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// Whether an object should be deleted, or its foreground deletion go on.
    Delete(Uid),
    /// The dependents of an object are to be let go of.
    Orphan(Uid),
}

#[derive(Clone, Debug)]
struct Node {
    place: Place,
    owners: Vec<OwnerReference>,
    dependents: BTreeSet<Uid>,
    leaving: Leaving,
    is_virtual: bool,
}

/// What a decision needs to know of a node.
#[derive(Clone, Debug)]
pub struct View {
    /// Where it is.
    pub place: Place,
    /// How far it is on its way out.
    pub leaving: Leaving,
    /// Whether it was only ever named by a dependent.
    pub is_virtual: bool,
    /// Its dependents.
    pub dependents: Vec<Dependent>,
}

/// A dependent as its owner sees it.
#[derive(Clone, Debug)]
pub struct Dependent {
    /// Its uid.
    pub uid: Uid,
    /// Where it is.
    pub place: Place,
    /// Whether it holds its owner's foreground deletion.
    pub blocks: bool,
    /// How far it is on its way out.
    pub leaving: Leaving,
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<Uid, Node>,
}

impl Graph {
    /// Takes in an observation; says what to look at because of it.
    pub fn observe(&mut self, observation: Observation) -> Vec<Look> {
        let mut looks = Vec::new();
        match observation {
            Observation::Seen(object) => self.see(object, &mut looks),
            Observation::Gone(uid) => self.lose(&uid, &mut looks),
        }
        looks.sort();
        looks.dedup();
        looks
    }

    fn see(&mut self, object: Object, looks: &mut Vec<Look>) {
        let old = self.nodes.get(&object.uid);
        let (old_owners, old_leaving, dependents) = match old {
            Some(old) => (old.owners.clone(), old.leaving, old.dependents.clone()),
            None => Default::default(),
        };
        // A virtual node was looked for in its dependent's namespace; those who named it from
        // elsewhere have no owner there.
        if old.is_some_and(|old| old.is_virtual && old.place != object.place) {
            looks.extend(dependents.iter().cloned().map(Look::Delete));
        }
        for owner in old_owners.iter().filter(|old| !object.owners.contains(old)) {
            if object.owners.iter().all(|new| new.uid != owner.uid) {
                self.unlink(&owner.uid, &object.uid);
            }
            // It may have been what held the owner's foreground deletion.
            self.look_if_waiting(&owner.uid, looks);
        }
        for owner in object.owners.iter().filter(|new| !old_owners.contains(new)) {
            self.link(owner, &object, looks);
        }
        if old_leaving != object.leaving {
            match object.leaving {
                Leaving::AfterDependents => {
                    looks.push(Look::Delete(object.uid.clone()));
                    looks.extend(dependents.iter().cloned().map(Look::Delete));
                }
                Leaving::Orphaning => looks.push(Look::Orphan(object.uid.clone())),
                Leaving::No | Leaving::Deleted => {}
            }
        }
        let node = Node {
            place: object.place,
            owners: object.owners,
            dependents,
            leaving: object.leaving,
            is_virtual: false,
        };
        self.nodes.insert(object.uid, node);
    }

    fn lose(&mut self, uid: &Uid, looks: &mut Vec<Look>) {
        let Some(node) = self.nodes.remove(uid) else {
            return;
        };
        looks.extend(node.dependents.into_iter().map(Look::Delete));
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            self.look_if_waiting(&owner.uid, looks);
        }
    }

    fn link(&mut self, owner: &OwnerReference, dependent: &Object, looks: &mut Vec<Look>) {
        let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
            looks.push(Look::Delete(owner.uid.clone()));
            let group = owner
                .api_version
                .split_once('/')
                .map_or("", |(group, _)| group);
            Node {
                place: Place {
                    group: group.into(),
                    kind: owner.kind.as_str().into(),
                    namespace: dependent.place.namespace.clone(),
                    name: owner.name.clone(),
                },
                owners: Vec::new(),
                dependents: BTreeSet::new(),
                leaving: Leaving::No,
                is_virtual: true,
            }
        });
        node.dependents.insert(dependent.uid.clone());
        let elsewhere =
            !node.place.namespace.is_empty() && node.place.namespace != dependent.place.namespace;
        if elsewhere || node.leaving == Leaving::AfterDependents {
            looks.push(Look::Delete(dependent.uid.clone()));
        }
    }

    fn unlink(&mut self, owner: &Uid, dependent: &Uid) {
        if let Some(node) = self.nodes.get_mut(owner) {
            node.dependents.remove(dependent);
            if node.is_virtual && node.dependents.is_empty() {
                self.nodes.remove(owner);
            }
        }
    }

    fn look_if_waiting(&self, owner: &Uid, looks: &mut Vec<Look>) {
        let node = self.nodes.get(owner);
        if node.is_some_and(|node| node.leaving == Leaving::AfterDependents) {
            looks.push(Look::Delete(owner.clone()));
        }
    }

    /// What is known of an object.
    pub fn view(&self, uid: &str) -> Option<View> {
        let node = self.nodes.get(uid)?;
        let dependents = node.dependents.iter().filter_map(|dependent| {
            let found = self.nodes.get(dependent)?;
            let ours = |owner: &&OwnerReference| owner.uid == uid;
            let reference = found.owners.iter().find(ours)?;
            Some(Dependent {
                uid: dependent.clone(),
                place: found.place.clone(),
                blocks: reference.block_owner_deletion == Some(true),
                leaving: found.leaving,
            })
        });
        Some(View {
            place: node.place.clone(),
            leaving: node.leaving,
            is_virtual: node.is_virtual,
            dependents: dependents.collect(),
        })
    }

    /// The uids of the objects of a kind that were seen.
    pub fn of_kind(&self, group: &str, kind: &str) -> Vec<Uid> {
        let nodes = self.nodes.iter().filter(|(_, node)| {
            !node.is_virtual && &*node.place.group == group && &*node.place.kind == kind
        });
        nodes.map(|(uid, _)| uid.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::testing::golden;

    /// `see NS/NAME [owned by A B! ...] [deleted|after-dependents|orphaning]`, where `!` blocks
    /// the owner's deletion, or `gone NAME`. Names are uids.
    fn run(script: &str) -> String {
        let mut graph = Graph::default();
        let mut out = Vec::new();
        for line in script.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let observation = match words[0] {
                "gone" => Observation::Gone(words[1].to_owned()),
                _ => Observation::Seen(object(&words)),
            };
            let looks = graph
                .observe(observation)
                .into_iter()
                .map(|look| match look {
                    Look::Delete(uid) => format!("look at {uid}"),
                    Look::Orphan(uid) => format!("orphan dependents of {uid}"),
                });
            let looks: Vec<_> = looks.collect();
            out.push(format!("{line}: {}", looks.join(", ")));
        }
        out.join("\n")
    }

    fn object(words: &[&str]) -> Object {
        let (namespace, name) = words[1].split_once('/').unwrap();
        let owners = words.iter().skip_while(|word| **word != "by").skip(1);
        let owners =
            owners.take_while(|word| !["deleted", "after-dependents", "orphaning"].contains(word));
        Object {
            uid: name.to_owned(),
            place: Place {
                group: "".into(),
                kind: "Thing".into(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            owners: owners
                .map(|word| OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Thing".to_owned(),
                    name: word.trim_end_matches('!').to_owned(),
                    uid: word.trim_end_matches('!').to_owned(),
                    block_owner_deletion: word.ends_with('!').then_some(true),
                    controller: None,
                })
                .collect(),
            leaving: match *words.last().unwrap() {
                "deleted" => Leaving::Deleted,
                "after-dependents" => Leaving::AfterDependents,
                "orphaning" => Leaving::Orphaning,
                _ => Leaving::No,
            },
        }
    }

    #[test]
    fn golden_cases() {
        golden("gc", run);
    }
}
