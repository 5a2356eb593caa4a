//! Routes come in: checked, changed by the import policy, and put into the table.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::Speaker;
use super::message::{Notice, Output};
use super::peer::{Peer, at};
use crate::config::{Config, MaxPrefixes};
use crate::fsm::{Event, Pause};
use crate::policy::{Decision, Policy};
use crate::rib::route::UNREACHABLE;
use crate::rib::{Gateway, PeerId, Refusal, Route, Source, SourceKind};
use crate::types::{
    Action, Announcement, CeaseError, Community, Family, NlriList, Notification, NotificationError,
    PathAttributes, Problem, Role, Update,
};

/// Next hops behind no neighbour whose ways are followed, at most.
const NEXT_HOPS: usize = 4096;

/// What an announcement needs of its peer, gathered once for all of its prefixes.
struct Import {
    source: Arc<Source>,
    policy: Option<Arc<Policy>>,
    refused: Option<Refusal>,
    gateway: Option<Gateway>,
    metric: u32,
    received: Arc<PathAttributes>,
    /// Routes by what the policy decided.
    routes: HashMap<Decision, Arc<Route>>,
}

impl Speaker {
    /// An UPDATE came.
    pub(super) fn update(&mut self, id: PeerId, update: Update) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.counters.updates_in += 1;
            peer.counters.problems += update.problems.len() as u64;
        }
        for problem in update.problems {
            self.problem(id, problem);
        }
        for list in &update.withdrawn {
            self.withdrawn(id, list);
        }
        for announcement in &update.announced {
            if !self.announced(id, announcement) {
                return;
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family);
        }
    }

    fn problem(&mut self, id: PeerId, problem: Problem) {
        let disabled = match problem.action {
            Action::DisableFamily(family) if family.is_supported() => Some(family),
            _ => None,
        };
        self.notice(id, Notice::Problem(problem));
        if let Some(family) = disabled {
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.families[at(family)].disabled = true;
            }
            self.remove_paths(id, family, |_| true);
        }
    }

    fn withdrawn(&mut self, id: PeerId, list: &NlriList) {
        let family = list.family();
        for nlri in list {
            let Some(slot) = self.tables[at(family)].withdraw(&nlri.prefix, id, nlri.path_id)
            else {
                continue;
            };
            if let Some(peer) = self.peers.get_mut(&id) {
                let paths = &mut peer.families[at(family)].paths;
                *paths = paths.saturating_sub(1);
            }
            self.touched(family, slot);
        }
    }

    /// Whether the session still stands after these prefixes.
    fn announced(&mut self, id: PeerId, announcement: &Announcement) -> bool {
        let family = announcement.nlri.family();
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        if peer.families[at(family)].disabled {
            return true;
        }
        let Some(mut import) = self.import(peer, &announcement.attributes, family) else {
            return false;
        };
        let (mut fresh, mut left) = (0, allowance(peer, family));
        self.resolve(import.gateway.as_ref());
        for nlri in &announcement.nlri {
            let decision = import.decide(&nlri.prefix);
            let route = match import.routes.get(&decision) {
                Some(route) => Arc::clone(route),
                None => self.route(&mut import, decision),
            };
            let (slot, new) = self.tables[at(family)].put(&nlri.prefix, nlri.path_id, route);
            self.touched(family, slot);
            if new {
                fresh += 1;
                left = left.saturating_sub(1);
                if left == 0 {
                    break;
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.families[at(family)].paths += fresh;
        }
        self.keeps_to_limit(id, family)
    }

    /// Gathers what the prefixes of an announcement have in common.
    fn import(
        &self,
        peer: &Peer,
        received: &Arc<PathAttributes>,
        family: Family,
    ) -> Option<Import> {
        let session = peer.session.as_ref()?;
        let source = Arc::clone(&session.source);
        let gateway = gateway(received, &source, family)
            .filter(|gateway| gateway.address != session.endpoint.local);
        let external = source.kind == SourceKind::External;
        let missing = external && self.config.require_policy && peer.options.import.is_none();
        let refused = refusal(received, peer, &source, &self.config)
            .or(gateway.is_none().then_some(Refusal::NextHop))
            .or(missing.then_some(Refusal::Policy));
        let policy = peer.options.import.as_ref();
        Some(Import {
            metric: gateway.as_ref().map_or(0, |gateway| self.metric(gateway)),
            // A policy that is not there refuses everything.
            policy: policy.map(|name| self.config.policies.get(name).cloned().unwrap_or_default()),
            source,
            refused,
            gateway,
            received: Arc::clone(received),
            routes: HashMap::new(),
        })
    }

    /// The route that follows from what the policy decided.
    fn route(&mut self, import: &mut Import, decision: Decision) -> Arc<Route> {
        let accepted = match import.refused {
            Some(refused) => Err(refused),
            None if !decision.accepted => Err(Refusal::Policy),
            None => Ok(self.accept(import, decision)),
        };
        let route = self.routes.intern(
            &import.source,
            &import.received,
            accepted,
            import.gateway.clone(),
            import.metric,
        );
        import.routes.insert(decision, Arc::clone(&route));
        route
    }

    /// The attributes that a route has here.
    fn accept(&self, import: &Import, decision: Decision) -> Arc<PathAttributes> {
        let mut attributes = PathAttributes::clone(&import.received);
        let peer = self.peers.get(&import.source.peer);
        let options = peer.map(|peer| &peer.options);
        if import.source.kind == SourceKind::External {
            attributes.local_pref = None;
            let remote = peer.and_then(|peer| peer.session.as_ref());
            let remote = remote.map_or(0, |session| session.agreement.theirs.asn());
            let role = options.and_then(|options| options.role);
            let upwards = matches!(
                role,
                Some(Role::Customer | Role::Peer | Role::RouteServerClient)
            );
            if upwards && attributes.only_to_customer.is_none() {
                attributes.only_to_customer = Some(remote);
            }
            if let Some(local) = options.and_then(|options| options.local_as)
                && !local.no_prepend
            {
                attributes.as_path = attributes.as_path.prepended(local.asn, 1);
            }
        }
        if let Some(policy) = &import.policy {
            policy.apply(decision, &mut attributes, self.config.asn);
        }
        if attributes
            .communities
            .contains(&Community::GRACEFUL_SHUTDOWN)
        {
            attributes.local_pref = Some(0);
        }
        if attributes == *import.received {
            return Arc::clone(&import.received);
        }
        Arc::new(attributes)
    }

    /// Works out all routes of a peer anew, because its import policy is another now.
    pub(super) fn import_again(&mut self, id: PeerId) {
        for family in Family::SUPPORTED {
            let mut imports: HashMap<u64, Import> = HashMap::new();
            for slot in 0..self.tables[at(family)].bound() {
                let table = &self.tables[at(family)];
                let Some(prefix) = table.prefix(slot) else {
                    continue;
                };
                let of_peer = |path: &&crate::rib::Path| path.peer() == id;
                let old: Vec<(u32, Arc<Route>)> = table
                    .paths(slot)
                    .iter()
                    .filter(of_peer)
                    .map(|path| (path.id, Arc::clone(&path.route)))
                    .collect();
                for (path_id, route) in old {
                    let Some(peer) = self.peers.get(&id) else {
                        return;
                    };
                    let mut import = match imports.remove(&route.id) {
                        Some(import) => import,
                        None => match self.import(peer, &route.received, family) {
                            Some(import) => import,
                            None => return,
                        },
                    };
                    let decision = import.decide(&prefix);
                    let fresh = self.route(&mut import, decision);
                    imports.insert(route.id, import);
                    self.tables[at(family)].put(&prefix, path_id, fresh);
                    self.touched(family, slot);
                }
            }
        }
    }

    /// Removes those of a peer's paths that `gone` says.
    pub(super) fn remove_paths(
        &mut self,
        id: PeerId,
        family: Family,
        gone: impl Fn(&crate::rib::Path) -> bool,
    ) {
        let mut removed = 0;
        for slot in 0..self.tables[at(family)].bound() {
            let table = &mut self.tables[at(family)];
            let count = table.remove(slot, |path| path.peer() == id && gone(path));
            if count > 0 {
                removed += count;
                self.touched(family, slot);
            }
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            let paths = &mut peer.families[at(family)].paths;
            *paths = paths.saturating_sub(u32::try_from(removed).unwrap_or(u32::MAX));
        }
    }

    /// Cost of the way to a gateway.
    pub(super) fn metric(&self, gateway: &Gateway) -> u32 {
        let down = gateway
            .interface
            .as_ref()
            .is_some_and(|on| self.links_down.contains(on));
        if down {
            return UNREACHABLE;
        }
        self.metrics.get(&gateway.address).copied().unwrap_or(0)
    }

    /// Has the way to a gateway followed that is behind no neighbour. Of too many the others count as
    /// reachable.
    fn resolve(&mut self, gateway: Option<&Gateway>) {
        let distant = gateway.filter(|gateway| gateway.interface.is_none());
        let Some(address) = distant.map(|gateway| gateway.address) else {
            return;
        };
        if self.metrics.contains_key(&address) {
            return;
        }
        if self.metrics.len() >= NEXT_HOPS {
            let routes = self
                .routes
                .iter()
                .filter(|route| Arc::strong_count(route) > 1);
            let gateways = routes.filter_map(|route| route.gateway.as_ref());
            let used: HashSet<IpAddr> = gateways.map(|gateway| gateway.address).collect();
            self.metrics.retain(|address, _| used.contains(address));
        }
        if self.metrics.len() < NEXT_HOPS {
            self.metrics.insert(address, 0);
            self.outputs.push_back(Output::Resolve { address });
        }
    }

    fn keeps_to_limit(&mut self, id: PeerId, family: Family) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let state = &mut peer.families[at(family)];
        let Some(max) = peer
            .options
            .max_prefixes
            .filter(|max| state.paths > max.limit)
        else {
            return true;
        };
        if !std::mem::replace(&mut state.warned, true) {
            self.notice(id, Notice::TooManyPrefixes(family, max.limit));
        }
        if max.warning_only {
            return true;
        }
        let why = self.hard(id, over_limit(family, max.limit));
        self.event(id, Event::End(why, restart_pause(max)));
        false
    }
}

