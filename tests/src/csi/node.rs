//! The Node service.

use std::path::Path;

use nix::sys::statvfs::statvfs;
use peapod_csi::v1::node_service_capability::rpc::Type as Can;
use peapod_csi::v1::node_service_capability::{self, Rpc};
use peapod_csi::v1::volume_capability::AccessType;
use peapod_csi::v1::volume_usage::Unit;
use peapod_csi::v1::*;
use tonic::{Request, Response, Status};

use super::pool::{Entry, Pool};
use super::{blocking, disk, internal};

/// A volume that a pod brings has this size unless `size` says otherwise, bytes.
const EPHEMERAL: i64 = 16 << 20;

/// The service on one node.
pub struct Node {
    /// The volumes.
    pub pool: Pool,
    /// The node.
    pub node: String,
    /// Where it is.
    pub zone: Topology,
}

fn mount_flags(capability: Option<&VolumeCapability>) -> Option<Vec<String>> {
    match capability.and_then(|one| one.access_type.clone()) {
        Some(AccessType::Mount(mount)) => Some(mount.mount_flags),
        _ => None,
    }
}

#[tonic::async_trait]
impl node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let (pool, node, request) = (self.pool.clone(), self.node.clone(), request.into_inner());
        blocking(move || {
            let entry = pool.lock()?.get(&request.volume_id)?.clone();
            let attached = request.publish_context.get("attached-to");
            if attached.is_some_and(|attached| *attached != node) {
                return Err(Status::failed_precondition(
                    "it is attached to another node",
                ));
            }
            if request
                .volume_context
                .get("needs-secret")
                .is_some_and(|word| request.secrets.get("word") != Some(word))
            {
                return Err(Status::unauthenticated("the secret does not hold the word"));
            }
            let device = disk::attach(&pool.file(&entry.id))?;
            if let Some(flags) = mount_flags(request.volume_capability.as_ref()) {
                disk::format(&device)?;
                disk::mount(&device, Path::new(&request.staging_target_path), &flags)?;
            }
            Ok(NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            disk::unmount(Path::new(&request.staging_target_path))?;
            disk::detach(&pool.file(&request.volume_id))?;
            Ok(NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let target = Path::new(&request.target_path);
            let about = |key: &str| {
                request
                    .volume_context
                    .get(&format!("csi.storage.k8s.io/{key}"))
            };
            if about("ephemeral").is_some_and(|text| text == "true") {
                let size = request.volume_context.get("size");
                let size = size
                    .map_or(Ok(EPHEMERAL), |text| text.parse())
                    .map_err(internal)?;
                bring(&pool, &request.volume_id, size)?;
                let device = disk::attach(&pool.file(&request.volume_id))?;
                disk::format(&device)?;
                disk::mount(&device, target, &[])?;
                let name = about("pod.name").cloned().unwrap_or_default();
                std::fs::write(target.join("pod"), name).map_err(internal)?;
                return Ok(NodePublishVolumeResponse {});
            }
            let source = match mount_flags(request.volume_capability.as_ref()) {
                Some(_) => request.staging_target_path.clone(),
                None => disk::attached(&pool.file(&request.volume_id))?
                    .ok_or_else(|| Status::failed_precondition("it is not staged"))?,
            };
            disk::bind(Path::new(&source), target, request.readonly)?;
            Ok(NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            disk::unmount(Path::new(&request.target_path))?;
            let brought = pool
                .lock()?
                .get(&request.volume_id)
                .is_ok_and(|e| e.name.is_empty());
            if brought {
                disk::detach(&pool.file(&request.volume_id))?;
                pool.lock()?.remove(&request.volume_id)?;
            }
            Ok(NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        blocking(move || {
            let stat = statvfs(request.volume_path.as_str());
            let stat = stat.map_err(|error| Status::not_found(error.to_string()))?;
            let usage = |unit: Unit, total: u64, available: u64, size: u64| VolumeUsage {
                unit: unit.into(),
                total: (total * size) as i64,
                available: (available * size) as i64,
                used: ((total - available) * size) as i64,
            };
            let bytes = usage(
                Unit::Bytes,
                stat.blocks(),
                stat.blocks_available(),
                stat.fragment_size(),
            );
            let inodes = usage(Unit::Inodes, stat.files(), stat.files_available(), 1);
            Ok(NodeGetVolumeStatsResponse {
                usage: vec![bytes, inodes],
                volume_condition: None,
            })
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let (pool, request) = (self.pool.clone(), request.into_inner());
        blocking(move || {
            let size = pool.lock()?.get(&request.volume_id)?.size;
            let mounted = mount_flags(request.volume_capability.as_ref()).is_some();
            disk::grow(&pool.file(&request.volume_id), mounted)?;
            Ok(NodeExpandVolumeResponse {
                capacity_bytes: size,
            })
        })
        .await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let all = [
            Can::StageUnstageVolume,
            Can::GetVolumeStats,
            Can::ExpandVolume,
            Can::SingleNodeMultiWriter,
        ];
        let capability = |can: Can| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(Rpc {
                r#type: can.into(),
            })),
        };
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: all.map(capability).into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: format!("id-of-{}", self.node),
            max_volumes_per_node: 7,
            accessible_topology: Some(self.zone.clone()),
        }))
    }
}

/// Makes the volume that a pod brings; it has no name.
fn bring(pool: &Pool, id: &str, size: i64) -> Result<(), Status> {
    let mut open = pool.lock()?;
    if open.get(id).is_ok() {
        return Ok(());
    }
    let entry = Entry {
        id: id.to_owned(),
        size,
        ..Entry::default()
    };
    open.make(entry, None)
}
