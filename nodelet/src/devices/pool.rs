//! Which devices the node has, and who holds which. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

/// Of each resource, how many devices there are and how many of them are well.
pub type Counts = BTreeMap<String, (usize, usize)>;

/// What a container holds of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// UID of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// The devices.
    pub ids: BTreeSet<String>,
    /// The plugin's answer, encoded.
    pub response: String,
}

/// What a container may choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Those that its pod has already, and that come first.
    pub own: BTreeSet<String>,
    /// Those and the free ones.
    pub available: BTreeSet<String>,
}

/// The devices of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// By resource and ID, whether they are well. A plugin tells of them anew each time: of an
    /// agent before this one only the names of the resources are known.
    #[serde(with = "names")]
    devices: BTreeMap<String, BTreeMap<String, bool>>,
    holdings: Vec<Holding>,
}

// === impl Offer ===

impl Offer {
    /// So many devices: the pod's own, then those of the wish that are available, then any.
    pub fn choose(&self, wish: &BTreeSet<String>, count: usize) -> BTreeSet<String> {
        let wished = wish.intersection(&self.available);
        let ordered = self.own.iter().chain(wished).chain(&self.available);
        let mut chosen = BTreeSet::new();
        for id in ordered {
            if chosen.len() == count {
                break;
            }
            chosen.insert(id.clone());
        }
        chosen
    }
}

// === impl Pool ===

impl Pool {
    /// Whether a plugin has ever brought this resource.
    pub fn knows(&self, resource: &str) -> bool {
        self.devices.contains_key(resource)
    }

    /// Notes all devices of a resource.
    pub fn list(&mut self, resource: &str, devices: BTreeMap<String, bool>) {
        self.devices.insert(resource.to_owned(), devices);
    }

    /// The plugin of a resource is away: nothing of it can be given.
    pub fn lose(&mut self, resource: &str) {
        for well in self.devices.get_mut(resource).into_iter().flatten() {
            *well.1 = false;
        }
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let count = |devices: &BTreeMap<String, bool>| {
            let well = devices.values().filter(|well| **well).count();
            (devices.len(), well)
        };
        self.devices
            .iter()
            .map(|(name, devices)| (name.clone(), count(devices)))
            .collect()
    }

    /// What a container holds of a resource.
    pub fn holding(&self, pod: &str, container: &str, resource: &str) -> Option<Holding> {
        let found = self.holdings.iter().find(|holding| {
            holding.pod == pod && holding.container == container && holding.resource == resource
        });
        found.cloned()
    }

    /// What a container holds, by resource.
    pub fn held(&self, pod: &str, container: &str) -> Vec<(String, Vec<String>)> {
        let all = self.holdings.iter();
        let own = all.filter(|holding| holding.pod == pod && holding.container == container);
        own.map(|holding| {
            (
                holding.resource.clone(),
                holding.ids.iter().cloned().collect(),
            )
        })
        .collect()
    }

    /// The devices that are well, by resource.
    pub fn well(&self) -> Vec<(String, Vec<String>)> {
        let well = |devices: &BTreeMap<String, bool>| {
            let well = devices.iter().filter(|(_, well)| **well);
            well.map(|(id, _)| id.clone()).collect()
        };
        let all = self.devices.iter();
        all.map(|(name, devices)| (name.clone(), well(devices)))
            .collect()
    }

