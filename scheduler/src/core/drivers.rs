//! What storage drivers (CSI) say of nodes: how many volumes one takes, and how much room there
//! is where.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity};
use peapod_api::quantity::Quantity;
use peapod_api::selector::Selector;

use super::node::Node;

/// How many volumes a node takes of each driver that has a limit.
pub type Limits = HashMap<String, usize>;

/// Room for volumes of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// The class.
    pub class: String,
    /// Where.
    pub nodes: Selector,
    /// The largest volume that can be made, in bytes.
    pub largest: i64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Drivers {
    /// By node.
    pub limits: HashMap<String, Limits>,
    /// Drivers that tell how much room they have: without it nothing is made.
    pub telling: HashSet<String>,
    /// By `namespace/name`.
    pub capacities: HashMap<String, Capacity>,
}

// === impl Drivers ===

impl Drivers {
    /// The limits of a node.
    pub fn limits_of(node: &CSINode) -> Limits {
        let drivers = node.spec.drivers.iter();
        let limited = drivers.filter_map(|driver| {
            let count = driver.allocatable.as_ref()?.count?;
            Some((driver.name.clone(), usize::try_from(count).unwrap_or(0)))
        });
        limited.collect()
    }

    /// Whether a driver tells how much room it has.
    pub fn tells(driver: &CSIDriver) -> bool {
        driver.spec.storage_capacity == Some(true)
    }

    /// Whether a driver can make a volume of a class and size near a node, as far as is known.
    pub fn has_room(&self, driver: &str, class: &str, bytes: i64, node: &Node) -> bool {
        let mut capacities = self.capacities.values();
        !self.telling.contains(driver)
            || capacities.any(|one| {
                one.class == class && one.largest >= bytes && one.nodes.matches(&node.spec.labels)
            })
    }
}

// === impl Capacity ===

impl Capacity {
    /// Reduces an object. Without a topology it is of no node.
    pub fn of(object: &CSIStorageCapacity) -> Self {
        let nodes = object.node_topology.as_ref();
        let nodes = nodes.map_or(Ok(Selector::nothing()), Selector::from_label_selector);
        let size = object
            .maximum_volume_size
            .as_ref()
            .or(object.capacity.as_ref());
        let size = size.map(Quantity::try_from);
        Self {
            class: object.storage_class_name.clone(),
            nodes: nodes.unwrap_or_else(|_| Selector::nothing()),
            largest: size.and_then(Result::ok).map_or(0, Quantity::units),
        }
    }
}
