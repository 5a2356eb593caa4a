//! Attaching pods: the order of steps, and what is remembered between them.
//!
//! The kernel holds the truth. This table is read from its links at start, and an attachment
//! counts when link, routes and maps are in place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use peapod_api::attach::{AttachReply, AttachRequest, DetachRequest, PodRef};
use tokio::sync::Notify;

use crate::core::ipam::{self, Hold, Ipam};
use crate::links::pod::{self, Connected, Wiring};
use crate::links::{self, alias};
use crate::nat::{Nat, PodPorts};
use crate::seam::CheckRequest;

/// Why a pod was not attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No address for it.
    #[error("cannot give pod {pod} an address: {source}")]
    Address {
        /// The pod, as namespace/name.
        pod: String,
        /// Why.
        source: ipam::Error,
    },
    /// Its link could not be made or removed.
    #[error("cannot {what} pod {pod}: {source}")]
    Link {
        /// `connect` or `disconnect`.
        what: &'static str,
        /// The pod, as namespace/name.
        pod: String,
        /// Why.
        source: links::Error,
    },
    /// The kernel does not show what was made.
    #[error("the network of pod {pod} is not as it was made: {faults}; attach it anew")]
    Damaged {
        /// The pod, as namespace/name.
        pod: String,
        /// What differs.
        faults: String,
    },
    /// The maps could not be changed.
    #[error("cannot change the maps for pod {pod}: {source}")]
    Maps {
        /// The pod, as namespace/name.
        pod: String,
        /// Why.
        source: peapod_nft::Error,
    },
}

/// What every link of this node has in common.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// Bytes.
    pub mtu: u32,
    /// The node's own addresses.
    pub node_ips: Vec<IpAddr>,
}

/// How long a block is still held of which nothing more is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Until its pods go.
    InUse,
    /// So long, if nothing happens.
    After(Duration),
    /// No longer.
    Free,
}

/// The pods of this node.
pub struct Pods {
    settings: LinkSettings,
    /// Of links to come, in bytes.
    mtu: AtomicU32,
    nat: Arc<Mutex<Nat>>,
    table: Mutex<Table>,
    start: Instant,
    /// An address was given back.
    released: Notify,
}

#[derive(Default)]
struct Table {
    ipam: Ipam,
    attached: BTreeMap<String, Connected>,
    /// UIDs that are being worked on: one attachment of a pod at a time.
    busy: BTreeMap<String, Arc<Mutex<()>>>,
}

impl Pods {
    /// Reads what is attached from the kernel, and clears away what was left half done.
    pub fn open(settings: LinkSettings, nat: Arc<Mutex<Nat>>) -> Result<Self, Error> {
        let link_error = |source| Error::Link {
            what: "list the links of",
            pod: "*".to_owned(),
            source,
        };
        let (connected, unfinished) = pod::list().map_err(link_error)?;
        for link in unfinished {
            tracing::info!(%link, "removing an unfinished pod link");
            pod::delete(&link).map_err(link_error)?;
        }
        let mut table = Table::default();
        let mut ips = BTreeSet::new();
        for pod in connected {
            pod.ips.iter().for_each(|&ip| {
                table.ipam.claim(ip);
                ips.insert(ip);
            });
            table.attached.insert(pod.pod.uid.clone(), pod);
        }
        nat.lock().retain_pods(&ips).map_err(|source| Error::Maps {
            pod: "*".to_owned(),
            source,
        })?;
        Ok(Pods {
            mtu: AtomicU32::new(settings.mtu),
            settings,
            nat,
            table: Mutex::new(table),
            start: Instant::now(),
            released: Notify::new(),
        })
    }