    /// What a container may choose so many devices from; `earlier` are the containers of its pod that
    /// have ended when it starts.
    pub fn offer(
        &self,
        pod: &str,
        earlier: &[String],
        resource: &str,
        count: usize,
    ) -> Result<Offer, String> {
        let none = BTreeMap::new();
        let devices = self.devices.get(resource).unwrap_or(&none);
        let held = self.holdings.iter().filter(|h| h.resource == resource);
        let (mut own, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for holding in held {
            let ends = holding.pod == pod && earlier.contains(&holding.container);
            let into = if ends { &mut own } else { &mut taken };
            into.extend(holding.ids.iter().cloned());
        }
        let well = devices.iter().filter(|(_, well)| **well);
        let available: BTreeSet<String> = well
            .map(|(id, _)| id.clone())
            .filter(|id| !taken.contains(id))
            .collect();
        let own = own.intersection(&available).cloned().collect();
        if available.len() < count {
            let free = available.len();
            return Err(format!("{count} wanted, {free} free"));
        }
        Ok(Offer { own, available })
    }

    /// Notes what a container holds.
    pub fn hold(&mut self, holding: Holding) {
        self.holdings.push(holding);
    }

    /// Whether a pod holds anything.
    pub fn has(&self, pod: &str) -> bool {
        self.holdings.iter().any(|holding| holding.pod == pod)
    }

    /// Takes back what a pod holds.
    pub fn release(&mut self, pod: &str) {
        self.holdings.retain(|holding| holding.pod != pod);
    }

    /// Takes back what pods hold that are not among these.
    pub fn retain(&mut self, pods: &HashSet<String>) {
        self.holdings.retain(|holding| pods.contains(&holding.pod));
    }
}

/// Only the names of the resources are kept.
mod names {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Devices = BTreeMap<String, BTreeMap<String, bool>>;

    pub fn serialize<S: Serializer>(devices: &Devices, to: S) -> Result<S::Ok, S::Error> {
        devices.keys().collect::<Vec<_>>().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Devices, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let empty = |name| (name, BTreeMap::new());
        Ok(names.into_iter().map(empty).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: &str = "example.com/gpu";

    fn ids(list: &str) -> BTreeSet<String> {
        list.split_whitespace().map(str::to_owned).collect()
    }

    fn pool() -> Pool {
        let mut pool = Pool::default();
        let devices = [("a", true), ("b", true), ("c", false), ("d", true)];
        let devices = devices.map(|(id, well)| (id.to_owned(), well));
        pool.list(GPU, devices.into());
        pool
    }

    fn holding(pod: &str, container: &str, list: &str) -> Holding {
        Holding {
            pod: pod.to_owned(),
            container: container.to_owned(),
            resource: GPU.to_owned(),
            ids: ids(list),
            response: String::new(),
        }
    }

    #[test]
    fn what_is_well_and_free_is_offered() {
        let mut pool = pool();
        assert_eq!(pool.counts()[GPU], (4, 3));
        let offer = pool.offer("p", &[], GPU, 2).unwrap();
        assert_eq!(offer.available, ids("a b d"));
        assert_eq!(offer.choose(&ids("d c"), 2), ids("a d"));
        assert_eq!(offer.choose(&ids(""), 2), ids("a b"));
        pool.hold(holding("p", "app", "a d"));
        assert_eq!(
            pool.offer("q", &[], GPU, 2).unwrap_err(),
            "2 wanted, 1 free"
        );
        pool.release("p");
        assert!(pool.offer("q", &[], GPU, 3).is_ok());
        pool.lose(GPU);
        assert_eq!(pool.counts()[GPU], (4, 0));
    }

    #[test]
    fn the_devices_of_an_init_container_go_on_in_its_pod() {
        let mut pool = pool();
        pool.hold(holding("p", "prepare", "d"));
        let earlier = ["prepare".to_owned()];
        let offer = pool.offer("p", &earlier, GPU, 2).unwrap();
        assert_eq!(
            (offer.own.clone(), offer.available.clone()),
            (ids("d"), ids("a b d"))
        );
        assert_eq!(offer.choose(&ids("b"), 2), ids("b d"));
        assert_eq!(
            pool.offer("q", &earlier, GPU, 1).unwrap().available,
            ids("a b")
        );
    }

    #[test]
    fn what_is_kept_of_it() {
        let mut pool = pool();
        pool.hold(holding("p", "app", "a"));
        pool.hold(holding("q", "app", "b"));
        let text = serde_json::to_string(&pool).unwrap();
        let mut kept: Pool = serde_json::from_str(&text).unwrap();
        assert_eq!(
            kept.held("p", "app"),
            [(GPU.to_owned(), vec!["a".to_owned()])]
        );
        assert!(kept.knows(GPU));
        assert_eq!(kept.counts()[GPU], (0, 0), "the plugin has to come first");
        assert_eq!(kept.holding("p", "app", GPU), pool.holding("p", "app", GPU));
        kept.retain(&HashSet::from(["q".to_owned()]));
        assert!(!kept.has("p") && kept.has("q"));
    }
}
