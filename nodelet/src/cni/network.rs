//! The pods' network by CNI plugins.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use nix::ifaddrs::getifaddrs;
use parking_lot::Mutex;
use peapod_api::attach::{
    AttachError, AttachReply, AttachRequest, DetachRequest, PodNetwork, PodRef,
};
use peapod_api::cni::{Attachment, Success, VALID_ATTACHMENTS};
use serde_json::{Map, Value, json};

use super::cache::{Cache, Entry};
use super::config::{self, Network, plugin_type};
use super::exec::{self, Question};
use crate::runtime::sys::in_netns;

/// The pod's link, where nobody asked for another name.
const INTERFACE: &str = "eth0";

/// Where configurations and plugins are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// Configurations; the first by name counts.
    pub conf: PathBuf,
    /// Plugins, searched in order.
    pub bin: Vec<PathBuf>,
}

/// Why a pod is not attached or detached.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Plugin(#[from] exec::Error),
    #[error("cannot record what the pod is attached by: {0}; has the node's disk room?")]
    Record(#[from] io::Error),
    #[error("the plugins of CNI network {0} gave the pod no address; see its configuration")]
    NoAddress(String),
    #[error("the result of CNI network {network} makes no sense: {detail}")]
    Result { network: String, detail: String },
    #[error(
        "the pod wants ports of the node (hostPort), and no plugin of CNI network {0} has the \
         capability portMappings; add the plugin portmap to its configuration"
    )]
    NoPorts(String),
}

impl From<Error> for AttachError {
    fn from(error: Error) -> Self {
        AttachError {
            // Plugins are installed and configurations are put right while pods wait.
            retriable: true,
            message: error.to_string(),
        }
    }
}

/// Connects pods by CNI plugins.
pub struct CniNetwork {
    dirs: Dirs,
    cache: Cache,
    /// Keeps services and names; pods need it, too.
    services: Option<Arc<dyn PodNetwork>>,
    /// Pods that are being worked on: one thing at a time.
    busy: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

// === impl CniNetwork ===

impl CniNetwork {
    /// A network of these plugins, whose records are kept below `state`.
    ///
    /// # Errors
    /// When that folder cannot be made.
    pub fn new(
        dirs: Dirs,
        state: &Path,
        services: Option<Arc<dyn PodNetwork>>,
    ) -> io::Result<Self> {
        Ok(Self {
            dirs,
            cache: Cache::open(state)?,
            services,
            busy: Mutex::default(),
        })
    }

    /// Detaches every pod; tells of those that are left.
    pub async fn release_all(&self) -> Vec<String> {
        let entries = match self.cache.all() {
            Ok(entries) => entries,
            Err(error) => return vec![format!("cannot read what pods are attached by: {error}")],
        };
        let mut faults = Vec::new();
        for entry in entries {
            if let Err(error) = self.disconnect(&entry).await {
                let pod = &entry.pod;
                faults.push(format!(
                    "pod {}/{} is left: {error}",
                    pod.namespace, pod.name
                ));
            }
        }
        faults
    }

    fn begin(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        // Whoever holds a lock holds a second reference to it.
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(uid.to_owned()).or_default().clone()
    }

    async fn connect(&self, request: &AttachRequest) -> Result<AttachReply, Error> {
        if let Some(entry) = self.cache.read(&request.pod.uid)? {
            if let Some(reply) = self.still_attached(&entry, request).await {
                return Ok(reply);
            }
            self.disconnect(&entry).await?;
        }
        let network = Network::load(&self.dirs.conf)?;
        if !request.host_ports.is_empty() && !network.maps_ports() {
            return Err(Error::NoPorts(network.name));
        }
        let mut entry = Entry {
            pod: request.pod.clone(),
            netns: request.netns.clone(),
            interface: request.interface.clone().unwrap_or(INTERFACE.to_owned()),
            host_ports: request.host_ports.clone(),
            network,
            result: None,
        };
        // Before the first plugin: what it makes must be found again.
        self.cache.write(&entry)?;
        match self.add(&mut entry).await {
            Ok(reply) => Ok(reply),
            Err(fault) => {
                if let Err(error) = self.disconnect(&entry).await {
                    tracing::warn!(pod = entry.pod.name, %error, "what failed is not undone yet");
                }
                Err(fault)
            }
        }
    }