/// How many new prefixes may come before the session is ended for it.
fn allowance(peer: &Peer, family: Family) -> u32 {
    let max = peer.options.max_prefixes.filter(|max| !max.warning_only);
    max.map_or(u32::MAX, |max| {
        max.limit
            .saturating_sub(peer.families[at(family)].paths)
            .saturating_add(1)
    })
}

fn restart_pause(max: MaxPrefixes) -> Pause {
    match max.restart_seconds {
        Some(seconds) => Pause::For(std::time::Duration::from_secs(seconds.into())),
        None => Pause::UntilStart,
    }
}

/// RFC 4486 section 4.
fn over_limit(family: Family, limit: u32) -> Notification {
    let mut data = BytesMut::with_capacity(7);
    data.put_u16(family.afi);
    data.put_u8(family.safi);
    data.put_u32(limit);
    let error = NotificationError::Cease(CeaseError::MaximumPrefixes);
    Notification::with_data(error, data)
}

/// Why a route is not used whatever policy says.
fn refusal(
    attributes: &PathAttributes,
    peer: &Peer,
    source: &Source,
    config: &Config,
) -> Option<Refusal> {
    let allowed = usize::from(peer.options.allowas_in);
    let local_as = peer.options.local_as.map(|local| local.asn);
    let loops = |asn: u32| attributes.as_path.count(asn) > allowed;
    if loops(config.asn) || local_as.is_some_and(loops) {
        return Some(Refusal::AsLoop);
    }
    if source.kind == SourceKind::Internal {
        if attributes.originator_id == Some(config.router_id) {
            return Some(Refusal::Originator);
        }
        if attributes.cluster_list.contains(&config.cluster()) {
            return Some(Refusal::Cluster);
        }
        return None;
    }
    leaked(attributes, peer).then_some(Refusal::RouteLeak)
}

