//! Which source address leaves: a pod's own, or one of the node.
//!
//! ```text
//! chain postrouting   a pod to itself by a service            -> masquerade
//!                     from nat-outgoing, not to the cluster   -> chain masquerade
//!                     from nat-off-fabric, not to the cluster,
//!                       not by one of kept-links              -> chain masquerade
//!                     to an endpoint elsewhere, from outside  -> chain masquerade
//! chain masquerade    by one of fabric-links                  -> the node's InternalIP
//!                     else                                    -> the link's address
//! ```
//!
//! Behind the links to BGP neighbours the fabric knows the way to the node's InternalIP, whichever
//! link it takes: a flow whose ECMP leg changes keeps its source. `masquerade` would give it the
//! address of the leg, and have the kernel end the connection when the leg changes; on a link
//! without addresses it takes any that stands on `lo`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use peapod_nft::{CmpOp, CtKey, DataType, Expr, FibResult, MetaKey, NatKind, Reg, Rule};
use peapod_nft::{Set, Verdict};

use super::Ip;
use super::base::{
    BLOCKS, CLUSTER, HAIRPIN, if_address_in_set, if_address_type, if_address_within,
    load_destination, load_source,
};
use super::codec::address_bytes;
use super::matches::if_connection_has;

/// Blocks of this node whose pods are masqueraded wherever they leave the cluster.
pub(crate) const NAT_OUTGOING: &str = "nat-outgoing";
/// Blocks of this node whose pods keep their addresses behind `kept-links`.
pub(crate) const NAT_OFF_FABRIC: &str = "nat-off-fabric";
/// Links to BGP neighbours.
pub(crate) const FABRIC_LINKS: &str = "fabric-links";
/// Links to BGP neighbours that are told of this node's blocks.
pub(crate) const KEPT_LINKS: &str = "kept-links";
/// The chain that gives a packet an address of the node.
const MASQUERADE: &str = "masquerade";

/// `IPS_DST_NAT`.
const CT_DNAT: u32 = 1 << 5;
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8));

/// The key of a link in a set.
pub(crate) fn link_key(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(16, 0);
    key
}

/// The sets that the rules ask.
pub(crate) fn sets(ip: Ip) -> Vec<Set> {
    let blocks = [NAT_OUTGOING, NAT_OFF_FABRIC].map(|name| Set {
        name: name.to_owned(),
        key: vec![ip.address_type()],
        interval: true,
        ..Set::default()
    });
    let links = [FABRIC_LINKS, KEPT_LINKS].map(|name| Set {
        name: name.to_owned(),
        key: vec![DataType::IfName],
        ..Set::default()
    });
    blocks.into_iter().chain(links).collect()
}

/// The regular chain and its rules. `stable` is the node's InternalIP, if others can reach it.
pub(crate) fn chain(ip: Ip, stable: Option<IpAddr>) -> (&'static str, Vec<Rule>) {
    let mut rules = Vec::new();
    if let Some(stable) = stable {
        let mut exprs = if_leaves_by(FABRIC_LINKS, false).to_vec();
        exprs.push(Expr::Immediate {
            data: address_bytes(stable),
            dreg: Reg::R0,
        });
        exprs.push(Expr::Nat {
            kind: NatKind::Source,
            family: ip.family(),
            address: Reg::R0,
            port: None,
        });
        rules.push(Rule::new(exprs).comment("the same address whichever leg is taken"));
    }
    rules.push(Rule::new([Expr::Masquerade]));
    (MASQUERADE, rules)
}

/// The rules behind routing.
pub(crate) fn postrouting(ip: Ip) -> Vec<Rule> {
    let hairpin = [
        load_source(ip, Reg::R0),
        load_destination(ip, ip.behind(Reg::R0)),
        Expr::Contains {
            set: HAIRPIN.to_owned(),
            key: Reg::R0,
            inverted: false,
        },
        Expr::Masquerade,
    ];
    let mut rules = vec![Rule::new(hairpin).comment("a pod reaches itself through a service")];
    let mut off_fabric = outwards(ip, NAT_OFF_FABRIC);
    off_fabric.extend(if_leaves_by(KEPT_LINKS, true));
    let mut to_masquerade = vec![
        (
            outwards(ip, NAT_OUTGOING),
            "a pod reaches out of the cluster",
        ),
        (
            off_fabric,
            "a pod reaches out where its address is not known",
        ),
        (
            inwards(ip),
            "answers of an endpoint elsewhere come back here",
        ),
    ];
    if ip.v4 {
        let mut from_loopback = if_translated().to_vec();
        from_loopback.extend(if_address_within(load_source(ip, Reg::R0), LOOPBACK));
        to_masquerade.push((from_loopback, "the node reaches a node port by 127.0.0.1"));
    }
    let finish = |(mut exprs, why): (Vec<Expr>, &str)| {
        exprs.push(Expr::Verdict(Verdict::Goto(MASQUERADE.to_owned())));
        Rule::new(exprs).comment(why)
    };
    rules.extend(to_masquerade.into_iter().map(finish));
    rules
}

/// From a pod in one of these blocks to what is outside of the cluster.
fn outwards(ip: Ip, blocks: &str) -> Vec<Expr> {
    let mut exprs = if_address_in_set(load_source(ip, Reg::R0), blocks, false);
    let destination = load_destination(ip, Reg::R0);
    exprs.extend(if_address_in_set(destination, CLUSTER, true));
    exprs
}

/// From outside, by a service's address, to an endpoint elsewhere.
fn inwards(ip: Ip) -> Vec<Expr> {
    let mut exprs = if_translated().to_vec();
    exprs.extend(if_address_in_set(load_source(ip, Reg::R0), BLOCKS, true));
    let destination = load_destination(ip, Reg::R0);
    exprs.extend(if_address_in_set(destination, BLOCKS, true));
    exprs.extend(if_address_type(FibResult::SourceType, CmpOp::Ne));
    exprs
}

fn if_leaves_by(links: &str, inverted: bool) -> [Expr; 2] {
    [
        Expr::Meta {
            key: MetaKey::OifName,
            dreg: Reg::R0,
        },
        Expr::Contains {
            set: links.to_owned(),
            key: Reg::R0,
            inverted,
        },
    ]
}

fn if_translated() -> [Expr; 3] {
    if_connection_has(CtKey::Status, CT_DNAT)
}
