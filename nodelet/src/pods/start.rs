//! Makes and starts one container: everything it needs is fetched, resolved and put in place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Service, VolumeDevice};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use peapod_api::k8s_openapi;

use super::{Context, Entry};
use crate::core::{Event, ImageRef, StartFault, find_container, spec_of};
use crate::devices::cdi;
use crate::make::container::Parts;
use crate::make::etc::{self, ResolvConf};
use crate::make::expand::expand_with;
use crate::make::{self, Missing, env, sandbox};
use crate::objects::References;
use crate::runtime::{ContainerId, ContainerSpec, Device, Image, Mount, Propagation};
use crate::static_pods::manifest;
use crate::volumes::{Located, subpath};

/// Most services whose variables a container gets.
const SERVICES_MAX: u32 = 5000;
/// Where termination messages go when nothing else is said.
const MESSAGE_PATH: &str = "/dev/termination-log";

/// What variables refer to, taken from what is watched.
struct Found {
    config_maps: Vec<(String, Arc<ConfigMap>)>,
    secrets: Vec<(String, Arc<Secret>)>,
}

impl Found {
    fn of(container: &Container, references: &References) -> Self {
        let sources = || container.env_from.iter().flatten();
        let refs = || {
            container
                .env
                .iter()
                .flatten()
                .filter_map(|v| v.value_from.as_ref())
        };
        let maps = sources().filter_map(|s| s.config_map_ref.as_ref().map(|r| &r.name));
        let maps =
            maps.chain(refs().filter_map(|s| s.config_map_key_ref.as_ref().map(|r| &r.name)));
        let secrets = sources().filter_map(|s| s.secret_ref.as_ref().map(|r| &r.name));
        let secrets =
            secrets.chain(refs().filter_map(|s| s.secret_key_ref.as_ref().map(|r| &r.name)));
        Self {
            config_maps: maps
                .filter_map(|name| Some((name.clone(), references.config_map(name)?)))
                .collect(),
            secrets: secrets
                .filter_map(|name| Some((name.clone(), references.secret(name)?)))
                .collect(),
        }
    }
}

fn named<'a, K>(list: &'a [(String, Arc<K>)], name: &str) -> Option<&'a K> {
    list.iter()
        .find(|(key, _)| key == name)
        .map(|(_, object)| object.as_ref())
}

impl env::Lookup for Found {
    fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        named(&self.config_maps, name)
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        named(&self.secrets, name)
    }
}

/// Makes and starts a container.
pub async fn start(
    context: &Context,
    entry: &Entry,
    name: &str,
    attempt: u32,
    image: &ImageRef,
) -> Event {
    let container = name.to_owned();
    match try_start(context, entry, name, attempt, image).await {
        Ok(id) => Event::Started {
            container,
            id,
            at: Timestamp::now(),
        },
        Err(fault) => Event::StartFailed { container, fault },
    }
}

async fn try_start(
    context: &Context,
    entry: &Entry,
    name: &str,
    attempt: u32,
    image: &ImageRef,
) -> Result<String, StartFault> {
    let _permit = context.limits.starts.acquire().await;
    let timing = &entry.timing;
    let preparing = prepare(context, entry, name, attempt, image);
    let spec = timing.of("prepare", name, preparing).await?;
    let create = |e: crate::runtime::Error| StartFault::Create(e.to_string());
    let creating = context.runtime.create_container(&spec);
    let id = timing.of("create", name, creating).await.map_err(create)?;
    let starting = context.runtime.start_container(&id);
    match timing.of("start", name, starting).await {
        Ok(()) => Ok(id.0),
        Err(error) => Err(StartFault::Run {
            id: id.0,
            message: error.to_string(),
        }),
    }
}

