//! A route: what one peer says, with one set of attributes, of any number of prefixes. Thousands
//! of prefixes share one [`Route`]; what is worked out of it is worked out once.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::forwarding::NextHops;
use crate::types::{Origin, PathAttributes};

/// A peer of this speaker, by number. [`PeerId::LOCAL`] is the speaker itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerId(pub u32);

impl PeerId {
    /// The speaker itself, as the source of what it originates.
    pub const LOCAL: PeerId = PeerId(0);
}

/// How a route came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceKind {
    /// It originates here.
    Local,
    /// From another AS.
    External,
    /// From our own AS.
    Internal,
}

/// Who a route came from, for as long as a session lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The peer.
    pub peer: PeerId,
    /// Where it stands.
    pub kind: SourceKind,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Its address.
    pub address: IpAddr,
    /// It is a client of our route reflection.
    pub client: bool,
    /// The interface behind which it is, if it is known.
    pub interface: Option<Arc<str>>,
}

/// Where to send packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gateway {
    /// Address of the next router.
    pub address: IpAddr,
    /// The interface, for link-local addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<Arc<str>>,
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.interface {
            Some(interface) => write!(f, "{}%{interface}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Why a route is not used, whatever else there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// Our AS is in its path.
    AsLoop,
    /// We originated it (ORIGINATOR_ID).
    Originator,
    /// Our cluster reflected it (CLUSTER_LIST).
    Cluster,
    /// It leaked: ONLY_TO_CUSTOMER forbids this way (RFC 9234).
    RouteLeak,
    /// No packet could be sent to its next hop.
    NextHop,
    /// The import policy refuses it, or there is none where one is required.
    Policy,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::AsLoop => "AS loop",
            Refusal::Originator => "originated here",
            Refusal::Cluster => "cluster loop",
            Refusal::RouteLeak => "route leak",
            Refusal::NextHop => "unusable next hop",
            Refusal::Policy => "policy",
        })
    }
}

/// What one peer says of any number of prefixes.
#[derive(Debug)]
pub struct Route {
    /// Never used twice.
    pub id: u64,
    /// Who says it.
    pub source: Arc<Source>,
    /// As it was received.
    pub received: Arc<PathAttributes>,
    /// As the import policy left it, or why it is not used.
    pub accepted: Result<Arc<PathAttributes>, Refusal>,
    /// Where its packets go; none for what originates here.
    pub gateway: Option<Gateway>,
    /// What selection looks at.
    pub merits: Merits,
    /// The set of next hops of which the gateway is the only one, once somebody asked for it.
    pub(super) alone: OnceLock<Arc<NextHops>>,
    /// Cost of the way to the gateway, [`UNREACHABLE`] when there is none.
    metric: AtomicU32,
}

/// The metric of a gateway that cannot be reached.
pub const UNREACHABLE: u32 = u32::MAX;

/// What selection compares (RFC 4271 section 9.1.2.2), worked out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merits {
    /// Degree of preference.
    pub local_pref: u32,
    /// Length of the AS path.
    pub hops: u32,
    /// Origin.
    pub origin: Origin,
    /// MED, if there is one.
    pub med: Option<u32>,
    /// The AS it was received from, 0 when that is ours.
    pub neighbor_as: u32,
    /// ORIGINATOR_ID, else the peer's identifier.
    pub router_id: Ipv4Addr,
    /// Length of the CLUSTER_LIST.
    pub clusters: u32,
}

/// LOCAL_PREF of a route that has none.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

// === impl Merits ===

impl Merits {
    /// What counts of a set of attributes.
    pub fn of(attributes: &PathAttributes, source: &Source) -> Self {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Merits {
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            hops: count(attributes.as_path.hops()),
            origin: attributes.origin,
            med: attributes.med,
            neighbor_as: attributes.as_path.first().unwrap_or(0),
            router_id: attributes.originator_id.unwrap_or(source.router_id),
            clusters: count(attributes.cluster_list.len()),
        }
    }
}

// === impl Route ===

impl Route {
    /// The attributes to show: as accepted, else as received.
    pub fn attributes(&self) -> &Arc<PathAttributes> {
        self.accepted.as_ref().unwrap_or(&self.received)
    }

    /// Cost of the way to the gateway.
    pub fn metric(&self) -> u32 {
        self.metric.load(Ordering::Relaxed)
    }

    /// Takes note of the cost of the way to the gateway; whether that is news.
    pub fn set_metric(&self, metric: u32) -> bool {
        self.metric.swap(metric, Ordering::Relaxed) != metric
    }

    /// Whether the route can be used at all.
    pub fn eligible(&self) -> bool {
        self.accepted.is_ok() && self.metric() != UNREACHABLE
    }
}

/// Routes that are in use, so that equal ones are one.
#[derive(Debug, Default)]
pub struct Routes {
    known: HashMap<Key, Arc<Route>>,
    next: u64,
    sweep_at: usize,
}

/// Two routes are equal when a peer sent the same attributes and policy made the same of them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    peer: PeerId,
    received: Arc<PathAttributes>,
    accepted: Result<Arc<PathAttributes>, Refusal>,
}

/// Below this many routes it is not worth looking for unused ones.
const SWEEP_FLOOR: usize = 1024;

// === impl Routes ===

impl Routes {
    /// The one route of these values.
    pub fn intern(
        &mut self,
        source: &Arc<Source>,
        received: &Arc<PathAttributes>,
        accepted: Result<Arc<PathAttributes>, Refusal>,
        gateway: Option<Gateway>,
        metric: u32,
    ) -> Arc<Route> {
        let key = Key {
            peer: source.peer,
            received: Arc::clone(received),
            accepted,
        };
        if let Some(route) = self.known.get(&key)
            && Arc::ptr_eq(&route.source, source)
            && route.gateway == gateway
        {
            return Arc::clone(route);
        }
        self.sweep();
        self.next += 1;
        let route = Arc::new(Route {
            id: self.next,
            source: Arc::clone(source),
            received: Arc::clone(received),
            merits: Merits::of(key.accepted.as_ref().unwrap_or(received), source),
            accepted: key.accepted.clone(),
            gateway,
            alone: OnceLock::new(),
            metric: AtomicU32::new(metric),
        });
        self.known.insert(key, Arc::clone(&route));
        route
    }

    /// All routes that something refers to.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.known.values()
    }

    fn sweep(&mut self) {
        if self.known.len() < self.sweep_at.max(SWEEP_FLOOR) {
            return;
        }
        self.known.retain(|_, route| Arc::strong_count(route) > 1);
        self.sweep_at = self.known.len() * 2;
    }
}