    async fn add(&self, entry: &mut Entry) -> Result<AttachReply, Error> {
        let mut loopback = Entry {
            interface: "lo".to_owned(),
            network: Network::loopback(),
            ..entry.clone()
        };
        self.chain(&mut loopback).await?;
        self.chain(entry).await?;
        let reply = reply(entry)?;
        self.cache.write(entry)?;
        Ok(reply)
    }

    /// Runs a network's plugins in order, each with the result of the one before.
    async fn chain(&self, entry: &mut Entry) -> Result<(), Error> {
        for plugin in &entry.network.plugins {
            let result = self.ask("ADD", entry, plugin).await?;
            if result.is_some() {
                entry.result = result;
            }
        }
        Ok(())
    }

    /// The reply of an attachment that still stands: its addresses are in its namespace. What a
    /// CHECK finds is only told of: to attach a running pod anew would give it other addresses,
    /// and some plugins' CHECK is wrong (portmap 1.1 misses IPv6 chains that it never makes).
    async fn still_attached(&self, entry: &Entry, request: &AttachRequest) -> Option<AttachReply> {
        if entry.result.is_none() || entry.netns != request.netns {
            return None;
        }
        let reply = reply(entry).ok()?;
        let (netns, link) = (entry.netns.clone(), entry.interface.clone());
        let looked = tokio::task::spawn_blocking(move || addresses(&netns, &link)).await;
        let there = looked.ok()?.ok()?;
        if !reply.ips.iter().all(|ip| there.contains(ip)) {
            return None;
        }
        if entry.network.at_least("0.4.0") && !entry.network.disable_check {
            for plugin in &entry.network.plugins {
                if let Err(error) = self.ask("CHECK", entry, plugin).await {
                    tracing::warn!(pod = entry.pod.name, %error, "a pod's network may be damaged");
                }
            }
        }
        Some(reply)
    }

    /// Releases what an entry has, the last plugin first, and forgets it.
    async fn disconnect(&self, entry: &Entry) -> Result<(), Error> {
        for plugin in entry.network.plugins.iter().rev() {
            self.ask("DEL", entry, plugin).await?;
        }
        Ok(self.cache.remove(&entry.pod.uid)?)
    }

    async fn ask(
        &self,
        command: &'static str,
        entry: &Entry,
        plugin: &Map<String, Value>,
    ) -> Result<Option<Value>, Error> {
        let PodRef {
            namespace,
            name,
            uid,
        } = &entry.pod;
        let netns = match command == "DEL" && !entry.netns.exists() {
            // So the plugin knows that there is nothing inside to take away.
            true => String::new(),
            false => entry.netns.to_string_lossy().into_owned(),
        };
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
             K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
        );
        let question = Question {
            command,
            env: vec![
                ("CNI_CONTAINERID", uid.clone()),
                ("CNI_NETNS", netns),
                ("CNI_IFNAME", entry.interface.clone()),
                ("CNI_ARGS", args),
            ],
            dirs: &self.dirs.bin,
        };
        let network = &entry.network;
        // Since 0.4.0 what is released and looked at is told by its result.
        let tell = command == "ADD" || network.at_least("0.4.0");
        let previous = entry.result.as_ref().filter(|_| tell);
        let input = network.input(plugin, &entry.host_ports, previous, &BTreeMap::new());
        Ok(exec::run(plugin_type(plugin), &question, &input).await?)
    }