async fn prepare(
    context: &Context,
    entry: &Entry,
    name: &str,
    attempt: u32,
    image: &ImageRef,
) -> Result<ContainerSpec, StartFault> {
    let config = |missing: Missing| StartFault::Config(missing.to_string());
    let gone = || StartFault::Config(format!("container {name} is not in the pod any more"));
    let pod = entry.pod();
    let container = find_container(&pod, name).ok_or_else(gone)?.into_owned();
    let references = entry.references.lock().clone();
    references
        .settled()
        .await
        .map_err(|e| StartFault::Config(e.to_string()))?;
    let image = present_image(context, &container, image).await?;
    let services = services(context, &pod).await?;
    let ips = entry.machine.lock().ips().to_vec();
    let place = context.place(&pod, &ips);
    let found = Found::of(&container, &references);
    let env = env::build(&pod, &container, &services, &found, &place).map_err(config)?;
    let located = entry.located.lock().clone();
    let files = Files {
        pod_dir: context.pod_dir(&entry.uid),
        message: context.message_path(&entry.uid, name, attempt),
        hosts: hosts_file(context, &pod, &place.pod_ips),
        hostname: sandbox::shown_hostname(
            &pod,
            &context.config.cluster_dns.domain,
            &context.host(),
        ),
        resolv_conf: resolv_conf(context, &pod),
    };
    let log_path = context.log_path(&pod, name, attempt);
    let (mounts_of, env_of) = (container.clone(), env.clone());
    let mut devices = block_devices(&container, &located).map_err(config)?;
    let mounts =
        tokio::task::spawn_blocking(move || files.mounts(&mounts_of, &located, &env_of)).await;
    let mounts = match mounts {
        Ok(mounts) => mounts.map_err(|e| StartFault::Config(e.to_string()))?,
        Err(error) => return Err(StartFault::Create(error.to_string())),
    };
    let given = context.devices.give(&pod, &container).await;
    let given = given.map_err(StartFault::Config)?;
    let target = target(entry, &pod, name)?;
    let memory = context
        .allocatable()
        .get("memory")
        .map_or(i64::MAX, |memory| memory.units());
    let cpus = context
        .cpus
        .assign(context.runtime.as_ref(), &pod, &container);
    let cpus = cpus.await.map_err(StartFault::Config)?;
    let mut spec = make::container::container(Parts {
        pod: &pod,
        container: &container,
        attempt,
        image: &image,
        runtime_handler: entry.runtime_handler(),
        target,
        env: given.env(env),
        mounts: given.mounts(mounts),
        devices: {
            devices.extend(given.devices());
            devices
        },
        log_path,
        seccomp_root: &context.config.data_dir.join("seccomp"),
        node_memory_bytes: memory,
    })
    .map_err(config)?;
    spec.resources.cpuset_cpus = cpus;
    inject(given.cdi(), spec).await
}

/// Gives a container the devices that files of the node describe.
async fn inject(names: Vec<String>, mut spec: ContainerSpec) -> Result<ContainerSpec, StartFault> {
    if names.is_empty() {
        return Ok(spec);
    }
    let work = move || {
        let dirs = cdi::DIRS.map(Path::new);
        cdi::inject(&names, &dirs, &mut spec).map(|()| spec)
    };
    let injected = tokio::task::spawn_blocking(work).await;
    let injected = injected.unwrap_or_else(|error| Err(error.to_string()));
    injected.map_err(|why| StartFault::Create(format!("CDI device injection failed: {why}")))
}

/// The volumes that a container has as devices.
fn block_devices(
    container: &Container,
    located: &std::collections::BTreeMap<String, Located>,
) -> Result<Vec<Device>, Missing> {
    let wanted = container.volume_devices.iter().flatten();
    let device = |wanted: &VolumeDevice| {
        let name = &wanted.name;
        let volume = located.get(name);
        let volume = volume.ok_or_else(|| Missing(format!("volume \"{name}\" is not in place")))?;
        let permissions = if volume.read_only { "r" } else { "rwm" };
        Ok(Device {
            host_path: volume.path.clone(),
            container_path: PathBuf::from(&wanted.device_path),
            permissions: permissions.to_owned(),
        })
    };
    wanted.map(device).collect()
}

/// The container that an ephemeral one targets, which must run.
fn target(entry: &Entry, pod: &Pod, name: &str) -> Result<Option<ContainerId>, StartFault> {
    let mut ephemeral = spec_of(pod).ephemeral_containers.iter().flatten();
    let found = ephemeral.find(|container| container.name == name);
    let Some(target) = found.and_then(|container| container.target_container_name.as_deref())
    else {
        return Ok(None);
    };
    let machine = entry.machine.lock();
    match machine.container_id(target, false) {
        Some(id) if machine.runs(target) => Ok(Some(ContainerId(id.to_owned()))),
        _ => Err(StartFault::Config(format!(
            "container \"{target}\", which {name} targets, does not run"
        ))),
    }
}

/// The image that was made ready a moment ago.
async fn present_image(
    context: &Context,
    container: &Container,
    image: &ImageRef,
) -> Result<Image, StartFault> {
    if let Some(image) = context.images.recent(&image.id) {
        return Ok(image);
    }
    for reference in [image.name.as_str(), image.id.as_str()] {
        match context.images.get(reference).await {
            Ok(Some(image)) => return Ok(image),
            Ok(None) => {}
            Err(error) => return Err(StartFault::Create(error.to_string())),
        }
    }
    let name = container.image.as_deref().unwrap_or_default();
    Err(StartFault::Create(format!(
        "image \"{name}\" went away before the container was made"
    )))
}

