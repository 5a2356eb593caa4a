//! A node's AS and its BGP Identifier.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use peapod_api::labels::RACK;
use peapod_api::net::{BgpRouterId, DEFAULT_ASN};

use super::{Facts, Fault};

pub(super) fn asn(facts: &Facts) -> Result<u32, Fault> {
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

pub(super) fn router_id(facts: &Facts) -> Result<Ipv4Addr, Fault> {
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
pub(super) fn made_of(name: &str) -> Ipv4Addr {
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = name.bytes().fold(0x811c_9dc5, mix);
    Ipv4Addr::from_bits(hash.max(1))
}
