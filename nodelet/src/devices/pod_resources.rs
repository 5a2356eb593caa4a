//! Tells monitoring agents on the node which containers hold which devices and CPUs: the API
//! `podresources/v1`, on a socket of root's.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use peapod_api::k8s_openapi;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::api::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use self::api::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, ContainerDevices,
    ContainerResources, GetPodResourcesRequest, GetPodResourcesResponse, ListPodResourcesRequest,
    ListPodResourcesResponse, PodResources,
};
use super::Devices;
use crate::core::{Kind, view};
use crate::cpus::Cpus;
use crate::pods::Context;

/// What the build script makes of `proto/podresources.proto`.
#[allow(missing_docs, clippy::all)]
pub mod api {
    tonic::include_proto!("v1");
}

/// The folder of the socket, and the socket.
const SOCKET: [&str; 2] = ["pod-resources", "kubelet.sock"];
/// Most requests of one client at a time.
const REQUESTS_MAX: usize = 16;

struct Lister {
    context: Arc<Context>,
}

/// Answers until it is dropped.
pub async fn run(context: Arc<Context>) {
    let [folder, socket] = SOCKET;
    let dir = context.config.data_dir.join(folder);
    let served = match listen(&dir, socket) {
        Ok(listener) => serve(listener, Lister { context }).await,
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = served {
        tracing::error!(dir = %dir.display(), error, "nobody can ask which pods hold which devices");
    }
    std::future::pending().await
}

fn listen(dir: &Path, socket: &str) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o750))?;
    let path = dir.join(socket);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

async fn serve(listener: UnixListener, lister: Lister) -> Result<(), String> {
    Server::builder()
        .concurrency_limit_per_connection(REQUESTS_MAX)
        .add_service(PodResourcesListerServer::new(lister))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(|error| error.to_string())
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let pod_resources = self.pods().iter().map(|pod| self.resources(pod)).collect();
        Ok(Response::new(ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Ok(Response::new(AllocatableResourcesResponse {
            devices: devices(self.context.devices.all()),
            cpu_ids: self.context.cpus.allocatable(),
            memory: Vec::new(),
        }))
    }

    async fn get(
        &self,
        request: Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest {
            pod_name,
            pod_namespace,
        } = request.into_inner();
        let pods = self.pods();
        let mut named = pods.iter().filter(|pod| pod.name_any() == pod_name);
        let found = named.find(|pod| pod.namespace().unwrap_or_default() == pod_namespace);
        let absent = || {
            Status::not_found(format!(
                "pod {pod_name} in namespace {pod_namespace} not found"
            ))
        };
        let pod_resources = Some(self.resources(found.ok_or_else(absent)?));
        Ok(Response::new(GetPodResourcesResponse { pod_resources }))
    }
}

// === impl Lister ===

impl Lister {
    /// The pods that have a place on the node.
    fn pods(&self) -> Vec<Arc<Pod>> {
        let all = self.context.table.all().into_iter();
        let staying = all.filter(|entry| entry.machine.lock().occupies());
        staying.map(|entry| entry.pod()).collect()
    }

    fn resources(&self, pod: &Pod) -> PodResources {
        resources(pod, &self.context.devices, &self.context.cpus)
    }
}

fn resources(pod: &Pod, held: &Devices, cpus: &Cpus) -> PodResources {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    // Init containers that end give back what they held.
    let lasting = view(pod).filter(|view| matches!(view.kind, Kind::App | Kind::Sidecar));
    let containers = lasting.map(|view| ContainerResources {
        name: view.name.to_owned(),
        devices: devices(held.held(uid, view.name)),
        cpu_ids: cpus.own(uid, view.name),
        memory: Vec::new(),
    });
    PodResources {
        name: pod.name_any(),
        namespace: pod.namespace().unwrap_or_default(),
        containers: containers.collect(),
    }
}

fn devices(all: Vec<(String, Vec<String>)>) -> Vec<ContainerDevices> {
    let each = all
        .into_iter()
        .map(|(resource_name, device_ids)| ContainerDevices {
            resource_name,
            device_ids,
            topology: None,
        });
    each.collect()
}