/// The services that a container hears of in its environment.
async fn services(context: &Context, pod: &Pod) -> Result<Vec<Service>, StartFault> {
    let namespace = pod.namespace().unwrap_or_default();
    if manifest::is_static(pod) {
        return Ok(Vec::new());
    }
    let links = spec_of(pod).enable_service_links != Some(false);
    let list = async |namespace: &str, params: ListParams| {
        let api: Api<Service> = Api::namespaced(context.client.clone(), namespace);
        let listed = api.list(&params.limit(SERVICES_MAX)).await;
        listed.map(|list| list.items).map_err(|e| {
            StartFault::Config(format!(
                "cannot list the services of namespace {namespace}: {e}"
            ))
        })
    };
    let master = ListParams::default().fields("metadata.name=kubernetes");
    let mut all = match (links, namespace.as_str()) {
        (true, "default") => Vec::new(),
        _ => list("default", master).await?,
    };
    if links {
        all.extend(list(&namespace, ListParams::default()).await?);
    }
    Ok(all)
}

fn hosts_file(context: &Context, pod: &Pod, ips: &[std::net::IpAddr]) -> String {
    let host = match spec_of(pod).host_network {
        Some(true) => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        _ => String::new(),
    };
    etc::hosts(pod, ips, &context.config.cluster_dns.domain, &host)
}

/// Where systemd-resolved keeps the resolvers that it forwards to.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

fn resolv_conf(context: &Context, pod: &Pod) -> String {
    let read = |path: &Path| ResolvConf::parse(&std::fs::read_to_string(path).unwrap_or_default());
    let mut host = read(&context.config.resolv_conf);
    if host.is_stub() && Path::new(RESOLVED).exists() {
        host = read(Path::new(RESOLVED));
    }
    etc::resolv_conf(pod, &context.config.cluster_dns, &host).render()
}

/// The files that the node gives to a container.
struct Files {
    pod_dir: PathBuf,
    message: PathBuf,
    hosts: String,
    hostname: String,
    resolv_conf: String,
}

#[derive(Debug, thiserror::Error)]
enum MountError {
    #[error("{0}")]
    Missing(#[from] Missing),
    #[error(transparent)]
    Volume(#[from] crate::volumes::Error),
    #[error("cannot write {path}: {source}")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Files {
    /// Writes the files and resolves the mounts. Blocking.
    fn mounts(
        &self,
        container: &Container,
        located: &std::collections::BTreeMap<String, Located>,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, MountError> {
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let volume = located
                .get(&mount.name)
                .ok_or_else(|| Missing(format!("volume \"{}\" is not in place", mount.name)))?;
            let expanded = mount
                .sub_path_expr
                .as_deref()
                .map(|text| expand_with(text, env));
            let sub_path = expanded
                .or_else(|| mount.sub_path.clone())
                .unwrap_or_default();
            let source = if sub_path.is_empty() {
                volume.path.clone()
            } else {
                let target = self.pod_dir.join("volume-subpaths").join(&mount.name);
                let target = target.join(&container.name).join(index.to_string());
                subpath::place(&volume.path, &sub_path, &target)?
            };
            let recursive = mount.recursive_read_only.as_deref();
            mounts.push(Mount {
                destination: PathBuf::from(&mount.mount_path),
                source,
                read_only: mount.read_only == Some(true) || volume.read_only,
                recursive_read_only: matches!(recursive, Some("Enabled" | "IfPossible")),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => Propagation::HostToContainer,
                    Some("Bidirectional") => Propagation::Bidirectional,
                    _ => Propagation::Private,
                },
                ..Mount::default()
            });
        }
        self.own(container, &mut mounts)?;
        Ok(mounts)
    }

    /// Adds the node's own files, unless a volume stands in their place.
    fn own(&self, container: &Container, mounts: &mut Vec<Mount>) -> Result<(), MountError> {
        let message_at = container.termination_message_path.as_deref();
        let message_at = message_at
            .filter(|path| !path.is_empty())
            .unwrap_or(MESSAGE_PATH);
        let mut add = |source: PathBuf, destination: &str| {
            let destination = PathBuf::from(destination);
            if !mounts.iter().any(|mount| mount.destination == destination) {
                mounts.push(Mount {
                    destination,
                    source,
                    ..Mount::default()
                });
            }
        };
        write(&self.message, "", 0o666)?;
        add(self.message.clone(), message_at);
        let hostname = format!("{}\n", self.hostname);
        let texts = [
            ("hosts", &self.hosts),
            ("hostname", &hostname),
            ("resolv.conf", &self.resolv_conf),
        ];
        for (name, text) in texts {
            let path = self.pod_dir.join("etc").join(name);
            write(&path, text, 0o644)?;
            add(path, &format!("/etc/{name}"));
        }
        Ok(())
    }
}

/// Writes a file in place: containers that run already have it mounted.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), MountError> {
    let fault = |source| MountError::Write {
        path: path.display().to_string(),
        source,
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fault)?;
    }
    std::fs::write(path, text).map_err(fault)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fault)
}
