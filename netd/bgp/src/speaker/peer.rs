//! A peer: its configuration, its state machine, its session.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::codec::Reader;
use super::message::Endpoint;
use crate::Time;
use crate::config::{Config, NeighborOptions};
use crate::fsm::{Agreement, ConnectionId, Fsm, Terms};
use crate::rib::{Egress, PeerId, Pending, Source};
use crate::types::{
    AddPath, Capability, ExtendedNextHop, Family, GracefulRestart, LongLivedFamily, Restartable,
};

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub id: PeerId,
    /// What it is called: address or interface.
    pub name: String,
    pub options: NeighborOptions,
    /// Where it is; unknown of an unnumbered one before it was heard.
    pub address: Option<IpAddr>,
    pub interface: Option<Arc<str>>,
    /// It came from a range, and goes when its session does.
    pub dynamic: bool,
    pub enabled: bool,
    pub fsm: Fsm,
    /// Its connections, as far as they have come.
    pub wires: HashMap<ConnectionId, Wire>,
    pub session: Option<Live>,
    pub families: [FamilyState; 2],
    /// Since when it is up or down.
    pub since: Time,
    /// It was up once since this speaker started.
    pub met: bool,
    pub counters: Counters,
}

/// A connection of a peer.
#[derive(Debug)]
pub(super) struct Wire {
    pub endpoint: Endpoint,
    pub reader: Reader,
}

/// An established session.
#[derive(Debug)]
pub(super) struct Live {
    pub connection: ConnectionId,
    pub source: Arc<Source>,
    pub agreement: Box<Agreement>,
    pub endpoint: Endpoint,
    pub egress: Egress,
    pub pending: [Pending; 2],
    /// Bytes of routes that were given out to be sent and have not left.
    pub outstanding: usize,
    /// MinRouteAdvertisementIntervalTimer: nothing is announced before.
    pub advertise_at: Time,
}

/// What is known of one family of a peer, session or not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FamilyState {
    /// Paths in the table.
    pub paths: u32,
    /// Stale paths go (or become long-lived stale) now.
    pub stale_until: Option<Time>,
    /// What follows when `stale_until` comes.
    pub then: AfterStale,
    /// End-of-RIB has come in this session.
    pub end_of_rib: bool,
    /// The family is out of use until the session ends (RFC 4760 section 7).
    pub disabled: bool,
    /// The operator was told that there are too many prefixes.
    pub warned: bool,
    /// The next End-of-RIB of ours ends a refresh.
    pub refreshing: bool,
}

/// What becomes of stale paths in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AfterStale {
    /// They go.
    #[default]
    Remove,
    /// They become long-lived stale, for this many seconds (RFC 9494).
    KeepFor(u32),
}

/// Counts of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub messages_in: u64,
    pub messages_out: u64,
    pub updates_in: u64,
    pub updates_out: u64,
    pub established: u64,
    pub problems: u64,
}

/// The place of a family in arrays.
pub(super) fn at(family: Family) -> usize {
    usize::from(family == Family::IPV6_UNICAST)
}

// === impl Peer ===

impl Peer {
    pub fn new(
        id: PeerId,
        name: String,
        options: NeighborOptions,
        address: Option<IpAddr>,
        interface: Option<Arc<str>>,
        config: &Config,
    ) -> Self {
        let unnumbered = address.is_none();
        let terms = terms(config, &options, unnumbered);
        Peer {
            id,
            name,
            enabled: !options.shutdown,
            options,
            address,
            interface,
            dynamic: false,
            fsm: Fsm::new(terms),
            wires: HashMap::new(),
            session: None,
            families: [FamilyState::default(); 2],
            since: Time::default(),
            met: false,
            counters: Counters::default(),
        }
    }

