//! Ranges of addresses as nftables keeps them: as the ends of intervals.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use peapod_nft::Element;

use super::{Ip, codec};

/// Ranges as the ends of intervals: the first address, and the first one behind.
pub(super) fn intervals(ip: Ip, ranges: &[IpNet]) -> BTreeSet<Element> {
    let of_family = ranges
        .iter()
        .filter(|range| range.addr().is_ipv4() == ip.v4);
    let merged = IpNet::aggregate(&of_family.copied().collect());
    let mut elements = BTreeSet::new();
    for range in merged {
        let start = Element::key(codec::address_bytes(range.network()));
        let end = |key| Element {
            interval_end: true,
            ..Element::key(key)
        };
        // Where one ends and the next begins is no end: the kernel would see them overlap.
        if !elements.remove(&end(start.key.clone())) {
            elements.insert(start);
        }
        if let Some(behind) = behind(range.broadcast()) {
            elements.insert(end(codec::address_bytes(behind)));
        }
    }
    elements
}

/// The ends of intervals, together those of one: its start, and its end unless it has none.
pub(super) fn whole(ends: &BTreeSet<Element>) -> BTreeSet<Vec<Element>> {
    let mut intervals: Vec<Vec<Element>> = Vec::new();
    for end in ends {
        match intervals.last_mut() {
            Some(open) if end.interval_end => open.push(end.clone()),
            _ => intervals.push(vec![end.clone()]),
        }
    }
    intervals.into_iter().collect()
}

fn behind(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).checked_add(1).map(|n| IpAddr::V4(n.into())),
        IpAddr::V6(ip) => u128::from(ip).checked_add(1).map(|n| IpAddr::V6(n.into())),
    }
}