/// RFC 9234 section 5, ingress.
fn leaked(attributes: &PathAttributes, peer: &Peer) -> bool {
    let Some(set_by) = attributes.only_to_customer else {
        return false;
    };
    let remote = peer
        .session
        .as_ref()
        .map(|session| session.agreement.theirs.asn());
    match peer.options.role {
        Some(Role::Provider | Role::RouteServer) => true,
        Some(Role::Peer) => Some(set_by) != remote,
        _ => false,
    }
}

/// Where the packets of a route go; none if they cannot.
fn gateway(attributes: &PathAttributes, source: &Source, family: Family) -> Option<Gateway> {
    let next_hop = attributes.next_hop.as_ref()?;
    let over_link_local = matches!(source.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if let Some(link_local) = next_hop.link_local()
        && (over_link_local || next_hop.address() == IpAddr::V6(link_local))
    {
        let interface = source.interface.clone()?;
        return Some(Gateway {
            address: link_local.into(),
            interface: Some(interface),
        });
    }
    let fits = family == Family::IPV4_UNICAST || next_hop.address().is_ipv6();
    (next_hop.is_usable() && fits).then(|| Gateway {
        address: next_hop.address(),
        // The peer itself is behind the interface that it is heard on.
        interface: source
            .interface
            .clone()
            .filter(|_| next_hop.address() == source.address),
    })
}

// === impl Import ===

impl Import {
    fn decide(&self, prefix: &ipnet::IpNet) -> Decision {
        match &self.policy {
            _ if self.refused.is_some() => Decision::REJECT,
            None => Decision::ACCEPT,
            Some(policy) => policy.decide(prefix, &self.received),
        }
    }
}
