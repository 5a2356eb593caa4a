//! A driver that has registered on the node.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use peapod_csi::v1::node_service_capability::{Type, rpc};
use peapod_csi::v1::{NodeGetCapabilitiesRequest, NodeGetInfoRequest};
use peapod_csi::{Driver, connect};

use super::layout::{Layout, View};

/// What a driver's node service can do beyond publishing.
pub use peapod_csi::v1::node_service_capability::rpc::Type as Capability;

/// A driver that has registered.
#[derive(Debug)]
pub struct Registered {
    /// The way to it.
    pub driver: Driver,
    /// Its socket on this node.
    pub socket: PathBuf,
    /// How it calls the node's folder.
    pub view: View,
    /// What it calls this node.
    pub node_id: String,
    /// Most volumes of it on this node; `None` for as many as one likes.
    pub volumes_max: Option<i32>,
    /// Where this node is, as the driver sees the world; label keys and values.
    pub topology: BTreeMap<String, String>,
    capabilities: HashSet<i32>,
}

// === impl Registered ===

impl Registered {
    /// Asks a driver at the endpoint that it told of itself.
    pub async fn ask(layout: &Layout, name: &str, endpoint: &Path) -> Result<Self, String> {
        let socket = layout.real(endpoint);
        let driver = connect::socket(name, &socket).await?;
        let info = driver.call(NodeGetInfoRequest {}).await;
        let info = info.map_err(|error| error.to_string())?;
        if info.node_id.is_empty() {
            return Err(format!("CSI driver {name}: NodeGetInfo names no node_id"));
        }
        let can = driver.call(NodeGetCapabilitiesRequest {}).await;
        let can = can.map_err(|error| error.to_string())?;
        let types = can.capabilities.into_iter().filter_map(|one| one.r#type);
        let topology = info.accessible_topology.unwrap_or_default().segments;
        Ok(Self {
            driver,
            view: layout.view(endpoint),
            socket,
            node_id: info.node_id,
            volumes_max: limit(info.max_volumes_per_node),
            topology: topology.into_iter().collect(),
            capabilities: types.map(|Type::Rpc(rpc)| rpc.r#type).collect(),
        })
    }

    /// Whether it can do something.
    pub fn can(&self, what: rpc::Type) -> bool {
        self.capabilities.contains(&i32::from(what))
    }
}

/// 0 and less say nothing.
fn limit(max: i64) -> Option<i32> {
    (max > 0).then(|| i32::try_from(max).unwrap_or(i32::MAX))
}
