//! Forwarding tables as text, to be compared.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Net;
use crate::Speaker;
use crate::rib::NextHops;
use crate::types::Family;

impl Net {
    /// All forwarding tables, as text.
    pub fn tables(&self) -> BTreeMap<String, BTreeMap<IpNet, String>> {
        let shown = self.nodes.iter().map(|node| {
            let table = node.fib.iter().map(|(net, hops)| (*net, text(hops)));
            (node.name.clone(), table.collect())
        });
        shown.collect()
    }

    /// What each speaker says its forwarding table should be.
    pub fn wanted_tables(&self) -> BTreeMap<String, BTreeMap<IpNet, String>> {
        let shown = self.nodes.iter();
        shown
            .map(|node| (node.name.clone(), wanted_table(&node.speaker)))
            .collect()
    }
}

/// What a speaker says its forwarding table should be, as text.
pub fn wanted_table(speaker: &Speaker) -> BTreeMap<IpNet, String> {
    let families = Family::SUPPORTED.into_iter();
    let routes = families.flat_map(|family| speaker.forwarding(family));
    routes.map(|(prefix, hops)| (prefix, text(hops))).collect()
}

fn text(hops: &NextHops) -> String {
    let each: Vec<String> = hops.iter().map(ToString::to_string).collect();
    each.join(" ")
}
