//! The part of the tables that does not depend on services: sets, hooks, and their rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use peapod_nft::{
    Base, BaseChain, ChainKind, CmpOp, CtKey, DataType, Expr, FibResult, Hook, MetaKey, Policy,
    Reg, Reject, Rule, Set, Transaction, Verdict,
};

use super::chains::{Keyed, LOCAL, translate};
use super::codec::address_bytes;
use super::matches::{if_connection_lacks, if_tcp};
use super::{Ip, NatConfig, source};
use crate::links::alias::PREFIX;

/// The chain that tells a client that nobody serves there.
pub(crate) const REFUSE: &str = "refuse";
/// Pods' and nodes' addresses of the whole cluster.
pub(crate) const CLUSTER: &str = "cluster";
/// Pods' addresses of this node.
pub(crate) const BLOCKS: &str = "blocks";
/// Pairs of a pod's own address, for the pods attached here.
pub(crate) const HAIRPIN: &str = "hairpin";
/// `hostPort`s on every address.
pub(crate) const HOST_PORTS: &str = "hostports";
/// `hostPort`s on one address.
pub(crate) const HOST_IP_PORTS: &str = "hostip-ports";
/// Where both hooks look destinations up.
const DISPATCH: &str = "dispatch";
/// Ports of the node's own addresses.
const LOCAL_PORTS: &str = "local-ports";

/// Clients that are remembered for session affinity; further ones are balanced at random.
const AFFINITY_CLIENTS: u32 = 262_144;
/// Default life of an affinity; every rule gives its own.
const AFFINITY_MS: u64 = 10_800_000;
/// `established` and `related` of a connection's state.
const CT_KNOWN: u32 = (1 << 1) | (1 << 2);
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8));

pub(crate) fn load_source(ip: Ip, dreg: Reg) -> Expr {
    Expr::Payload {
        base: Base::Network,
        offset: ip.source_offset(),
        len: ip.address_len(),
        dreg,
    }
}

pub(crate) fn load_destination(ip: Ip, dreg: Reg) -> Expr {
    Expr::Payload {
        base: Base::Network,
        offset: ip.destination_offset(),
        len: ip.address_len(),
        dreg,
    }
}

pub(crate) fn if_address_in_set(load: Expr, set: &str, inverted: bool) -> Vec<Expr> {
    let contains = Expr::Contains {
        set: set.to_owned(),
        key: Reg::R0,
        inverted,
    };
    vec![load, contains]
}

pub(crate) fn if_address_type(result: FibResult, op: CmpOp) -> [Expr; 2] {
    let data = LOCAL.to_ne_bytes().to_vec();
    [
        Expr::Fib {
            result,
            dreg: Reg::R0,
        },
        Expr::Cmp {
            op,
            sreg: Reg::R0,
            data,
        },
    ]
}

pub(crate) fn if_address_within(load: Expr, range: IpNet) -> [Expr; 3] {
    [
        load,
        Expr::Mask {
            reg: Reg::R0,
            mask: address_bytes(range.netmask()),
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: address_bytes(range.network()),
        },
    ]
}

pub(crate) fn sets(ip: Ip) -> Vec<Set> {
    use DataType::{InetProto, InetService, Mark};
    let address = ip.address_type();
    let endpoint = vec![address, InetService];
    let map = |name: &str, key: Vec<DataType>, data: &[DataType]| Set {
        name: name.to_owned(),
        key,
        data: data.to_vec(),
        verdicts: data.is_empty(),
        ..Set::default()
    };
    let set = |name: &str, key: Vec<DataType>| Set {
        name: name.to_owned(),
        key,
        ..Set::default()
    };
    let mut sets = vec![
        map(HOST_PORTS, vec![InetProto, InetService], &endpoint),
        map(
            HOST_IP_PORTS,
            vec![address, InetProto, InetService],
            &endpoint,
        ),
        set(HAIRPIN, vec![address, address]),
    ];
    for name in [BLOCKS, CLUSTER] {
        sets.push(Set {
            interval: true,
            ..set(name, vec![address])
        });
    }
    sets.extend(source::sets(ip));
    for keyed in [Keyed::Address, Keyed::NodePort] {
        let mut key = match keyed {
            Keyed::Address => vec![address],
            Keyed::NodePort => vec![],
        };
        key.extend([InetProto, InetService]);
        sets.push(map(keyed.services(), key.clone(), &[]));
        key.push(Mark);
        sets.push(map(keyed.endpoints(), key.clone(), &endpoint));
        key.insert(0, address);
        sets.push(Set {
            dynamic_timeout_ms: Some(AFFINITY_MS),
            size: Some(AFFINITY_CLIENTS),
            ..set(keyed.affinity(), key)
        });
    }
    sets
}

