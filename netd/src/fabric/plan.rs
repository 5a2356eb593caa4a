//! Which router a node should be. Pure.

mod identity;
mod neighbor;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use peapod_api::labels::{DRAIN_ALL, DRAIN_GRACEFUL, DRAIN_HANDOVER, DRAIN_SERVICES};
use peapod_api::net::{BgpConfigSpec, BgpGracefulRestart, BgpPeerSpec};
use peapod_api::selector::Selector;
use peapod_bgp::config::GracefulRestart;
use peapod_router::RouterConfig;

use self::identity::{asn, router_id};
use self::neighbor::{neighbor, policies_of, protect};
use super::balancers::Balancers;
use super::secrets::Secrets;
use super::{Announced, policy};

/// The name of the export policy of neighbours that have none of their own.
const OWN: &str = "own-routes";
/// How the names of the policies of one peer begin.
const IMPORT: &str = "import-";
const EXPORT: &str = "export-";

/// How far the node has left the fabric (see [`peapod_api::labels::DRAIN`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// Not at all.
    #[default]
    None,
    /// Others get ready to hand over what the fabric will lead to them.
    Handover,
    /// Others are preferred.
    Graceful,
    /// Services are withdrawn too.
    Services,
    /// Pods' addresses are.
    All,
}

// === impl Drain ===

impl Drain {
    /// As the node's annotation says it.
    pub fn read(annotation: Option<&str>) -> Self {
        match annotation {
            Some(DRAIN_HANDOVER) => Self::Handover,
            Some(DRAIN_GRACEFUL) => Self::Graceful,
            Some(DRAIN_SERVICES) => Self::Services,
            Some(DRAIN_ALL) => Self::All,
            _ => Self::None,
        }
    }

    /// The annotation that says it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Handover => Some(DRAIN_HANDOVER),
            Self::Graceful => Some(DRAIN_GRACEFUL),
            Self::Services => Some(DRAIN_SERVICES),
            Self::All => Some(DRAIN_ALL),
        }
    }
}

/// What the router follows from.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The node's name.
    pub node: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its own addresses.
    pub ips: Vec<IpAddr>,
    /// How far it has left.
    pub drain: Drain,
    /// The BGP Identifier that it asks for itself.
    pub router_id: Option<String>,
    /// The cluster's ranges of pod addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// What holds for all nodes.
    pub config: BgpConfigSpec,
    /// All neighbours that any node has, by the name of their object.
    pub peers: BTreeMap<String, BgpPeerSpec>,
    /// The Secrets that they name.
    pub secrets: Secrets,
    /// What the node could announce.
    pub announced: Announced,
    /// Which nodes announce load balancers' addresses.
    pub balancers: Balancers,
    /// Where the router is to be looked at.
    pub control_socket: Option<PathBuf>,
}

/// The router that a node should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The router.
    pub router: RouterConfig,
    /// How far the node has left with it.
    pub drain: Drain,
    /// The `BgpPeer` of each of its neighbours, by the neighbour's name.
    pub peers: BTreeMap<String, String>,
    /// Why there may be no session with a neighbour, by the neighbour's name.
    pub faults: BTreeMap<String, String>,
    /// Whether the neighbours are told where this node's pods are.
    pub announces_blocks: bool,
}

/// Why there is no router.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The AS plan says nothing of the node's rack.
    #[error(
        "no AS for this node: it is in rack {0:?}, of which BgpConfig spec.asPlan.perRack.racks \
         says nothing"
    )]
    Rack(String),
    /// The AS plan counts by block, and the node has none.
    #[error("no AS for this node yet: it holds no block of pod addresses")]
    NoBlock,
    /// The AS plan runs beyond the highest AS.
    #[error("no AS for this node: BgpConfig spec.asPlan.perNode.from leaves too little room")]
    TooHigh,
    /// The node has no IPv4 address to be its BGP Identifier.
    #[error(
        "no BGP Identifier: the node has no IPv4 InternalIP; say BgpConfig spec.routerId: NodeName, or \
         annotate the node with net.peapod.dev/router-id"
    )]
    NoIdentifier,
    /// The node's annotation is none.
    #[error(
        "no BGP Identifier: the node's annotation net.peapod.dev/router-id, {0:?}, is no IPv4 address"
    )]
    Identifier(String),
    /// What announcements are to carry cannot be read.
    #[error("BgpConfig spec.announce.communities: {0}")]
    Communities(String),
    /// The API let something pass that makes no sense.
    #[error("BgpPeer {peer}: {why}")]
    Peer {
        /// The object.
        peer: String,
        /// What is wrong.
        why: String,
    },
}

