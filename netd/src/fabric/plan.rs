//! Which router a node should be. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use peapod_api::labels::{DRAIN_ALL, DRAIN_GRACEFUL, DRAIN_HANDOVER, DRAIN_SERVICES, RACK};
use peapod_api::net::{
    AsPlan, BgpConfigSpec, BgpGracefulRestart, BgpPeerAs, BgpPeerSpec, BgpRouterId, DEFAULT_ASN,
};
use peapod_api::selector::Selector;
use peapod_bgp::config::{
    AddPath, Bfd, GracefulRestart, LocalAs, MaxPrefixes, Neighbor, NeighborOptions, RemoteAs,
    Timers,
};
use peapod_bgp::policy::Policy;
use peapod_bgp::types::{Family, Role};
use peapod_router::RouterConfig;

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

/// Without the password that is wanted there is no session at all.
fn protect(
    options: &mut NeighborOptions,
    spec: &BgpPeerSpec,
    secrets: &Secrets,
) -> Result<(), String> {
    let Some(auth) = &spec.auth else {
        return Ok(());
    };
    let password = secrets.password(&auth.secret_ref);
    options.shutdown = password.is_err();
    options.password = Some(password?);
    Ok(())
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

fn asn(facts: &Facts) -> Result<u32, Fault> {
    let plan = &facts.config.as_plan;
    if let Some(per_node) = &plan.per_node {
        let index = block_index(facts).ok_or(Fault::NoBlock)?;
        let asn = u32::try_from(u128::from(per_node.from) + index);
        return asn.map_err(|_| Fault::TooHigh);
    }
    if let Some(per_rack) = &plan.per_rack {
        let rack = facts.labels.get(RACK).cloned().unwrap_or_default();
        let asn = per_rack.racks.get(&rack).copied();
        return asn.ok_or(Fault::Rack(rack));
    }
    let shared = plan.shared.as_ref().map(|shared| shared.asn);
    Ok(shared.unwrap_or(DEFAULT_ASN))
}

/// The number of the node's first block in its range.
fn block_index(facts: &Facts) -> Option<u128> {
    let block = facts.announced.blocks.first()?;
    let range = facts.pod_cidrs.iter().find(|range| range.contains(block))?;
    let number = |net: &IpNet| match net.network() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let host_bits = u32::from(block.max_prefix_len() - block.prefix_len());
    (number(block) - number(range)).checked_shr(host_bits)
}

fn router_id(facts: &Facts) -> Result<Ipv4Addr, Fault> {
    if let Some(text) = &facts.router_id {
        let asked: Option<Ipv4Addr> = text.parse().ok();
        let sound = asked.filter(|id| !id.is_unspecified());
        return sound.ok_or_else(|| Fault::Identifier(text.clone()));
    }
    let v4 = facts.ips.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    match facts.config.router_id {
        None | Some(BgpRouterId::NodeIp) => v4.ok_or(Fault::NoIdentifier),
        Some(BgpRouterId::NodeName) => Ok(made_of(&facts.node)),
    }
}

/// An identifier made of a name (32-bit FNV-1a), never 0.
fn made_of(name: &str) -> Ipv4Addr {
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, mix);
    Ipv4Addr::from_bits(hash.max(1))
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

/// The policies of one peer, by name.
fn policies_of(
    peer: &str,
    spec: &BgpPeerSpec,
    tags: &[String],
) -> Result<Vec<(String, Policy)>, String> {
    let named = |direction: &str, policy: Result<Policy, String>| match policy {
        Ok(policy) => Ok((format!("{direction}{peer}"), policy)),
        Err(why) => Err(format!("spec.{}: {why}", direction.trim_end_matches('-'))),
    };
    let import = spec.import.as_ref().map(policy::import);
    let export = spec.export.as_ref();
    let export = export.map(|given| policy::export(Some(given), tags));
    let import = import.map(|policy| named(IMPORT, policy));
    let export = export.map(|policy| named(EXPORT, policy));
    import.into_iter().chain(export).collect()
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

fn neighbor(spec: &BgpPeerSpec, plan: &AsPlan) -> Result<Neighbor, String> {
    let remote_as = match &spec.remote_as {
        BgpPeerAs::Number(number) => RemoteAs::Number(*number),
        BgpPeerAs::Text(text) => match text.as_str() {
            "external" => RemoteAs::External,
            "internal" => RemoteAs::Internal,
            other => RemoteAs::Number(other.parse().map_err(|_| format!("{other:?} is no AS"))?),
        },
    };
    let address = spec.address.as_ref().map(|text| {
        let parsed = text.parse::<IpAddr>();
        parsed.map_err(|_| format!("{text:?} is no address"))
    });
    Ok(Neighbor {
        address: address.transpose()?,
        interface: spec.interface.clone(),
        options: options(spec, remote_as, plan)?,
    })
}

fn options(
    spec: &BgpPeerSpec,
    remote_as: RemoteAs,
    plan: &AsPlan,
) -> Result<NeighborOptions, String> {
    let mut options = NeighborOptions::new(remote_as);
    options.port = spec.port.unwrap_or(options.port);
    options.passive = spec.passive;
    options.ttl_security = spec.ttl_security;
    options.multihop = spec.multihop;
    options.bfd = spec.bfd.as_ref().map(|given| {
        let usual = Bfd::default();
        Bfd {
            interval_ms: given.interval_ms.unwrap_or(usual.interval_ms),
            multiplier: given.multiplier.unwrap_or(usual.multiplier),
        }
    });
    if let Some(given) = &spec.timers {
        let usual = Timers::default();
        options.timers = Timers {
            hold_seconds: given.hold_seconds.unwrap_or(usual.hold_seconds),
            keepalive_seconds: given.keepalive_seconds,
            connect_retry_seconds: given
                .connect_retry_seconds
                .unwrap_or(usual.connect_retry_seconds),
            ..usual
        };
    }
    options.max_prefixes = spec.max_prefixes.map(|limit| MaxPrefixes {
        limit,
        restart_seconds: None,
        warning_only: false,
    });
    for name in &spec.families {
        let known = Family::SUPPORTED.into_iter();
        let family = known.clone().find(|family| family.to_string() == *name);
        options
            .families
            .push(family.ok_or_else(|| format!("{name:?} is no address family"))?);
    }
    options.export = Some(OWN.to_owned());
    // Other nodes of our own AS are behind the neighbour.
    let shared = plan.per_node.is_none();
    options.allowas_in = spec.allowas_in.unwrap_or(shared.into());
    options.local_as = spec.local_as.as_ref().map(|given| LocalAs {
        asn: given.asn,
        no_prepend: given.no_prepend,
        replace_as: given.replace_as,
    });
    options.role = spec.role.as_deref().map(role).transpose()?;
    options.strict_role = spec.strict_role;
    options.add_path = AddPath {
        receive: spec.add_path.as_ref().is_some_and(|given| given.receive),
        send: 0,
    };
    Ok(options)
}

fn role(name: &str) -> Result<Role, String> {
    let known = Role::REGISTERED
        .iter()
        .find(|role| role.to_string() == name);
    known.copied().ok_or_else(|| format!("{name:?} is no role"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(config: serde_json::Value, peers: serde_json::Value) -> Facts {
        Facts {
            node: "n1".to_owned(),
            labels: BTreeMap::from([(RACK.to_owned(), "a".to_owned())]),
            ips: vec!["192.0.2.1".parse().unwrap()],
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            config: serde_json::from_value(config).unwrap(),
            peers: serde_json::from_value(peers).unwrap(),
            announced: Announced {
                blocks: vec!["10.244.5.0/24".parse().unwrap()],
                external: BTreeSet::from(["203.0.113.7".parse().unwrap()]),
                cluster: BTreeSet::from(["10.96.0.9".parse().unwrap()]),
            },
            ..Facts::default()
        }
    }

    fn leaf() -> serde_json::Value {
        json!({"leaf": {"interface": "eth1", "remoteAs": "external"}})
    }

    fn announced(facts: &Facts) -> Vec<String> {
        let plan = plan(facts).unwrap().unwrap();
        plan.router.announce.iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn as_plans() {
        let asn = |config| plan(&facts(config, leaf())).map(|plan| plan.unwrap().router.asn);
        assert_eq!(asn(json!({})), Ok(DEFAULT_ASN));
        assert_eq!(asn(json!({"asPlan": {"shared": {"asn": 7}}})), Ok(7));
        let per_node = json!({"asPlan": {"perNode": {"from": 4_200_000_000_u32}}});
        assert_eq!(asn(per_node), Ok(4_200_000_005));
        let racks = |rack: &str| json!({"asPlan": {"perRack": {"racks": {rack: 65_001}}}});
        assert_eq!(asn(racks("a")), Ok(65_001));
        assert_eq!(asn(racks("b")), Err(Fault::Rack("a".to_owned())));
        let high = json!({"asPlan": {"perNode": {"from": u32::MAX}}});
        assert_eq!(asn(high), Err(Fault::TooHigh));
    }

    #[test]
    fn who_is_spoken_to() {
        let peers = json!({
            "a": {"address": "192.0.2.9", "remoteAs": 65000, "bfd": {"intervalMs": 100}},
            "b": {"address": "192.0.2.9", "remoteAs": 65001},
            "other-rack": {"interface": "eth9", "remoteAs": "external",
                "nodeSelector": {"matchLabels": {RACK: "z"}}},
        });
        let plan = plan(&facts(json!({}), peers)).unwrap().unwrap();
        assert_eq!(
            plan.peers,
            BTreeMap::from([("192.0.2.9".into(), "a".into())])
        );
        let options = &plan.router.neighbors[0].options;
        assert_eq!(options.remote_as, RemoteAs::Number(65000));
        assert_eq!(options.bfd.unwrap().interval_ms, 100);
        // The other nodes of the AS are behind the leaf.
        assert_eq!(options.allowas_in, 1);
        let nobody = json!({"z": {"interface": "e", "remoteAs": 1,
            "nodeSelector": {"matchLabels": {RACK: "z"}}}});
        assert_eq!(super::plan(&facts(json!({}), nobody)), Ok(None));
    }

    #[test]
    fn policies_are_the_peer_s_and_the_rest_is_usual() {
        let peers = json!({
            "a": {"address": "192.0.2.9", "remoteAs": 65000, "allowasIn": 3, "role": "customer",
                "localAs": {"asn": 64999, "replaceAs": true}, "addPath": {"receive": true},
                "import": {"statements": [{"set": {"localPref": 50}}]},
                "export": {"statements": [{"set": {"addCommunities": ["65000:7"]}}]}},
            "b": {"interface": "eth1", "remoteAs": "external"},
        });
        let config = json!({"gracefulRestart": {"restartSeconds": 30}});
        let router = plan(&facts(config, peers)).unwrap().unwrap().router;
        router.speaker().check().unwrap();
        let names: Vec<&String> = router.policies.keys().collect();
        assert_eq!(names, ["export-a", "import-a", "own-routes"]);
        let [a, b] = router.neighbors.as_slice() else {
            panic!("two neighbours");
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(
            (&a.options.import, &a.options.export),
            (&named("import-a"), &named("export-a"))
        );
        assert_eq!(
            (&b.options.import, &b.options.export),
            (&None, &named("own-routes"))
        );
        assert_eq!((a.options.allowas_in, b.options.allowas_in), (3, 1));
        assert_eq!(a.options.role, Some(Role::Customer));
        assert_eq!(a.options.local_as.unwrap().asn, 64999);
        assert!(a.options.add_path.receive);
        assert_eq!(router.graceful_restart.restart_seconds, 30);
    }

    #[test]
    fn identifiers() {
        let mut facts = facts(json!({}), leaf());
        let id = |facts: &Facts| plan(facts).map(|plan| plan.unwrap().router.router_id.to_string());
        assert_eq!(id(&facts).unwrap(), "192.0.2.1");
        facts.ips = vec!["fd00::1".parse().unwrap()];
        assert_eq!(id(&facts), Err(Fault::NoIdentifier));
        facts.config = serde_json::from_value(json!({"routerId": "NodeName"})).unwrap();
        // FNV-1a of "n1".
        assert_eq!(id(&facts).unwrap(), made_of("n1").to_string());
        assert_ne!(made_of("n1"), made_of("n2"));
        facts.router_id = Some("10.0.0.9".to_owned());
        assert_eq!(id(&facts).unwrap(), "10.0.0.9");
        facts.router_id = Some("0.0.0.0".to_owned());
        assert!(id(&facts).unwrap_err().to_string().contains("\"0.0.0.0\""));
    }

    #[test]
    fn what_is_announced() {
        let usual = facts(json!({}), leaf());
        let all = ["10.244.5.0/24", "203.0.113.7/32"];
        assert_eq!(announced(&usual), all);
        let config = json!({"announce": {"podCIDRs": false, "services": false, "nodeIPs": true,
            "clusterIPs": true}});
        assert_eq!(
            announced(&facts(config, leaf())),
            ["10.96.0.9/32", "192.0.2.1/32"]
        );
    }

    #[test]
    fn a_node_leaves_in_steps() {
        let mut facts = facts(json!({}), leaf());
        for (drain, shutdown, count) in [
            (Drain::None, false, 2),
            (Drain::Handover, false, 2),
            (Drain::Graceful, true, 2),
            (Drain::Services, true, 1),
            (Drain::All, true, 0),
        ] {
            facts.drain = drain;
            let plan = plan(&facts).unwrap().unwrap();
            assert_eq!(plan.router.graceful_shutdown, shutdown, "{drain:?}");
            assert_eq!(plan.router.announce.len(), count, "{drain:?}");
        }
    }
}