/// Base chains, each with the hook it is attached to and its rules.
pub(crate) fn hooks(ip: Ip, config: &NatConfig) -> Vec<(&'static str, BaseChain, Vec<Rule>)> {
    let nat = |hook, priority| BaseChain {
        kind: ChainKind::Nat,
        hook,
        priority,
        policy: Policy::Accept,
    };
    let dispatch = Rule::new([Expr::Verdict(Verdict::Jump(DISPATCH.to_owned()))]);
    let mut hooks = vec![
        (
            "prerouting",
            nat(Hook::Prerouting, -100),
            vec![dispatch.clone()],
        ),
        ("output", nat(Hook::Output, -100), vec![dispatch]),
        (
            "postrouting",
            nat(Hook::Postrouting, 100),
            source::postrouting(ip),
        ),
    ];
    let mut input: Vec<Rule> = config
        .private_ips
        .iter()
        .filter(|private| private.is_ipv4() == ip.v4)
        .map(|&private| this_machine_only(ip, private, config.foreign_links))
        .collect();
    input.extend(ip.v4.then(|| no_loopback_from_pods(ip)));
    if !input.is_empty() {
        // On the way to this machine only: what is forwarded is spared another look.
        let filter = BaseChain {
            kind: ChainKind::Filter,
            ..nat(Hook::Input, 0)
        };
        hooks.push(("input", filter, input));
    }
    hooks
}