    /// Sets what the next OPEN says of graceful restart.
    pub fn offer_restart(&mut self, config: &Config, restarting: bool) {
        let ours = &config.graceful_restart;
        let forwarding = restarting || self.met;
        let families = self.options.wanted_families();
        self.fsm.terms.graceful_restart = ours.enabled.then(|| GracefulRestart {
            restarting,
            notification: ours.notification,
            restart_time: ours.restart_seconds.min(4095),
            families: families
                .iter()
                .map(|family| Restartable {
                    family: *family,
                    forwarding,
                })
                .collect(),
        });
        let keep = ours.enabled && ours.long_lived_seconds > 0;
        let long_lived = families.iter().map(|family| LongLivedFamily {
            family: *family,
            forwarding,
            stale_time: ours.long_lived_seconds.min((1 << 24) - 1),
        });
        self.fsm.terms.long_lived = if keep {
            long_lived.collect()
        } else {
            Vec::new()
        };
    }

    /// What depends on the session in what the peer is told.
    pub fn egress(&self, config: &Config, agreement: &Agreement) -> Egress {
        let options = &self.options;
        let external = agreement.session.external;
        let local_as = options.local_as;
        Egress {
            external,
            shown_as: local_as.map_or(config.asn, |local| local.asn),
            show_real_as: local_as.is_some_and(|local| !local.replace_as),
            client: options.route_reflector_client,
            next_hop_self: options.next_hop_self,
            override_as: options.as_override.then_some(agreement.theirs.asn()),
            remove_private_as: options.remove_private_as,
            policy: options.export.clone(),
            nothing: external && config.require_policy && options.export.is_none(),
            role: options.role.filter(|_| external),
            long_lived: !agreement.long_lived.is_empty(),
            paths: options.add_path.send.max(1),
            add_path: agreement
                .session
                .families
                .iter()
                .any(|family| family.add_path_send),
        }
    }

    /// Who its routes come from.
    pub fn source(&self, agreement: &Agreement, endpoint: &Endpoint) -> Source {
        let external = agreement.session.external;
        Source {
            peer: self.id,
            kind: if external {
                crate::rib::SourceKind::External
            } else {
                crate::rib::SourceKind::Internal
            },
            router_id: agreement.theirs.router_id,
            address: endpoint.remote,
            client: self.options.route_reflector_client,
            interface: self
                .interface
                .clone()
                .or_else(|| endpoint.interface.as_deref().map(Arc::from)),
        }
    }
}

/// What sessions with a neighbour are to be.
pub(super) fn terms(config: &Config, options: &NeighborOptions, unnumbered: bool) -> Terms {
    let timers = &options.timers;
    Terms {
        local_as: options.local_as.map_or(config.asn, |local| local.asn),
        router_id: config.router_id,
        remote_as: options.remote_as,
        hold_seconds: timers.hold_seconds,
        keepalive: timers
            .keepalive_seconds
            .map(|keep| std::time::Duration::from_secs(keep.into())),
        connect_retry: timers.connect_retry(),
        delay_open: timers.delay_open(),
        passive: options.passive,
        capabilities: capabilities(config, options, unnumbered),
        graceful_restart: None,
        long_lived: Vec::new(),
        role: options.role,
        strict_role: options.strict_role,
    }
}

fn capabilities(config: &Config, options: &NeighborOptions, unnumbered: bool) -> Vec<Capability> {
    let families = options.wanted_families();
    let mut offered: Vec<Capability> = families
        .iter()
        .copied()
        .map(Capability::MultiProtocol)
        .collect();
    offered.push(Capability::RouteRefresh);
    offered.push(Capability::EnhancedRouteRefresh);
    offered.push(Capability::ExtendedMessage);
    if (options.extended_next_hop || unnumbered) && families.contains(&Family::IPV4_UNICAST) {
        offered.push(Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Family::IPV4_UNICAST,
            next_hop_afi: Family::AFI_IPV6,
        }]));
    }
    let (send, receive) = (options.add_path.send > 0, options.add_path.receive);
    if send || receive {
        let each = families.iter().map(|family| AddPath {
            family: *family,
            send,
            receive,
        });
        offered.push(Capability::AddPath(each.collect()));
    }
    if let Some(hostname) = &config.hostname {
        offered.push(Capability::Fqdn {
            hostname: hostname.clone(),
            domain: String::new(),
        });
    }
    offered
}

/// An address that says nothing, for what originates here.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