/// The router; none for a node that no peer selects.
///
/// # Errors
/// [`Fault`] says what is missing, and where.
pub fn plan(facts: &Facts) -> Result<Option<Plan>, Fault> {
    let mut peers = BTreeMap::new();
    let mut faults = BTreeMap::new();
    let mut policies = BTreeMap::new();
    let mut neighbors = Vec::new();
    let tags = &facts.config.announce.communities;
    for (name, spec) in &facts.peers {
        let fault = |why: String| Fault::Peer {
            peer: name.clone(),
            why,
        };
        if !selects(spec, &facts.labels).map_err(fault)? {
            continue;
        }
        let mut neighbor = neighbor(spec, &facts.config.as_plan).map_err(fault)?;
        // Of two objects that name one neighbour the first by name has it.
        let Entry::Vacant(place) = peers.entry(neighbor.name()) else {
            continue;
        };
        place.insert(name.clone());
        for (name, policy) in policies_of(name, spec, tags).map_err(fault)? {
            let place = match name.starts_with(IMPORT) {
                true => &mut neighbor.options.import,
                false => &mut neighbor.options.export,
            };
            *place = Some(name.clone());
            policies.insert(name, Arc::new(policy));
        }
        if let Err(why) = protect(&mut neighbor.options, spec, &facts.secrets) {
            faults.insert(neighbor.name(), why);
        }
        neighbors.push(neighbor);
    }
    if neighbors.is_empty() {
        return Ok(None);
    }
    let mut router = RouterConfig::new(asn(facts)?, router_id(facts)?);
    router.neighbors = neighbors;
    let own = policy::export(None, tags).map_err(Fault::Communities)?;
    policies.insert(OWN.to_owned(), Arc::new(own));
    router.policies = policies;
    router.announce = announce(facts);
    router.install = true;
    // Not an address that only stands on `lo`, such as that of the cluster's DNS.
    router.sources = facts.ips.clone();
    router.multipath = facts.config.multipath.unwrap_or(router.multipath);
    router.graceful_restart = graceful_restart(facts.config.graceful_restart.as_ref());
    router.graceful_shutdown = facts.drain >= Drain::Graceful;
    router.hostname = Some(facts.node.clone());
    router.control_socket = facts.control_socket.clone();
    Ok(Some(Plan {
        router,
        drain: facts.drain,
        peers,
        faults,
        announces_blocks: facts.config.announce.pod_cidrs && facts.drain < Drain::All,
    }))
}

/// Whether a peer is one of a node with these labels.
///
/// # Errors
/// If its selector cannot be read.
pub fn selects(spec: &BgpPeerSpec, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let Some(selector) = &spec.node_selector else {
        return Ok(true);
    };
    let selector = Selector::from_label_selector(selector).map_err(|error| error.to_string())?;
    Ok(selector.matches(labels))
}

/// Blocks as one route each; addresses of services and of the node as host routes.
fn announce(facts: &Facts) -> Vec<IpNet> {
    let (wanted, have) = (&facts.config.announce, &facts.announced);
    let mut prefixes = BTreeSet::new();
    if wanted.pod_cidrs && facts.drain < Drain::All {
        prefixes.extend(have.blocks.iter().map(IpNet::trunc));
    }
    if facts.drain < Drain::Services {
        let mine = |ip: &&IpAddr| facts.balancers.announces(&facts.labels, **ip);
        let external = have
            .external
            .iter()
            .filter(|_| wanted.services)
            .filter(mine);
        let cluster = have.cluster.iter().filter(|_| wanted.cluster_ips);
        prefixes.extend(external.chain(cluster).map(|&ip| IpNet::from(ip)));
    }
    let own = facts.ips.iter().filter(|_| wanted.node_ips);
    prefixes.extend(own.map(|&ip| IpNet::from(ip)));
    prefixes.into_iter().collect()
}

fn graceful_restart(given: Option<&BgpGracefulRestart>) -> GracefulRestart {
    let usual = GracefulRestart::default();
    let Some(given) = given else {
        return usual;
    };
    GracefulRestart {
        enabled: given.enabled.unwrap_or(usual.enabled),
        restart_seconds: given.restart_seconds.unwrap_or(usual.restart_seconds),
        stale_path_seconds: given.stale_path_seconds.unwrap_or(usual.stale_path_seconds),
        long_lived_seconds: given.long_lived_seconds.unwrap_or(usual.long_lived_seconds),
        ..usual
    }
}
