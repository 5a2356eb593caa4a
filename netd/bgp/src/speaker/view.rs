//! What people and programs are shown of a speaker.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Speaker;
use super::peer::{Peer, at};
use crate::fsm::State;
use crate::rib::select::explain;
use crate::rib::{Choice, Freshness, Gateway, Path, PeerId, Slot};
use crate::types::{Capability, Family, PathAttributes};

/// A peer, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerView {
    /// What it is called: address or interface.
    pub name: String,
    /// Its number.
    pub id: PeerId,
    /// Where it is, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The interface behind which it is, when that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its AS: of the session, else as configured.
    pub remote_as: String,
    /// Its identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// The name that it tells of itself (draft-walton-bgp-hostname-capability).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Its state.
    pub state: State,
    /// Seconds since the session came up or went down.
    pub since_seconds: u64,
    /// How often the session came up.
    pub established: u64,
    /// Why the last session, or attempt, ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Hold time agreed, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u16>,
    /// Messages received and sent.
    pub messages: [u64; 2],
    /// UPDATEs received and sent.
    #[serde(default)]
    pub updates: [u64; 2],
    /// UPDATEs that were wrong (RFC 7606).
    pub problems: u64,
    /// Its families.
    pub families: Vec<FamilyView>,
}

/// A family of a peer, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyView {
    /// The family.
    pub family: String,
    /// Paths received.
    pub received: u32,
    /// Those of them that were not refused.
    #[serde(default)]
    pub accepted: u32,
    /// Prefixes announced to it.
    pub advertised: u32,
    /// It has sent everything.
    pub end_of_rib: bool,
}

/// A prefix and its paths, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// The prefix.
    pub prefix: IpNet,
    /// Where its packets go.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub next_hops: Vec<Gateway>,
    /// Seconds since they go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<u32>,
    /// Its paths, the best first.
    pub paths: Vec<PathView>,
}

/// A path, as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// The peer that it is from (or to), `local` for our own.
    pub peer: String,
    /// Path identifier.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub path_id: u32,
    /// What selection made of it.
    pub choice: Choice,
    /// Why it won, or at which step it lost.
    pub reason: String,
    /// Whether the peer still says so.
    pub freshness: Freshness,
    /// Next hop as received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// AS path.
    pub as_path: String,
    /// `igp`, `egp` or `incomplete`.
    pub origin: String,
    /// LOCAL_PREF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// MED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities of all kinds.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub communities: Vec<String>,
}

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The interface behind which it is, when that is known.
    pub interface: Option<&'a str>,
}

/// Which routes to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All, with all their paths.
    All,
    /// What a peer has sent, refused routes too.
    Received(PeerId),
    /// What a peer is told.
    Advertised(PeerId),
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

// === impl Speaker ===

impl Speaker {
    /// Whether there is a session with the peer at an address.
    pub fn established_at(&self, address: IpAddr) -> bool {
        let mut peers = self.peers.values();
        peers.any(|peer| peer.address == Some(address) && peer.session.is_some())
    }

    /// All peers.
    pub fn peers(&self) -> Vec<PeerView> {
        self.peers
            .values()
            .map(|peer| self.peer_view(peer))
            .collect()
    }

