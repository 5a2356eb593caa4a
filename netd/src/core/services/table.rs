//! The table of services: takes each change of the API, tells what changes in the map.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use peapod_api::attach::Protocol;

use super::{Backends, Balance, Dispatch, Frontend, keep_order};
use crate::core::facts::{PortFacts, ServiceFacts, ServiceKey, SliceFacts};

/// The port of DNS.
const DNS_PORT: u16 = 53;

/// A frontend that must change in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub frontend: Frontend,
    /// What it was; `None` when it is new.
    pub from: Option<Dispatch>,
    /// What it shall be; `None` when it goes.
    pub to: Option<Dispatch>,
}

/// Services, their endpoints, and the map that follows from them.
#[derive(Debug, Default)]
pub struct ServiceTable {
    node: String,
    /// Cluster addresses that this node serves itself.
    dns: Vec<IpAddr>,
    services: BTreeMap<ServiceKey, Arc<ServiceFacts>>,
    slices: BTreeMap<ServiceKey, BTreeMap<String, Arc<SliceFacts>>>,
    /// Which service each slice was last seen with: a label may change.
    owners: BTreeMap<(String, String), ServiceKey>,
    dirty: BTreeSet<ServiceKey>,
    /// Who wants a frontend. When several do (the same external address and port), the first
    /// by name has it, so that every node decides alike.
    claims: BTreeMap<Frontend, BTreeSet<ServiceKey>>,
    claimed: BTreeMap<ServiceKey, Vec<Frontend>>,
    /// The map as it is, or will be when the last changes are applied.
    current: BTreeMap<Frontend, Dispatch>,
    /// See [`ServiceTable::leaving`].
    leaving: BTreeSet<Frontend>,
}

/// What a frontend shall be.
#[derive(Clone, Debug)]
struct Wanted {
    dispatch: Dispatch,
    leaving: bool,
}

impl ServiceTable {
    /// A table for a node. `current` is what its kernel has already; `dns` are the cluster
    /// addresses of the DNS server that runs on the node.
    pub fn new(node: &str, dns: &[IpAddr], current: BTreeMap<Frontend, Dispatch>) -> Self {
        ServiceTable {
            node: node.to_owned(),
            dns: dns.to_vec(),
            current,
            ..Self::default()
        }
    }

    /// A Service was seen, or is gone.
    pub fn set_service(&mut self, key: ServiceKey, facts: Option<Arc<ServiceFacts>>) {
        let old = match facts {
            Some(facts) if self.services.get(&key) == Some(&facts) => return,
            Some(facts) => self.services.insert(key.clone(), facts),
            None => self.services.remove(&key),
        };
        drop(old);
        self.dirty.insert(key);
    }

    /// An EndpointSlice was seen, or is gone.
    pub fn set_slice(&mut self, namespace: &str, name: &str, facts: Option<Arc<SliceFacts>>) {
        let id = (namespace.to_owned(), name.to_owned());
        let owner = facts.as_ref().map(|facts| facts.service.clone());
        let old_owner = match &owner {
            Some(owner) => self.owners.insert(id, owner.clone()),
            None => self.owners.remove(&id),
        };
        if let Some(old) = old_owner.filter(|old| Some(old) != owner.as_ref()) {
            self.remove_slice(&old, name);
        }
        let Some(facts) = facts else { return };
        let key = facts.service.clone();
        let slices = self.slices.entry(key.clone()).or_default();
        if slices.get(name) != Some(&facts) {
            slices.insert(name.to_owned(), facts);
            self.dirty.insert(key);
        }
    }