    /// The MTU of the links of pods that are attached from now on, in bytes. What earlier ones send
    /// that is too large for the way to another node is answered with the size that fits.
    pub fn set_mtu(&self, mtu: u32) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }

    /// The blocks to take addresses from, now.
    pub fn set_blocks(&self, blocks: Vec<ipnet::IpNet>) {
        let mut table = self.table.lock();
        table.ipam.set_blocks(blocks);
        // Seen before the blocks were: claim again, so that the search goes on behind them.
        let ips: Vec<IpAddr> = table
            .attached
            .values()
            .flat_map(|p| p.ips.clone())
            .collect();
        ips.into_iter().for_each(|ip| table.ipam.claim(ip));
    }

    /// From now on gives no more addresses of these blocks, and says of each how long it is still
    /// held.
    pub fn leave(&self, blocks: &[ipnet::IpNet]) -> Vec<Leaving> {
        let now = self.start.elapsed();
        let mut table = self.table.lock();
        blocks.iter().for_each(|&block| table.ipam.leave(block));
        let held = |block| match table.ipam.hold(block, now) {
            Hold::InUse => Leaving::InUse,
            Hold::Until(then) => Leaving::After(then.saturating_sub(now)),
            Hold::Free => Leaving::Free,
        };
        blocks.iter().map(held).collect()
    }

    /// A block is not to be given back.
    pub fn stay(&self, block: &ipnet::IpNet) {
        self.table.lock().ipam.stay(block);
    }

    /// Waits until an address is given back.
    pub async fn released(&self) {
        self.released.notified().await;
    }

    /// The pods that are attached.
    pub fn attached(&self) -> Vec<PodRef> {
        let table = self.table.lock();
        table.attached.values().map(|pod| pod.pod.clone()).collect()
    }

    /// How many pods are attached.
    pub fn count(&self) -> usize {
        self.table.lock().attached.len()
    }

    /// Attaches a pod; blocks for about two milliseconds.
    pub fn attach(&self, request: &AttachRequest) -> Result<AttachReply, Error> {
        let uid = &request.pod.uid;
        let busy = self.begin(uid);
        let _one_at_a_time = busy.lock();
        let earlier = self.table.lock().attached.get(uid).cloned();
        let connected = match earlier {
            Some(connected) if is_whole(&connected, request)? => connected,
            other => self.connect(request, other)?,
        };
        let ports = PodPorts {
            ips: &connected.ips,
            host_ports: &request.host_ports,
        };
        let attached = self.nat.lock().attach(&ports);
        attached.map_err(|source| Error::Maps {
            pod: display(&request.pod),
            source,
        })?;
        Ok(AttachReply {
            ips: connected.ips,
            interface: interface(request).to_owned(),
            mtu: connected.mtu,
        })
    }

    /// Connects a pod; with `earlier`, to a new namespace under its old addresses.
    fn connect(
        &self,
        request: &AttachRequest,
        earlier: Option<Connected>,
    ) -> Result<Connected, Error> {
        let link = alias::link_name(&request.pod.uid);
        let link_error = |source| Error::Link {
            what: "connect",
            pod: display(&request.pod),
            source,
        };
        let known = earlier.is_some();
        let ips = match earlier {
            Some(earlier) => earlier.ips,
            None => self.allocate(&request.pod)?,
        };
        let mtu = self.mtu.load(Ordering::Relaxed);
        let wiring = Wiring {
            pod: request.pod.clone(),
            netns: request.netns.clone(),
            interface: interface(request).to_owned(),
            ips: ips.clone(),
            mtu,
            node_ips: self.settings.node_ips.clone(),
        };
        let clear = || if known { pod::delete(&link) } else { Ok(()) };
        if let Err(source) = clear().and_then(|()| pod::connect(&wiring)) {
            self.undo(&request.pod.uid, &link, &ips);
            return Err(link_error(source));
        }
        let connected = Connected {
            pod: request.pod.clone(),
            ips,
            link,
            mtu,
        };
        let mut table = self.table.lock();
        table
            .attached
            .insert(request.pod.uid.clone(), connected.clone());
        Ok(connected)
    }

    fn allocate(&self, pod: &PodRef) -> Result<Vec<IpAddr>, Error> {
        let now = self.start.elapsed();
        let allocated = self.table.lock().ipam.allocate(now);
        allocated.map_err(|source| Error::Address {
            pod: display(pod),
            source,
        })
    }

    /// Removes what a failed attempt left, and gives its addresses back.
    fn undo(&self, uid: &str, link: &str, ips: &[IpAddr]) {
        if let Err(error) = pod::delete(link) {
            tracing::warn!(%link, %error, "an unfinished pod link stays until the next start");
        }
        let mut table = self.table.lock();
        table.attached.remove(uid);
        for &ip in ips {
            table.ipam.release(ip, self.start.elapsed());
        }
        self.released.notify_one();
    }

    /// Cuts a pod off at once. What remains is to delete its link, by
    /// [`finish_detach`](Self::finish_detach), which takes long.
    pub fn detach(&self, request: &DetachRequest) -> Result<Option<Connected>, Error> {
        let uid = &request.pod.uid;
        let busy = self.begin(uid);
        let _one_at_a_time = busy.lock();
        let Some(connected) = self.table.lock().attached.get(uid).cloned() else {
            return Ok(None);
        };
        let detached = self.nat.lock().detach(&connected.ips);
        detached.map_err(|source| Error::Maps {
            pod: display(&request.pod),
            source,
        })?;
        pod::unroute(&connected.ips).map_err(|source| Error::Link {
            what: "disconnect",
            pod: display(&request.pod),
            source,
        })?;
        self.table.lock().attached.remove(uid);
        Ok(Some(connected))
    }

    /// Deletes the link of a detached pod, then gives its addresses back. When the link does
    /// not go, its addresses stay out of use until the next start.
    pub fn finish_detach(&self, gone: &Connected) {
        if let Err(error) = pod::delete(&gone.link) {
            tracing::warn!(link = %gone.link, %error, "cannot delete a pod's link");
            return;
        }
        let mut table = self.table.lock();
        for &ip in &gone.ips {
            table.ipam.release(ip, self.start.elapsed());
        }
        self.released.notify_one();
    }

    /// Compares an attachment with the kernel: its link between the node and its namespace, its
    /// addresses, the routes at both ends.
    pub fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        let CheckRequest { attach, ips } = request;
        let damaged = |faults: Vec<String>| Error::Damaged {
            pod: display(&attach.pod),
            faults: faults.join("; "),
        };
        let known = self.table.lock().attached.get(&attach.pod.uid).cloned();
        let Some(connected) = known else {
            return Err(damaged(vec!["it is not attached".to_owned()]));
        };
        let mut faults = Vec::new();
        for ip in ips.iter().filter(|ip| !connected.ips.contains(ip)) {
            faults.push(format!("address {ip} is not its own"));
        }
        let found = pod::faults(&attach.netns, interface(attach), &connected);
        faults.extend(found.map_err(|source| Error::Link {
            what: "look at the link of",
            pod: display(&attach.pod),
            source,
        })?);
        match faults.is_empty() {
            true => Ok(()),
            false => Err(damaged(faults)),
        }
    }

    fn begin(&self, uid: &str) -> Arc<Mutex<()>> {
        let mut table = self.table.lock();
        // Whoever holds a lock holds a second reference to it.
        table.busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        table.busy.entry(uid.to_owned()).or_default().clone()
    }
}

/// Whether the pod's link is in place, between the node and this very namespace.
fn is_whole(connected: &Connected, request: &AttachRequest) -> Result<bool, Error> {
    pod::is_in(&request.netns, &connected.pod, interface(request)).map_err(|source| Error::Link {
        what: "look at the link of",
        pod: display(&request.pod),
        source,
    })
}

fn interface(request: &AttachRequest) -> &str {
    request.interface.as_deref().unwrap_or(pod::INTERFACE)
}

fn display(pod: &PodRef) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