    /// Where the peers are whose addresses are known.
    pub fn locations(&self) -> impl Iterator<Item = Location<'_>> {
        self.peers.values().filter_map(|peer| {
            Some(Location {
                address: peer.address?,
                interface: peer.interface.as_deref(),
            })
        })
    }

    /// The peer of a name: its address or its interface.
    pub fn peer_named(&self, name: &str) -> Option<PeerId> {
        let address: Option<IpAddr> = name.parse().ok();
        let found = self
            .peers
            .values()
            .find(|peer| peer.name == name || (address.is_some() && peer.address == address));
        found.map(|peer| peer.id)
    }

    /// What a peer is called.
    pub fn peer_name(&self, id: PeerId) -> &str {
        match self.peers.get(&id) {
            Some(peer) => &peer.name,
            None => "local",
        }
    }

    /// How a peer is configured.
    pub fn peer_options(&self, id: PeerId) -> Option<&crate::config::NeighborOptions> {
        self.peers.get(&id).map(|peer| &peer.options)
    }

    /// The interface behind which a peer is, when that is known.
    pub fn peer_interface(&self, id: PeerId) -> Option<&str> {
        self.peers.get(&id)?.interface.as_deref()
    }

    /// The unnumbered peers, with their interfaces.
    pub fn unnumbered(&self) -> impl Iterator<Item = (PeerId, &str)> {
        let neighbors = self
            .config
            .neighbors
            .iter()
            .filter(|neighbor| neighbor.unnumbered());
        neighbors.filter_map(|neighbor| {
            let interface = neighbor.interface.as_deref()?;
            Some((self.peer_named(interface)?, interface))
        })
    }

    /// The ends of a peer's session.
    pub fn peer_endpoint(&self, id: PeerId) -> Option<&super::Endpoint> {
        self.peers
            .get(&id)?
            .session
            .as_ref()
            .map(|session| &session.endpoint)
    }

    /// The options of whoever connects over this connection; none if nobody may.
    pub fn options_at(
        &self,
        endpoint: &super::Endpoint,
    ) -> Option<&crate::config::NeighborOptions> {
        let listed = self.peer_at(endpoint).and_then(|id| self.peer_options(id));
        let range = || self.range_of(endpoint.remote).map(|range| &range.options);
        listed.or_else(range)
    }

    /// How many prefixes of a family there are.
    pub fn prefixes(&self, family: Family) -> usize {
        self.tables[at(family)].len()
    }

    /// The routes of a family, in no order: those of `scope`, from a slot on, at most `limit`.
    /// With the slot at which to go on, if there is more.
    pub fn routes_page(
        &self,
        family: Family,
        scope: Scope,
        from: Slot,
        limit: usize,
    ) -> (Vec<RouteView>, Option<Slot>) {
        let bound = self.tables[at(family)].bound();
        let mut views = Vec::new();
        for slot in from..bound {
            if views.len() >= limit {
                return (views, Some(slot));
            }
            views.extend(match scope {
                Scope::All => self.route_view(family, slot, |_| true),
                Scope::Received(peer) => self.route_view(family, slot, |path| path.peer() == peer),
                Scope::Advertised(peer) => self.told_view(peer, family, slot),
            });
        }
        (views, None)
    }

    /// All routes of `scope`, of all families, in order.
    pub fn routes(&self, scope: Scope) -> Vec<RouteView> {
        let families = Family::SUPPORTED.into_iter();
        let mut views: Vec<RouteView> = families
            .flat_map(|family| self.routes_page(family, scope, 0, usize::MAX).0)
            .collect();
        views.sort_by_key(|view| view.prefix);
        views
    }

    /// Whether selection waits for the peers after a restart of ours.
    pub fn deferring(&self) -> bool {
        self.deferral.is_some()
    }

    /// Where the packets of each prefix go, in no order: what a forwarding table should have.
    pub fn forwarding(
        &self,
        family: Family,
    ) -> impl Iterator<Item = (IpNet, &Arc<crate::rib::NextHops>)> + '_ {
        let table = &self.tables[at(family)];
        (0..table.bound()).filter_map(|slot| Some((table.prefix(slot)?, table.forwarding(slot)?.0)))
    }

    fn peer_view(&self, peer: &Peer) -> PeerView {
        let session = peer.session.as_ref();
        let agreement = session.map(|session| &session.agreement);
        let families = agreement.map(|agreed| agreed.session.families.iter());
        PeerView {
            name: peer.name.clone(),
            id: peer.id,
            address: peer.address,
            interface: peer.interface.as_deref().map(str::to_owned),
            description: peer.options.description.clone(),
            remote_as: agreement.map_or_else(
                || peer.options.remote_as.to_string(),
                |agreement| agreement.theirs.asn().to_string(),
            ),
            router_id: agreement.map(|agreement| agreement.theirs.router_id),
            hostname: agreement.and_then(|agreement| {
                let told = agreement.theirs.capabilities.iter();
                let mut names = told.filter_map(|capability| match capability {
                    Capability::Fqdn { hostname, .. } if !hostname.is_empty() => Some(hostname),
                    _ => None,
                });
                names.next().cloned()
            }),
            state: peer.fsm.state(),
            since_seconds: (self.now - peer.since).as_secs(),
            established: peer.counters.established,
            last_error: peer.fsm.last_end().map(ToString::to_string),
            hold_seconds: agreement.map(|agreement| agreement.hold_seconds),
            messages: [peer.counters.messages_in, peer.counters.messages_out],
            updates: [peer.counters.updates_in, peer.counters.updates_out],
            problems: peer.counters.problems,
            families: families
                .into_iter()
                .flatten()
                .map(|family| self.family_view(peer, family.family))
                .collect(),
        }
    }

    /// How many paths of a peer were not refused.
    fn paths_taken(&self, peer: PeerId, family: Family, bound: Slot) -> usize {
        let table = &self.tables[at(family)];
        let paths = (0..bound).flat_map(|slot| table.paths(slot));
        paths
            .filter(|path| path.route.source.peer == peer && path.route.accepted.is_ok())
            .count()
    }

    fn family_view(&self, peer: &Peer, family: Family) -> FamilyView {
        let state = &peer.families[at(family)];
        let group = peer.session.as_ref().and_then(|session| {
            self.groups
                .iter()
                .find(|group| group.egress == session.egress)
        });
        let bound = self.tables[at(family)].bound();
        let told = group.map_or(0, |group| {
            (0..bound)
                .filter(|slot| group.target(family, *slot).tells(peer.id))
                .count()
        });
        let accepted = match state.paths {
            0 => 0,
            _ => self.paths_taken(peer.id, family, bound),
        };
        FamilyView {
            family: family.to_string(),
            received: state.paths,
            accepted: u32::try_from(accepted).unwrap_or(u32::MAX),
            advertised: u32::try_from(told).unwrap_or(u32::MAX),
            end_of_rib: state.end_of_rib,
        }
    }

    fn route_view(
        &self,
        family: Family,
        slot: Slot,
        wanted: impl Fn(&Path) -> bool,
    ) -> Option<RouteView> {
        let table = &self.tables[at(family)];
        let prefix = table.prefix(slot)?;
        let paths = table.paths(slot);
        let verdict = explain(paths, &self.config.selection);
        let shown = paths.iter().enumerate().filter(|(_, path)| wanted(path));
        let mut views: Vec<PathView> = shown
            .map(|(nth, path)| {
                let refused = path.route.accepted.as_ref().err().map(ToString::to_string);
                let reason = refused.unwrap_or_else(|| verdict.lost_at[nth].to_string());
                PathView {
                    path_id: path.id,
                    choice: path.choice,
                    reason,
                    freshness: path.freshness,
                    ..describe(self.peer_name(path.peer()), path.route.attributes())
                }
            })
            .collect();
        views.sort_by_key(|view| view.choice.rank());
        let forwarding = table.forwarding(slot);
        (!views.is_empty()).then(|| RouteView {
            prefix,
            next_hops: forwarding.map_or(Vec::new(), |(next_hops, _)| next_hops.to_vec()),
            since_seconds: forwarding.map(|(_, since)| self.now.seconds().saturating_sub(since)),
            paths: views,
        })
    }

    fn told_view(&self, peer: PeerId, family: Family, slot: Slot) -> Option<RouteView> {
        let session = self.peers.get(&peer)?.session.as_ref()?;
        let group = self
            .groups
            .iter()
            .find(|group| group.egress == session.egress)?;
        let prefix = self.tables[at(family)].prefix(slot)?;
        let told = group.target(family, slot).for_peer(peer);
        let views: Vec<PathView> = told
            .into_iter()
            .map(|(path_id, route)| PathView {
                path_id,
                ..describe(self.peer_name(route.source), &route.attributes)
            })
            .collect();
        (!views.is_empty()).then(|| RouteView {
            prefix,
            next_hops: Vec::new(),
            since_seconds: None,
            paths: views,
        })
    }
}

fn describe(peer: &str, attributes: &PathAttributes) -> PathView {
    let standard = attributes.communities.iter().map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    let extended = attributes.ext_communities.iter().map(ToString::to_string);
    PathView {
        peer: peer.to_owned(),
        path_id: 0,
        choice: Choice::Best,
        reason: String::new(),
        freshness: Freshness::Fresh,
        next_hop: attributes.next_hop.as_ref().map(ToString::to_string),
        as_path: attributes.as_path.to_string(),
        origin: format!("{:?}", attributes.origin).to_lowercase(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: standard.chain(large).chain(extended).collect(),
    }
}
