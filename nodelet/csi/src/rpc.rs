//! The calls: a request says which it is, what it is about, and how long it may take.

use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::v1::controller_client::ControllerClient;
use crate::v1::identity_client::IdentityClient;
use crate::v1::node_client::NodeClient;
use crate::v1::*;

/// Longest time for a driver to tell of itself.
pub const TELL: Duration = Duration::from_secs(10);
/// Longest time for work on a node, as upstream's kubelet waits.
pub const NODE: Duration = Duration::from_secs(120);
/// Longest time for work of the storage system behind the driver.
pub const CONTROLLER: Duration = Duration::from_secs(300);

/// A request of one of the interface's calls.
pub trait Rpc: Send + Sized + 'static {
    /// What answers it.
    type Answer: Send;
    /// The call's name.
    const NAME: &'static str;
    /// Longest time for an answer.
    const DEADLINE: Duration;

    /// The volume or snapshot that it is about, or the name of the one that it makes; may be
    /// empty.
    fn volume(&self) -> &str;

    /// Sends it.
    fn send(
        channel: Channel,
        request: Request<Self>,
    ) -> impl Future<Output = Result<Response<Self::Answer>, Status>> + Send;
}

/// `CLIENT within DEADLINE { METHOD(REQUEST [about FIELD]) -> ANSWER; ... }`
macro_rules! calls {
    ($client:ident within $limit:ident { $(
        $method:ident($request:ident $(about $field:ident)?) -> $answer:ident as $name:literal;
    )* }) => { $(
        impl Rpc for $request {
            type Answer = $answer;
            const NAME: &'static str = $name;
            const DEADLINE: Duration = $limit;

            fn volume(&self) -> &str {
                about!(self $($field)?)
            }

            async fn send(
                channel: Channel,
                request: Request<Self>,
            ) -> Result<Response<$answer>, Status> {
                $client::new(channel).$method(request).await
            }
        }
    )* };
}

macro_rules! about {
    ($this:ident) => {
        ""
    };
    ($this:ident $field:ident) => {
        &$this.$field
    };
}

calls!(IdentityClient within TELL {
    get_plugin_info(GetPluginInfoRequest) -> GetPluginInfoResponse as "GetPluginInfo";
    get_plugin_capabilities(GetPluginCapabilitiesRequest) -> GetPluginCapabilitiesResponse
        as "GetPluginCapabilities";
    probe(ProbeRequest) -> ProbeResponse as "Probe";
});

calls!(ControllerClient within TELL {
    controller_get_capabilities(ControllerGetCapabilitiesRequest)
        -> ControllerGetCapabilitiesResponse as "ControllerGetCapabilities";
});

calls!(ControllerClient within CONTROLLER {
    create_volume(CreateVolumeRequest about name) -> CreateVolumeResponse as "CreateVolume";
    delete_volume(DeleteVolumeRequest about volume_id) -> DeleteVolumeResponse as "DeleteVolume";
    controller_publish_volume(ControllerPublishVolumeRequest about volume_id)
        -> ControllerPublishVolumeResponse as "ControllerPublishVolume";
    controller_unpublish_volume(ControllerUnpublishVolumeRequest about volume_id)
        -> ControllerUnpublishVolumeResponse as "ControllerUnpublishVolume";
    validate_volume_capabilities(ValidateVolumeCapabilitiesRequest about volume_id)
        -> ValidateVolumeCapabilitiesResponse as "ValidateVolumeCapabilities";
    list_volumes(ListVolumesRequest) -> ListVolumesResponse as "ListVolumes";
    get_capacity(GetCapacityRequest) -> GetCapacityResponse as "GetCapacity";
    create_snapshot(CreateSnapshotRequest about name) -> CreateSnapshotResponse
        as "CreateSnapshot";
    delete_snapshot(DeleteSnapshotRequest about snapshot_id) -> DeleteSnapshotResponse
        as "DeleteSnapshot";
    list_snapshots(ListSnapshotsRequest) -> ListSnapshotsResponse as "ListSnapshots";
    controller_expand_volume(ControllerExpandVolumeRequest about volume_id)
        -> ControllerExpandVolumeResponse as "ControllerExpandVolume";
    controller_get_volume(ControllerGetVolumeRequest about volume_id)
        -> ControllerGetVolumeResponse as "ControllerGetVolume";
    controller_modify_volume(ControllerModifyVolumeRequest about volume_id)
        -> ControllerModifyVolumeResponse as "ControllerModifyVolume";
});

calls!(NodeClient within TELL {
    node_get_capabilities(NodeGetCapabilitiesRequest) -> NodeGetCapabilitiesResponse
        as "NodeGetCapabilities";
    node_get_info(NodeGetInfoRequest) -> NodeGetInfoResponse as "NodeGetInfo";
    node_get_volume_stats(NodeGetVolumeStatsRequest about volume_id)
        -> NodeGetVolumeStatsResponse as "NodeGetVolumeStats";
});

calls!(NodeClient within NODE {
    node_stage_volume(NodeStageVolumeRequest about volume_id) -> NodeStageVolumeResponse
        as "NodeStageVolume";
    node_unstage_volume(NodeUnstageVolumeRequest about volume_id) -> NodeUnstageVolumeResponse
        as "NodeUnstageVolume";
    node_publish_volume(NodePublishVolumeRequest about volume_id) -> NodePublishVolumeResponse
        as "NodePublishVolume";
    node_unpublish_volume(NodeUnpublishVolumeRequest about volume_id)
        -> NodeUnpublishVolumeResponse as "NodeUnpublishVolume";
    node_expand_volume(NodeExpandVolumeRequest about volume_id) -> NodeExpandVolumeResponse
        as "NodeExpandVolume";
});