/// The kernel takes packets for any of its addresses from any link, so a neighbour with a route
/// to a private address of this node would be answered. Behind the translation of services'
/// addresses: what was sent to one of them is seen here as it arrives at the node. Answers to
/// what the node asked for itself pass.
fn this_machine_only(ip: Ip, private: IpAddr, foreign_links: bool) -> Rule {
    let mut exprs = vec![
        load_destination(ip, Reg::R0),
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: address_bytes(private),
        },
    ];
    for link in [b"lo\0".as_slice(), PREFIX.as_bytes()] {
        exprs.push(Expr::Meta {
            key: MetaKey::IifName,
            dreg: Reg::R0,
        });
        exprs.push(Expr::Cmp {
            op: CmpOp::Ne,
            sreg: Reg::R0,
            data: link.to_vec(),
        });
    }
    if foreign_links {
        // Pods' links have any name, so pods are told by their addresses: a neighbour that sends
        // from one of those gets no answer, which is the pod's.
        exprs.extend(if_address_in_set(load_source(ip, Reg::R0), CLUSTER, true));
    }
    exprs.extend(if_not_known());
    exprs.extend([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
    Rule::new(exprs).comment("only this machine and its pods may reach this address")
}

/// Pods' links let loopback addresses pass, for answers to the node itself. Those carry the
/// node's address until they are translated back, and are of a connection that the node made; what
/// else comes from a pod for 127.0.0.1 is forged.
fn no_loopback_from_pods(ip: Ip) -> Rule {
    let mut exprs = vec![
        Expr::Meta {
            key: MetaKey::IifName,
            dreg: Reg::R0,
        },
        Expr::Cmp {
            op: CmpOp::Eq,
            sreg: Reg::R0,
            data: PREFIX.as_bytes().to_vec(),
        },
    ];
    exprs.extend(if_address_within(load_destination(ip, Reg::R0), LOOPBACK));
    exprs.extend(if_not_known());
    exprs.push(Expr::Verdict(Verdict::Drop));
    Rule::new(exprs).comment("a pod must not reach the node's loopback")
}

/// Neither established nor related.
fn if_not_known() -> [Expr; 3] {
    if_connection_lacks(CtKey::State, CT_KNOWN)
}

/// Regular chains and their rules.
pub(crate) fn chains(ip: Ip, config: &NatConfig) -> Vec<(&'static str, Vec<Rule>)> {
    let mut stable = config.source_ips.iter().copied();
    vec![
        (REFUSE, refuse(ip)),
        (LOCAL_PORTS, local_ports(ip)),
        (DISPATCH, dispatch(ip, &config.service_cidrs)),
        source::chain(ip, stable.find(|source| source.is_ipv4() == ip.v4)),
    ]
}

fn refuse(ip: Ip) -> Vec<Rule> {
    let port_unreachable = if ip.v4 { 3 } else { 4 };
    let mut tcp = if_tcp().to_vec();
    tcp.push(Expr::Reject(Reject::TcpReset));
    let other = Expr::Reject(Reject::IcmpUnreachable(port_unreachable));
    vec![Rule::new(tcp), Rule::new([other])]
}

fn dispatch(ip: Ip, service_cidrs: &[IpNet]) -> Vec<Rule> {
    let (mut service, _) = Keyed::Address.load(ip, Reg::R0);
    service.push(Expr::VerdictMap {
        map: Keyed::Address.services().to_owned(),
        key: Reg::R0,
    });
    let (mut host_ip, _) = Keyed::Address.load(ip, Reg::R0);
    host_ip.extend(translate(ip, HOST_IP_PORTS, Reg::R0));
    let mut rules = vec![Rule::new(service), Rule::new(host_ip)];
    let mut local = Vec::new();
    if !ip.v4 {
        // The kernel lets nothing from ::1 leave, so there is no use in translating it.
        local.push(load_destination(ip, Reg::R0));
        local.push(Expr::Cmp {
            op: CmpOp::Ne,
            sreg: Reg::R0,
            data: Ipv6Addr::LOCALHOST.octets().to_vec(),
        });
    }
    local.extend(if_address_type(FibResult::DestinationType, CmpOp::Eq));
    local.push(Expr::Verdict(Verdict::Goto(LOCAL_PORTS.to_owned())));
    rules.push(Rule::new(local));
    for range in service_cidrs.iter().filter(|r| r.addr().is_ipv4() == ip.v4) {
        let mut unused = if_address_within(load_destination(ip, Reg::R0), range.trunc()).to_vec();
        unused.push(Expr::Verdict(Verdict::Goto(REFUSE.to_owned())));
        rules.push(Rule::new(unused).comment("no such service"));
    }
    rules
}

fn local_ports(ip: Ip) -> Vec<Rule> {
    let (mut host_port, _) = Keyed::NodePort.load(ip, Reg::R0);
    host_port.extend(translate(ip, HOST_PORTS, Reg::R0));
    let (mut service, _) = Keyed::NodePort.load(ip, Reg::R0);
    service.push(Expr::VerdictMap {
        map: Keyed::NodePort.services().to_owned(),
        key: Reg::R0,
    });
    vec![Rule::new(host_port), Rule::new(service)]
}

/// Writes the whole base of one family's table, which must not exist.
pub(crate) fn write(transaction: &mut Transaction, ip: Ip, config: &NatConfig, fingerprint: &[u8]) {
    let table = ip.table();
    transaction.add_table_with_data(&table, fingerprint);
    for set in sets(ip) {
        transaction.add_set(&table, &set);
    }
    for (name, rules) in chains(ip, config) {
        transaction.add_chain(&table, name);
        for rule in rules {
            transaction.append_rule(&table, name, &rule);
        }
    }
    for (name, base, rules) in hooks(ip, config) {
        transaction.add_base_chain(&table, name, base);
        for rule in rules {
            transaction.append_rule(&table, name, &rule);
        }
    }
}

/// What tells one base from another: written with the table, and compared at start.
pub(crate) fn fingerprint(ip: Ip, config: &NatConfig) -> Vec<u8> {
    let text = format!(
        "{:?} {:?} {:?}",
        sets(ip),
        chains(ip, config),
        hooks(ip, config)
    );
    let hash = crate::links::alias::fnv1a(text.as_bytes());
    format!("peapod {hash:016x}").into_bytes()
}
