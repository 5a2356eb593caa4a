//! Devices that a plugin brings: a plugin that speaks the real API gives `/dev/full`-like nodes,
//! files and variables to containers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use parking_lot::Mutex;
use peapod_nodelet::devices::api::device_plugin_server::{DevicePlugin, DevicePluginServer};
use peapod_nodelet::devices::api::registration_client::RegistrationClient;
use peapod_nodelet::devices::api::*;
use peapod_nodelet::devices::pod_resources::api::pod_resources_lister_client::PodResourcesListerClient;
use peapod_nodelet::devices::pod_resources::api::{
    AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest,
};
use peapod_tests::{Cluster, wait};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tonic::{Request, Response, Status};

use crate::ready;

const RESOURCE: &str = "example.com/widget";

type Devices = BTreeMap<String, bool>;

/// What the plugin was asked.
#[derive(Default)]
struct Asked {
    allocated: Vec<Vec<String>>,
    started: Vec<Vec<String>>,
}

struct Widgets {
    devices: watch::Receiver<Devices>,
    asked: Arc<Mutex<Asked>>,
    file: PathBuf,
}

#[tonic::async_trait]
impl DevicePlugin for Widgets {
    type ListAndWatchStream = std::pin::Pin<
        Box<dyn tokio_stream::Stream<Item = Result<ListAndWatchResponse, Status>> + Send>,
    >;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        Ok(Response::new(DevicePluginOptions {
            pre_start_required: true,
            get_preferred_allocation_available: true,
        }))
    }

    async fn list_and_watch(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let list = |devices: Devices| {
            let device = |(id, well): (String, bool)| Device {
                id,
                health: if well { "Healthy" } else { "Unhealthy" }.into(),
                topology: None,
            };
            Ok(ListAndWatchResponse {
                devices: devices.into_iter().map(device).collect(),
            })
        };
        let lists = WatchStream::new(self.devices.clone()).map(list);
        Ok(Response::new(Box::pin(lists)))
    }

    /// The last ones first.
    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let choose = |request: ContainerPreferredAllocationRequest| {
            let count = usize::try_from(request.allocation_size).unwrap_or(0);
            let mut ids = request.available_device_ids;
            ids.sort_by(|a, b| b.cmp(a));
            ids.truncate(count);
            ContainerPreferredAllocationResponse { device_ids: ids }
        };
        let requests = request.into_inner().container_requests;
        Ok(Response::new(PreferredAllocationResponse {
            container_responses: requests.into_iter().map(choose).collect(),
        }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        let give = |request: ContainerAllocateRequest| {
            let ids = request.devices_ids;
            self.asked.lock().allocated.push(ids.clone());
            ContainerAllocateResponse {
                envs: [("WIDGETS".to_owned(), ids.join(","))].into(),
                mounts: vec![Mount {
                    container_path: "/etc/widget".into(),
                    host_path: self.file.to_string_lossy().into_owned(),
                    read_only: true,
                }],
                devices: vec![DeviceSpec {
                    container_path: "/dev/widget".into(),
                    host_path: "/dev/kmsg".into(),
                    permissions: "rw".into(),
                }],
                cdi_devices: ids
                    .iter()
                    .map(|id| CdiDevice {
                        name: format!("{RESOURCE}={id}"),
                    })
                    .collect(),
                ..ContainerAllocateResponse::default()
            }
        };
        let requests = request.into_inner().container_requests;
        Ok(Response::new(AllocateResponse {
            container_responses: requests.into_iter().map(give).collect(),
        }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        let ids = request.into_inner().devices_ids;
        self.asked.lock().started.push(ids);
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

/// What a node's own file says of the devices; removed in the end.
struct Description(PathBuf);

impl Description {
    fn write() -> Result<Self> {
        let device = |id: &str| serde_json::json!({"name": id, "containerEdits": {"env": [format!("CDI_{id}=yes")]}});
        let devices = ["w1", "w2", "w3"].map(device);
        let text = serde_json::json!({
            "cdiVersion": "0.6.0", "kind": RESOURCE, "devices": devices,
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/widget-zero", "hostPath": "/dev/zero"}],
                "mounts": [{"hostPath": "/etc/hostname", "containerPath": "/etc/widget-host",
                    "options": ["ro", "nosuid", "bind"]}],
                "hooks": [{"hookName": "createRuntime", "path": "/bin/true", "args": ["true"]}],
            },
        });
        let dir = Path::new("/var/run/cdi");
        std::fs::create_dir_all(dir)?;
        let path = dir.join("peapod-tests-widget.json");
        std::fs::write(&path, text.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Who holds which widgets, as a monitor of the node learns it.
async fn holders(socket: PathBuf) -> Result<Vec<(String, Vec<String>)>> {
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = socket.clone();
        async move {
            let stream = UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://kubelet")
        .connect_with_connector(connector)
        .await?;
    let mut client = PodResourcesListerClient::new(channel);
    let listed = client.list(ListPodResourcesRequest {}).await?.into_inner();
    let all = client
        .get_allocatable_resources(AllocatableResourcesRequest {})
        .await?
        .into_inner();
    assert_eq!(all.devices[0].resource_name, RESOURCE);
    assert_eq!(all.devices[0].device_ids, ["w1", "w2", "w3"]);
    let mut holders = Vec::new();
    for pod in listed.pod_resources {
        let ids = pod
            .containers
            .iter()
            .flat_map(|c| c.devices.iter().flat_map(|d| d.device_ids.clone()));
        holders.push((pod.name.clone(), ids.collect()));
        let asked = GetPodResourcesRequest {
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
        };
        let one = client.get(asked).await?.into_inner();
        assert_eq!(one.pod_resources, Some(pod));
    }
    let absent = client.get(GetPodResourcesRequest::default()).await;
    assert_eq!(absent.unwrap_err().code(), tonic::Code::NotFound);
    Ok(holders)
}

/// A plugin that serves and has registered, in a runtime of its own; dropping it ends it with all its
/// connections.
struct Running(Option<Runtime>);

impl Running {
    fn start(dir: &Path, widgets: Widgets) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        runtime.block_on(start(dir, widgets))?;
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn start(dir: &Path, widgets: Widgets) -> Result<()> {
    let socket = dir.join("widget.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListenerStream::new(UnixListener::bind(&socket)?);
    let serve = tonic::transport::Server::builder()
        .add_service(DevicePluginServer::new(widgets))
        .serve_with_incoming(listener);
    tokio::spawn(serve);
    let path = dir.join("kubelet.sock");
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let path = path.clone();
        async move {
            let stream = UnixStream::connect(path).await?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = tonic::transport::Endpoint::from_static("http://kubelet")
        .connect_with_connector(connector)
        .await?;
    let request = RegisterRequest {
        version: "v1beta1".into(),
        endpoint: "widget.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    };
    RegistrationClient::new(channel).register(request).await?;
    Ok(())
}

fn pod(name: &str, count: u32) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, 'echo $WIDGETS; cat /etc/widget; test -c /dev/widget && echo node; sleep 10000']
    resources: {{limits: {{{RESOURCE}: {count}}}}}
---
"
    )
}

#[test]
fn a_plugin_brings_devices() -> Result<()> {
    let cluster = Cluster::up()?;
    cluster.load_busybox()?;
    let dir = cluster.data_dir().join("node/device-plugins");
    let file = cluster.data_dir().join("widget");
    std::fs::write(&file, "made of steel\n")?;
    let all: Devices = ["w1", "w2", "w3"].map(|id| (id.to_owned(), true)).into();
    let (devices, watched) = watch::channel(all.clone());
    let asked = Arc::new(Mutex::new(Asked::default()));
    let widgets = || Widgets {
        devices: watched.clone(),
        asked: asked.clone(),
        file: file.clone(),
    };
    let description = Description::write()?;
    let running = Running::start(&dir, widgets())?;
    let counts = || {
        let path = format!(
            "{{.items[0].status.capacity.{0}}}/{{.items[0].status.allocatable.{0}}}",
            RESOURCE.replace('.', "\\.")
        );
        cluster.field("node", &path)
    };
    wait::until("the node's capacity", || Ok(counts()? == "3/3"))?;

    // The container has what the plugin gives, and the devices that it prefers.
    cluster.apply(&pod("two", 2))?;
    ready(&cluster, "two")?;
    let said = |pod: &str| cluster.kubectl(&format!("logs {pod}"))?.ok();
    wait::until("the container's words", || {
        Ok(said("two")? == "w2,w3\nmade of steel\nnode\n")
    })?;
    assert_eq!(asked.lock().started, [["w2", "w3"]]);
    let script = "env | grep CDI_ | sort; test -c /dev/widget-zero && cat /etc/widget-host";
    let args = ["exec", "two", "--", "sh", "-c", script];
    let told = cluster.kubectl_with(&args, None)?.ok()?;
    assert!(
        told.starts_with("CDI_w2=yes\nCDI_w3=yes\n") && told.lines().count() == 3,
        "{told}"
    );
    let socket = cluster.data_dir().join("node/pod-resources/kubelet.sock");
    let held = Runtime::new()?.block_on(holders(socket))?;
    assert_eq!(
        held,
        [("two".to_owned(), vec!["w2".to_owned(), "w3".to_owned()])]
    );

    // The third is left for another, and one that is not well for nobody.
    let mut sick = all.clone();
    sick.insert("w3".into(), false);
    devices.send_replace(sick);
    wait::until("the sick device", || Ok(counts()? == "3/2"))?;

    // Who holds what outlives the agent; plugins register again with the next.
    drop(running);
    wait::until("the loss of the plugin", || Ok(counts()? == "3/0"))?;
    cluster.crash()?;
    cluster.start()?;
    let running = Running::start(&dir, widgets())?;
    wait::until("the plugin again", || Ok(counts()? == "3/2"))?;
    devices.send_replace(all.clone());
    wait::until("the device that is well again", || Ok(counts()? == "3/3"))?;
    cluster.apply(&pod("one", 1))?;
    ready(&cluster, "one")?;
    wait::until("the device that is left", || {
        Ok(said("one")?.starts_with("w1\n"))
    })?;

    // A device that no file describes is not left out in silence.
    drop(description);
    cluster.kubectl("delete pod one")?.ok()?;
    cluster.apply(&pod("undescribed", 1))?;
    wait::until("the reason", || {
        let line = "get events --field-selector involvedObject.name=undescribed";
        let events = cluster.kubectl(line)?.ok()?;
        Ok(events.contains("unresolvable CDI device"))
    })?;
    let _description = Description::write()?;
    cluster.kubectl("delete pod undescribed")?.ok()?;

    // What is given back can be given again.
    cluster.kubectl("delete pod two")?.ok()?;
    cluster.apply(&pod("next", 3))?;
    ready(&cluster, "next")?;
    wait::until(
        "all of them",
        || Ok(said("next")?.starts_with("w1,w2,w3\n")),
    )?;
    drop(running);
    Ok(())
}