    /// Asks every plugin of a network for something that is of no container.
    async fn ask_all(
        &self,
        command: &'static str,
        network: &Network,
        more: &BTreeMap<String, Value>,
    ) -> Result<(), Error> {
        for plugin in &network.plugins {
            let question = Question {
                command,
                env: Vec::new(),
                dirs: &self.dirs.bin,
            };
            let input = network.input(plugin, &[], None, more);
            exec::run(plugin_type(plugin), &question, &input).await?;
        }
        Ok(())
    }

    /// Whether pods can be attached, and what nobody remembers is released.
    async fn look(&self) -> Result<(), Error> {
        let network = Network::load(&self.dirs.conf)?;
        for plugin in network.plugins.iter().chain(&Network::loopback().plugins) {
            exec::find(plugin_type(plugin), &self.dirs.bin)?;
        }
        if network.at_least("1.1.0") {
            self.ask_all("STATUS", &network, &BTreeMap::new()).await?;
            let entries = self.cache.all()?;
            let own = entries.iter().filter(|e| e.network.name == network.name);
            let valid: Vec<Attachment> = own
                .map(|entry| Attachment {
                    container_id: entry.pod.uid.clone(),
                    ifname: entry.interface.clone(),
                })
                .collect();
            let keep = BTreeMap::from([(VALID_ATTACHMENTS.to_owned(), json!(valid))]);
            if let Err(error) = self.ask_all("GC", &network, &keep).await {
                tracing::warn!(%error, "what nobody remembers may be left");
            }
        }
        Ok(())
    }
}

#[async_trait]
impl PodNetwork for CniNetwork {
    async fn attach(&self, request: AttachRequest) -> Result<AttachReply, AttachError> {
        let busy = self.begin(&request.pod.uid);
        let _one_at_a_time = busy.lock().await;
        Ok(self.connect(&request).await?)
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), AttachError> {
        let uid = &request.pod.uid;
        let busy = self.begin(uid);
        let _one_at_a_time = busy.lock().await;
        match self.cache.read(uid).map_err(Error::from)? {
            Some(entry) => Ok(self.disconnect(&entry).await?),
            None => Ok(()),
        }
    }

    async fn attached(&self) -> Result<Vec<PodRef>, AttachError> {
        let entries = self.cache.all().map_err(Error::from)?;
        Ok(entries.into_iter().map(|entry| entry.pod).collect())
    }

    async fn ready(&self) -> Result<(), AttachError> {
        self.look().await?;
        match &self.services {
            Some(services) => services.ready().await,
            None => Ok(()),
        }
    }

    async fn metrics(&self) -> Result<String, AttachError> {
        match &self.services {
            Some(services) => services.metrics().await,
            None => Ok(String::new()),
        }
    }
}

/// The addresses of a link in a namespace. Blocks.
fn addresses(netns: &Path, link: &str) -> io::Result<Vec<IpAddr>> {
    let link = link.to_owned();
    in_netns(netns, move || {
        let all = getifaddrs()?.filter(|found| found.interface_name == link);
        let addresses = all.filter_map(|found| {
            let address = found.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        Ok(addresses.collect())
    })
}

/// What the result says of the pod's own link.
fn reply(entry: &Entry) -> Result<AttachReply, Error> {
    let name = &entry.network.name;
    let result = entry.result.clone().unwrap_or_default();
    let result: Success = serde_json::from_value(result).map_err(|error| Error::Result {
        network: name.clone(),
        detail: error.to_string(),
    })?;
    let own = |at: usize| {
        let link = result.interfaces.get(at);
        link.is_none_or(|link| link.name == entry.interface && !link.sandbox.is_empty())
    };
    let ips: Vec<IpAddr> = result
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none_or(own))
        .map(|ip| ip.address.addr())
        .collect();
    if ips.is_empty() {
        return Err(Error::NoAddress(name.clone()));
    }
    let mut links = result.interfaces.iter();
    let link = links.find(|link| link.name == entry.interface && !link.sandbox.is_empty());
    Ok(AttachReply {
        ips,
        interface: entry.interface.clone(),
        mtu: link.and_then(|link| link.mtu).unwrap_or_default(),
    })
}
