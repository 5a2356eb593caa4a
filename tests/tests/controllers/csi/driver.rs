//! A driver without storage: it remembers what it was asked, and fails as it is told. It speaks
//! real gRPC, over pipes in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use kube::Client;
use parking_lot::Mutex;
use peapod_controllers::csi::Dial;
use peapod_csi::v1::controller_server::{Controller, ControllerServer};
use peapod_csi::v1::controller_service_capability::{self as control, rpc};
use peapod_csi::v1::identity_server::{Identity, IdentityServer};
use peapod_csi::v1::plugin_capability::{self as plugin, service};
use peapod_csi::v1::*;
use peapod_csi::{Driver, connect};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// What the driver holds.
#[derive(Default)]
pub struct State {
    /// Volumes by name: what was asked, and the size.
    pub volumes: BTreeMap<String, (CreateVolumeRequest, i64)>,
    /// Volume and node of each publication.
    pub published: BTreeSet<(String, String)>,
    /// Snapshots by name, and the volume that each is of.
    pub snapshots: BTreeMap<String, String>,
    /// Parameters that were changed, by volume.
    pub modified: HashMap<String, HashMap<String, String>>,
    /// Calls that fail next, with what; `true`: after having done what was asked.
    pub faults: Vec<(&'static str, Code, bool)>,
    /// The calls in order.
    pub calls: Vec<&'static str>,
    /// The most bytes that a volume can have.
    pub limit: i64,
    /// Whether the node has to grow the filesystem.
    pub node_expands: bool,
}

/// The driver. Cheap to clone.
#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

#[async_trait]
impl Dial for Fake {
    async fn dial(&self, _: &Client, _: &str, driver: &str) -> Result<Driver, String> {
        let (connections, incoming) = mpsc::unbounded_channel::<DuplexStream>();
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        let server = tonic::transport::Server::builder()
            .add_service(IdentityServer::new(self.clone()))
            .add_service(ControllerServer::new(self.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        let channel = connect::channel(move || {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let sent = connections.send(theirs).map_err(std::io::Error::other);
            async move { sent.map(|()| ours) }
        });
        Ok(Driver::new(driver, channel.await?))
    }
}

impl Fake {
    /// Notes a call; the fault that it is to fail with.
    fn called(&self, call: &'static str) -> (Option<Status>, bool) {
        let mut state = self.0.lock();
        state.calls.push(call);
        let Some(at) = state.faults.iter().position(|fault| fault.0 == call) else {
            return (None, true);
        };
        let (_, code, done) = state.faults.remove(at);
        (
            Some(Status::new(code, format!("{call} was told to fail"))),
            done,
        )
    }

    /// Does what was asked, or not, and answers or fails, as it was told.
    fn answer<T>(
        &self,
        call: &'static str,
        act: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Answer<T> {
        let (fault, done) = self.called(call);
        let answer = match done {
            true => act(&mut self.0.lock())?,
            false => return Err(fault.unwrap()),
        };
        match fault {
            Some(fault) => Err(fault),
            None => Ok(Response::new(answer)),
        }
    }
}

fn id(name: &str) -> String {
    format!("vol-of-{name}")
}

#[async_trait]
impl Identity for Fake {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Answer<GetPluginInfoResponse> {
        Ok(Response::new(Default::default()))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Answer<GetPluginCapabilitiesResponse> {
        let types = [
            service::Type::ControllerService,
            service::Type::VolumeAccessibilityConstraints,
        ];
        let capabilities = types.map(|kind| PluginCapability {
            r#type: Some(plugin::Type::Service(plugin::Service {
                r#type: kind.into(),
            })),
        });
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Answer<ProbeResponse> {
        Ok(Response::new(Default::default()))
    }
}

#[async_trait]
impl Controller for Fake {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Answer<CreateVolumeResponse> {
        let request = request.into_inner();
        self.answer("CreateVolume", |state| {
            let size = request
                .capacity_range
                .as_ref()
                .map_or(0, |range| range.required_bytes);
            let place = request
                .accessibility_requirements
                .as_ref()
                .and_then(|all| all.preferred.first().cloned());
            let volume = Volume {
                capacity_bytes: size,
                volume_id: id(&request.name),
                volume_context: [("made".to_owned(), "here".to_owned())].into(),
                content_source: request.volume_content_source.clone(),
                accessible_topology: place.into_iter().collect(),
            };
            state.volumes.insert(request.name.clone(), (request, size));
            Ok(CreateVolumeResponse {
                volume: Some(volume),
            })
        })
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Answer<DeleteVolumeResponse> {
        let volume = request.into_inner().volume_id;
        self.answer("DeleteVolume", |state| {
            state.volumes.retain(|name, _| id(name) != volume);
            Ok(DeleteVolumeResponse {})
        })
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Answer<ControllerPublishVolumeResponse> {
        let request = request.into_inner();
        self.answer("ControllerPublishVolume", |state| {
            state.published.insert((request.volume_id, request.node_id));
            Ok(ControllerPublishVolumeResponse {
                publish_context: [("device".to_owned(), "/dev/fake".to_owned())].into(),
            })
        })
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Answer<ControllerUnpublishVolumeResponse> {
        let request = request.into_inner();
        self.answer("ControllerUnpublishVolume", |state| {
            state
                .published
                .remove(&(request.volume_id, request.node_id));
            Ok(ControllerUnpublishVolumeResponse {})
        })
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<ValidateVolumeCapabilitiesResponse> {
        Err(Status::unimplemented("nobody asks this"))
    }

    async fn list_volumes(&self, _: Request<ListVolumesRequest>) -> Answer<ListVolumesResponse> {
        Err(Status::unimplemented("nobody asks this"))
    }

    async fn get_capacity(&self, _: Request<GetCapacityRequest>) -> Answer<GetCapacityResponse> {
        self.answer("GetCapacity", |state| {
            let used: i64 = state.volumes.values().map(|(_, size)| size).sum();
            Ok(GetCapacityResponse {
                available_capacity: (100 << 30) - used,
                maximum_volume_size: None,
                minimum_volume_size: None,
            })
        })
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Answer<ControllerGetCapabilitiesResponse> {
        use rpc::Type::*;
        let types = [
            CreateDeleteVolume,
            PublishUnpublishVolume,
            CreateDeleteSnapshot,
            CloneVolume,
            ExpandVolume,
            ModifyVolume,
            GetCapacity,
        ];
        let capabilities = types.map(|kind| ControllerServiceCapability {
            r#type: Some(control::Type::Rpc(control::Rpc {
                r#type: kind.into(),
            })),
        });
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Answer<CreateSnapshotResponse> {
        let request = request.into_inner();
        self.answer("CreateSnapshot", |state| {
            let snapshot = Snapshot {
                size_bytes: 1 << 30,
                snapshot_id: format!("snap-of-{}", request.name),
                source_volume_id: request.source_volume_id.clone(),
                creation_time: Some(Default::default()),
                ready_to_use: true,
                group_snapshot_id: String::new(),
            };
            state
                .snapshots
                .insert(request.name, request.source_volume_id);
            Ok(CreateSnapshotResponse {
                snapshot: Some(snapshot),
            })
        })
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Answer<DeleteSnapshotResponse> {
        let id = request.into_inner().snapshot_id;
        self.answer("DeleteSnapshot", |state| {
            state
                .snapshots
                .retain(|name, _| format!("snap-of-{name}") != id);
            Ok(DeleteSnapshotResponse {})
        })
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Answer<ListSnapshotsResponse> {
        Err(Status::unimplemented("nobody asks this"))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Answer<ControllerExpandVolumeResponse> {
        let request = request.into_inner();
        self.answer("ControllerExpandVolume", |state| {
            let wanted = request
                .capacity_range
                .map_or(0, |range| range.required_bytes);
            if state.limit > 0 && wanted > state.limit {
                return Err(Status::out_of_range(format!(
                    "at most {} bytes",
                    state.limit
                )));
            }
            for (name, (_, size)) in &mut state.volumes {
                if id(name) == request.volume_id {
                    *size = wanted;
                }
            }
            Ok(ControllerExpandVolumeResponse {
                capacity_bytes: wanted,
                node_expansion_required: state.node_expands,
            })
        })
    }

    async fn controller_get_volume(
        &self,
        _: Request<ControllerGetVolumeRequest>,
    ) -> Answer<ControllerGetVolumeResponse> {
        Err(Status::unimplemented("nobody asks this"))
    }

    async fn controller_modify_volume(
        &self,
        request: Request<ControllerModifyVolumeRequest>,
    ) -> Answer<ControllerModifyVolumeResponse> {
        let request = request.into_inner();
        self.answer("ControllerModifyVolume", |state| {
            state
                .modified
                .insert(request.volume_id, request.mutable_parameters);
            Ok(ControllerModifyVolumeResponse {})
        })
    }
}
