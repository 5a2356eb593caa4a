//! A CSI driver: volumes are files in a folder that all nodes share, attached as loop devices, with
//! ext4 on them. It is software like others', with the three services and the registration of a
//! node's plugin, and runs as a process of its own or in a pod.
//!
//! [`pool`] keeps the volumes' files and what is known of them, [`disk`] makes devices and mounts,
//! [`controller`] and [`node`] are the services.

pub mod controller;
pub mod disk;
pub mod node;
pub mod pool;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use peapod_csi::registration::registration_server::{Registration, RegistrationServer};
use peapod_csi::registration::*;
use peapod_csi::v1::controller_server::ControllerServer;
use peapod_csi::v1::identity_server::{Identity, IdentityServer};
use peapod_csi::v1::node_server::NodeServer;
use peapod_csi::v1::plugin_capability::service::Type as Service;
use peapod_csi::v1::plugin_capability::{self, VolumeExpansion, volume_expansion};
use peapod_csi::v1::*;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::pool::Pool;

/// The label by which a node is told apart, before the driver's name.
pub const ZONE: &str = "zone";

/// What a driver is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// The folder of the volumes.
    pub pool: PathBuf,
    /// The folder that stands for `/var/lib/kubelet`, as the driver sees it.
    pub kubelet: PathBuf,
}

#[derive(Clone)]
struct Driver {
    options: Options,
    endpoint: PathBuf,
}

/// Serves until the process ends.
pub async fn serve(options: Options) -> Result<()> {
    let folder = options.kubelet.join("plugins").join(&options.name);
    std::fs::create_dir_all(&folder)?;
    let endpoint = folder.join("csi.sock");
    let pool = Pool::open(&options.pool)?;
    let driver = Driver {
        options: options.clone(),
        endpoint: endpoint.clone(),
    };
    let services = Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(controller::Controller {
            pool: pool.clone(),
            zone: driver.zone(),
        }))
        .add_service(NodeServer::new(node::Node {
            pool,
            node: options.node.clone(),
            zone: driver.zone(),
        }))
        .serve_with_incoming(listen(&endpoint)?);
    // Whoever sees the registration's socket finds the driver's.
    let registry = options.kubelet.join("plugins_registry");
    let socket = registry.join(format!("{}-reg.sock", options.name));
    std::fs::create_dir_all(&registry)?;
    let registration = Server::builder()
        .add_service(RegistrationServer::new(driver))
        .serve_with_incoming(listen(&socket)?);
    tokio::try_join!(services, registration)?;
    Ok(())
}

/// A fresh socket: what another run has left is replaced.
fn listen(path: &Path) -> Result<UnixListenerStream> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path);
    let listener = listener.with_context(|| format!("cannot listen at {}", path.display()))?;
    Ok(UnixListenerStream::new(listener))
}

impl Driver {
    fn zone(&self) -> Topology {
        let key = format!("{}/{ZONE}", self.options.name);
        Topology {
            segments: [(key, "shared".to_owned())].into(),
        }
    }
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".into(),
            name: self.options.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: vec!["1.0.0".into()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        println!("registered: {} {}", status.plugin_registered, status.error);
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.options.name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..GetPluginInfoResponse::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = |service: Service| {
            plugin_capability::Type::Service(plugin_capability::Service {
                r#type: service.into(),
            })
        };
        let online = plugin_capability::Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        });
        let all = [
            service(Service::ControllerService),
            service(Service::VolumeAccessibilityConstraints),
            online,
        ];
        let capabilities = all.map(|one| PluginCapability { r#type: Some(one) });
        Ok(Response::new(GetPluginCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

/// What went wrong on the machine.
fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("{error:#}"))
}

/// Runs what waits for programs and disks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(internal)?.map(Response::new)
}
