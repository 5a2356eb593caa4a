//! The Controller service.

use peapod_csi::v1::controller_service_capability::rpc::Type as Can;
use peapod_csi::v1::controller_service_capability::{self, Rpc};
use peapod_csi::v1::volume_content_source::Type as Source;
use peapod_csi::v1::*;
use tonic::{Request, Response, Status};

use super::blocking;
use super::pool::{Entry, Open, Pool};

/// A volume of which nothing is said has this size, bytes.
const SIZE: i64 = 64 << 20;

/// The service.
pub struct Controller {
    /// The volumes.
    pub pool: Pool,
    /// Where they can be used.
    pub zone: Topology,
}

fn wanted(range: Option<&CapacityRange>, least: i64) -> Result<i64, Status> {
    let range = range.copied().unwrap_or_default();
    let size = match range.required_bytes {
        0 => least.max(SIZE.min(if range.limit_bytes > 0 {
            range.limit_bytes
        } else {
            SIZE
        })),
        required => required.max(least),
    };
    match range.limit_bytes > 0 && size > range.limit_bytes {
        true => Err(Status::out_of_range(format!("it would have {size} bytes"))),
        false => Ok(size),
    }
}

fn room(open: &Open, more: i64) -> Result<(), Status> {
    match more > open.left() {
        true => Err(Status::resource_exhausted(format!(
            "{more} bytes do not fit, {} are left",
            open.left()
        ))),
        false => Ok(()),
    }
}

fn snapshot(entry: &Entry) -> Snapshot {
    Snapshot {
        size_bytes: entry.size,
        snapshot_id: entry.id.clone(),
        source_volume_id: entry.source.clone().unwrap_or_default(),
        creation_time: Some(prost_types::Timestamp {
            seconds: entry.taken_at,
            nanos: 0,
        }),
        ready_to_use: true,
        group_snapshot_id: String::new(),
    }
}

