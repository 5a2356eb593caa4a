//! What a driver says it can do. Pure.

use std::collections::HashSet;

use peapod_csi::v1::controller_service_capability::{Type as OfControl, rpc::Type as Call};
use peapod_csi::v1::node_service_capability::{Type as OfNode, rpc::Type as NodeCall};
use peapod_csi::v1::plugin_capability::{Type as OfPlugin, service, volume_expansion};
use peapod_csi::v1::{
    ControllerGetCapabilitiesResponse, GetPluginCapabilitiesResponse, NodeGetCapabilitiesResponse,
};

/// The capabilities of a driver, its plugin's and its Controller service's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Whether it answers the Controller service at all.
    pub controller: bool,
    /// Whether its volumes are not reachable from everywhere.
    pub topology: bool,
    /// Whether its volumes grow only while no pod uses them.
    pub offline_expansion: bool,
    /// Whether its node plugin grows filesystems.
    pub node_expands: bool,
    calls: HashSet<Call>,
}

impl Abilities {
    /// What the plugin says of itself; the Controller's answer is put in by [`Abilities::and`].
    pub fn of_plugin(answer: &GetPluginCapabilitiesResponse) -> Self {
        let mut abilities = Self::default();
        for capability in answer
            .capabilities
            .iter()
            .filter_map(|one| one.r#type.as_ref())
        {
            match capability {
                OfPlugin::Service(service) => match service.r#type() {
                    service::Type::ControllerService => abilities.controller = true,
                    service::Type::VolumeAccessibilityConstraints => abilities.topology = true,
                    _ => {}
                },
                OfPlugin::VolumeExpansion(expansion) => {
                    let offline = expansion.r#type() == volume_expansion::Type::Offline;
                    abilities.offline_expansion |= offline;
                }
            }
        }
        abilities
    }

    /// Adds what the Controller service says.
    #[must_use]
    pub fn and(mut self, answer: &ControllerGetCapabilitiesResponse) -> Self {
        for capability in &answer.capabilities {
            if let Some(OfControl::Rpc(rpc)) = &capability.r#type {
                self.calls.insert(rpc.r#type());
            }
        }
        self
    }

    /// Adds what the Node service says.
    #[must_use]
    pub fn and_node(mut self, answer: &NodeGetCapabilitiesResponse) -> Self {
        let mut all = answer
            .capabilities
            .iter()
            .filter_map(|one| one.r#type.as_ref());
        self.node_expands = all.any(|OfNode::Rpc(rpc)| rpc.r#type() == NodeCall::ExpandVolume);
        self
    }

    /// Whether it has a capability of the Controller service.
    pub fn can(&self, call: Call) -> bool {
        self.calls.contains(&call)
    }
}