    fn remove_slice(&mut self, owner: &ServiceKey, name: &str) {
        if let Some(slices) = self.slices.get_mut(owner) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(owner);
            }
        }
        self.dirty.insert(owner.clone());
    }

    /// Forgets every service and slice that is not among these: what a fresh list says is all
    /// there is.
    pub fn retain(
        &mut self,
        services: Option<&BTreeSet<ServiceKey>>,
        slices: Option<&BTreeSet<(String, String)>>,
    ) {
        if let Some(listed) = services {
            let gone = self.services.keys().filter(|key| !listed.contains(key));
            for key in gone.cloned().collect::<Vec<_>>() {
                self.set_service(key, None);
            }
        }
        if let Some(listed) = slices {
            let gone = self.owners.keys().filter(|id| !listed.contains(id));
            for (namespace, name) in gone.cloned().collect::<Vec<_>>() {
                self.set_slice(&namespace, &name, None);
            }
        }
    }

    /// The map is not what it was thought to be: it is `current`. The next
    /// [`plan_all`](Self::plan_all) tells what differs.
    pub fn resync(&mut self, current: BTreeMap<Frontend, Dispatch>) {
        self.current = current;
    }

    /// The map as it is when all changes are applied.
    pub fn current(&self) -> &BTreeMap<Frontend, Dispatch> {
        &self.current
    }

    /// Those which lead clients outside of the cluster to endpoints of this node that are about
    /// to end, or to none. They should come to another node: here they are served as long as
    /// there is somebody to serve them, and that is not said any more.
    pub fn leaving(&self) -> &BTreeSet<Frontend> {
        &self.leaving
    }

    /// How many services there are.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// What changes by what was seen since the last plan.
    pub fn plan(&mut self) -> Vec<Change> {
        let mut affected = BTreeSet::new();
        let mut wanted = BTreeMap::new();
        for key in std::mem::take(&mut self.dirty) {
            let frontends = self.frontends(&key);
            affected.extend(self.claim(&key, frontends.keys().copied().collect()));
            wanted.insert(key, frontends);
        }
        self.settle(affected, &wanted)
    }

    /// As [`plan`](Self::plan), and whatever no service claims goes: for the first time, when
    /// `current` is what an earlier run left.
    pub fn plan_all(&mut self) -> Vec<Change> {
        self.dirty.extend(self.services.keys().cloned());
        let mut changes = self.plan();
        let stale = self.current.keys().filter(|f| !self.claims.contains_key(f));
        changes.extend(self.settle(stale.copied().collect(), &BTreeMap::new()));
        changes
    }

    /// Notes which frontends a service wants now; returns all that it wanted or wants.
    fn claim(&mut self, key: &ServiceKey, frontends: Vec<Frontend>) -> Vec<Frontend> {
        let mut affected = self.claimed.remove(key).unwrap_or_default();
        for frontend in &affected {
            if let Some(claimants) = self.claims.get_mut(frontend) {
                claimants.remove(key);
                if claimants.is_empty() {
                    self.claims.remove(frontend);
                }
            }
        }
        for frontend in &frontends {
            self.claims
                .entry(*frontend)
                .or_default()
                .insert(key.clone());
        }
        affected.extend(&frontends);
        if !frontends.is_empty() {
            self.claimed.insert(key.clone(), frontends);
        }
        affected
    }

    fn settle(
        &mut self,
        affected: BTreeSet<Frontend>,
        wanted: &BTreeMap<ServiceKey, BTreeMap<Frontend, Wanted>>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for frontend in affected {
            let winner = self.claims.get(&frontend).and_then(BTreeSet::first);
            let to = winner.and_then(|winner| match wanted.get(winner) {
                Some(frontends) => frontends.get(&frontend).cloned(),
                None => self.frontends(winner).remove(&frontend),
            });
            match to.as_ref().is_some_and(|wanted| wanted.leaving) {
                true => self.leaving.insert(frontend),
                false => self.leaving.remove(&frontend),
            };
            let to = to.map(|wanted| wanted.dispatch);
            let from = self.current.get(&frontend).cloned();
            if from == to {
                continue;
            }
            match &to {
                Some(dispatch) => self.current.insert(frontend, dispatch.clone()),
                None => self.current.remove(&frontend),
            };
            changes.push(Change { frontend, from, to });
        }
        changes
    }

    /// All frontends of a service.
    fn frontends(&self, key: &ServiceKey) -> BTreeMap<Frontend, Wanted> {
        let mut frontends = BTreeMap::new();
        let Some(service) = self.services.get(key) else {
            return frontends;
        };
        for port in &service.ports {
            for v4 in [true, false] {
                self.frontends_of_port(key, service, port, v4, &mut frontends);
            }
        }
        frontends
    }

    fn frontends_of_port(
        &self,
        key: &ServiceKey,
        service: &ServiceFacts,
        port: &PortFacts,
        v4: bool,
        frontends: &mut BTreeMap<Frontend, Wanted>,
    ) {
        if !service.has_family(v4) {
            return;
        }
        let slices = self.slices.get(key).into_iter().flat_map(BTreeMap::values);
        let backends = Backends::choose(slices.map(Arc::as_ref), port, v4, &self.node);
        let at = |ip: &IpAddr| Frontend::Address {
            ip: *ip,
            protocol: port.protocol,
            port: port.port,
        };
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == v4;
        for ip in service.cluster_ips.iter().filter(of_family) {
            let frontend = at(ip);
            let dispatch = self.internal(frontend, *ip, service, &backends);
            let leaving = false;
            frontends.insert(frontend, Wanted { dispatch, leaving });
        }
        let node_port = port.node_port.map(|port_number| Frontend::NodePort {
            v4,
            protocol: port.protocol,
            port: port_number,
        });
        let external = service.external_ips.iter().filter(of_family).map(at);
        for frontend in external.chain(node_port) {
            let dispatch = self.external(frontend, service, &backends);
            let leaving = service.external_local && backends.local_leaving;
            frontends.insert(frontend, Wanted { dispatch, leaving });
        }
    }

    fn internal(
        &self,
        frontend: Frontend,
        ip: IpAddr,
        service: &ServiceFacts,
        backends: &Backends,
    ) -> Dispatch {
        let dns = frontend.port() == DNS_PORT && frontend.protocol() != Protocol::Sctp;
        if dns && self.dns.contains(&ip) {
            return Dispatch::Here;
        }
        if backends.cluster.is_empty() {
            return Dispatch::Refuse;
        }
        let chosen = if service.internal_local {
            &backends.local
        } else {
            &backends.cluster
        };
        if chosen.is_empty() {
            return Dispatch::Drop;
        }
        Dispatch::Balance(Balance {
            endpoints: keep_order(self.old_endpoints(&frontend), chosen.clone()),
            outside: None,
            affinity_s: service.affinity_s,
        })
    }

    fn external(&self, frontend: Frontend, service: &ServiceFacts, all: &Backends) -> Dispatch {
        if all.cluster.is_empty() {
            return Dispatch::Refuse;
        }
        let old_outside = self.old(&frontend).and_then(|old| old.outside.as_deref());
        let outside = service
            .external_local
            .then(|| keep_order(old_outside.unwrap_or_default(), all.local.clone()));
        Dispatch::Balance(Balance {
            endpoints: keep_order(self.old_endpoints(&frontend), all.cluster.clone()),
            outside,
            affinity_s: service.affinity_s,
        })
    }

    fn old(&self, frontend: &Frontend) -> Option<&Balance> {
        match self.current.get(frontend) {
            Some(Dispatch::Balance(balance)) => Some(balance),
            _ => None,
        }
    }

    fn old_endpoints(&self, frontend: &Frontend) -> &[SocketAddr] {
        self.old(frontend).map_or(&[], |balance| &balance.endpoints)
    }
}