#[tonic::async_trait]
impl controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let (pool, zone, request) = (self.pool.clone(), self.zone.clone(), request.into_inner());
        blocking(move || {
            if let Some(words) = request.parameters.get("refuse") {
                return Err(Status::invalid_argument(words.clone()));
            }
            let mut open = pool.lock()?;
            let source = request.volume_content_source.clone();
            let like = source.as_ref().and_then(|source| source.r#type.clone());
            let like = like.map(|like| match like {
                Source::Snapshot(snapshot) => snapshot.snapshot_id,
                Source::Volume(volume) => volume.volume_id,
            });
            let least = match &like {
                Some(like) => open.get(like)?.size,
                None => 0,
            };
            let size = wanted(request.capacity_range.as_ref(), least)?;
            let made = match open.named(&request.name) {
                Some(made) if made.size < size => {
                    return Err(Status::already_exists("it exists, and is smaller"));
                }
                Some(made) => made.clone(),
                None => {
                    room(&open, size)?;
                    let entry = Entry {
                        id: format!("vol-{}", request.name),
                        name: request.name.clone(),
                        size,
                        ..Entry::default()
                    };
                    open.make(entry.clone(), like.as_deref())?;
                    entry
                }
            };
            Ok(CreateVolumeResponse {
                volume: Some(Volume {
                    capacity_bytes: made.size,
                    volume_id: made.id,
                    volume_context: request.parameters,
                    content_source: source,
                    accessible_topology: vec![zone],
                }),
            })
        })
        .await
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let (pool, id) = (self.pool.clone(), request.into_inner().volume_id);
        blocking(move || {
            let mut open = pool.lock()?;
            if open.get(&id).is_ok_and(|entry| !entry.nodes.is_empty()) {
                return Err(Status::failed_precondition("it is attached"));
            }
            open.remove(&id)?;
            Ok(DeleteVolumeResponse {})
        })
        .await
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let Some(node) = request.node_id.strip_prefix("id-of-") else {
                return Err(Status::not_found(format!("no node {}", request.node_id)));
            };
            let mut open = pool.lock()?;
            let mut entry = open.get(&request.volume_id)?.clone();
            match entry.nodes.first() {
                Some(other) if other != node => {
                    return Err(Status::failed_precondition(format!(
                        "volume {} is attached to node {other}",
                        entry.id
                    )));
                }
                Some(_) => {}
                None => {
                    entry.nodes.push(node.to_owned());
                    open.put(entry)?;
                }
            }
            Ok(ControllerPublishVolumeResponse {
                publish_context: [("attached-to".to_owned(), node.to_owned())].into(),
            })
        })
        .await
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let mut open = pool.lock()?;
            if let Ok(entry) = open.get(&request.volume_id) {
                let mut entry = entry.clone();
                let all = request.node_id.is_empty();
                entry
                    .nodes
                    .retain(|node| !all && format!("id-of-{node}") != request.node_id);
                open.put(entry)?;
            }
            Ok(ControllerUnpublishVolumeResponse {})
        })
        .await
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            pool.lock()?.get(&request.volume_id)?;
            Ok(ValidateVolumeCapabilitiesResponse {
                confirmed: Some(validate_volume_capabilities_response::Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            })
        })
        .await
    }

    async fn list_volumes(
        &self,
        _: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        Err(Status::unimplemented("volumes are not listed"))
    }

    async fn get_capacity(
        &self,
        _: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let pool = self.pool.clone();
        blocking(move || {
            let left = pool.lock()?.left();
            Ok(GetCapacityResponse {
                available_capacity: left,
                maximum_volume_size: Some(left),
                minimum_volume_size: None,
            })
        })
        .await
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let all = [
            Can::CreateDeleteVolume,
            Can::PublishUnpublishVolume,
            Can::GetCapacity,
            Can::CreateDeleteSnapshot,
            Can::CloneVolume,
            Can::ExpandVolume,
            Can::SingleNodeMultiWriter,
        ];
        let capability = |can: Can| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(Rpc {
                r#type: can.into(),
            })),
        };
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: all.map(capability).into(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let mut open = pool.lock()?;
            let size = open.get(&request.source_volume_id)?.size;
            let taken = match open.named(&request.name) {
                Some(taken) if taken.source.as_ref() != Some(&request.source_volume_id) => {
                    return Err(Status::already_exists("it is of another volume"));
                }
                Some(taken) => taken.clone(),
                None => {
                    room(&open, size)?;
                    let entry = Entry {
                        id: format!("snap-{}", request.name),
                        name: request.name.clone(),
                        size,
                        source: Some(request.source_volume_id.clone()),
                        nodes: Vec::new(),
                        taken_at: jiff::Timestamp::now().as_second(),
                    };
                    // What is written but not on the device yet belongs to the snapshot.
                    nix::unistd::sync();
                    open.make(entry.clone(), Some(&request.source_volume_id))?;
                    entry
                }
            };
            Ok(CreateSnapshotResponse {
                snapshot: Some(snapshot(&taken)),
            })
        })
        .await
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let (pool, id) = (self.pool.clone(), request.into_inner().snapshot_id);
        blocking(move || {
            pool.lock()?.remove(&id)?;
            Ok(DeleteSnapshotResponse {})
        })
        .await
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let open = pool.lock()?;
            let one = |wish: &str, is: &str| wish.is_empty() || wish == is;
            let wanted = |entry: &&Entry| {
                entry.source.as_ref().is_some_and(|source| {
                    one(&request.source_volume_id, source) && one(&request.snapshot_id, &entry.id)
                })
            };
            let entries = open
                .all()
                .filter(wanted)
                .map(|entry| list_snapshots_response::Entry {
                    snapshot: Some(snapshot(entry)),
                });
            Ok(ListSnapshotsResponse {
                entries: entries.collect(),
                next_token: String::new(),
            })
        })
        .await
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let mut open = pool.lock()?;
            let mut entry = open.get(&request.volume_id)?.clone();
            let size = wanted(request.capacity_range.as_ref(), entry.size)?;
            room(&open, size - entry.size)?;
            open.resize(&entry.id, size)?;
            entry.size = size;
            open.put(entry)?;
            Ok(ControllerExpandVolumeResponse {
                capacity_bytes: size,
                node_expansion_required: true,
            })
        })
        .await
    }

    async fn controller_get_volume(
        &self,
        _: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        Err(Status::unimplemented("a volume has no condition"))
    }

    async fn controller_modify_volume(
        &self,
        _: Request<ControllerModifyVolumeRequest>,
    ) -> Result<Response<ControllerModifyVolumeResponse>, Status> {
        Err(Status::unimplemented("volumes cannot be modified"))
    }
}
