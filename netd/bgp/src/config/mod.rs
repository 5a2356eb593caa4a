//! What an operator says: the speaker, its neighbours, its policies.
//!
//! These are the types of the configuration file too (camelCase, unknown fields refused).
//! [`Config::check`] finds what is wrong with the values and names the field.

mod check;
mod names;
mod neighbor;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use check::Fault;
pub use neighbor::{
    AddPath, Bfd, LocalAs, MaxPrefixes, Neighbor, NeighborOptions, Range, RemoteAs, Timers, Unknown,
};

use crate::policy::Policy;

/// A speaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Our AS number.
    pub asn: u32,
    /// Our BGP Identifier.
    pub router_id: Ipv4Addr,
    /// The route reflection cluster; the router id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<Ipv4Addr>,
    /// The name to give in the FQDN capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// How paths are chosen.
    #[serde(default)]
    pub selection: Selection,
    /// Graceful restart (RFC 4724).
    #[serde(default)]
    pub graceful_restart: GracefulRestart,
    /// An eBGP neighbour without an import (export) policy sends (gets) nothing (RFC 8212).
    #[serde(default)]
    pub require_policy: bool,
    /// All routes are announced with GRACEFUL_SHUTDOWN (RFC 8326), to leave without loss.
    #[serde(default)]
    pub graceful_shutdown: bool,
    /// Policies by name.
    #[serde(default)]
    pub policies: BTreeMap<String, Arc<Policy>>,
    /// The neighbours.
    #[serde(default)]
    pub neighbors: Vec<Neighbor>,
    /// Ranges from which neighbours may come that are not listed.
    #[serde(default)]
    pub ranges: Vec<Range>,
    /// Prefixes that originate here.
    #[serde(default)]
    pub announce: Vec<IpNet>,
}

/// How paths are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Selection {
    /// Most next hops of one route, 1 to 64.
    pub multipath: u8,
    /// Paths of equal length through different ASes are equal (`as-path multipath-relax`).
    pub multipath_relax: bool,
    /// MED is compared between paths of different neighbour ASes too.
    pub always_compare_med: bool,
    /// A path without MED is as bad as one with the highest.
    pub missing_med_worst: bool,
    /// Of external paths that are otherwise equal the one already chosen stays (RFC 5004);
    /// otherwise the router id decides, and the choice depends on nothing but the paths.
    pub prefer_existing: bool,
}

/// Graceful restart of ours, and our help with that of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GracefulRestart {
    /// Announce the capability and act by it.
    pub enabled: bool,
    /// This speaker has just been restarted, with its forwarding preserved: announce so, and
    /// select only when all neighbours have sent all their routes.
    pub restarting: bool,
    /// How long neighbours shall wait for us, in seconds (at most 4095).
    pub restart_seconds: u16,
    /// How long a restarting speaker waits for its neighbours' End-of-RIB.
    pub selection_deferral_seconds: u16,
    /// How long stale routes are kept after the session is back, until End-of-RIB.
    pub stale_path_seconds: u32,
    /// NOTIFICATION and hold timer expiry keep routes too (RFC 8538).
    pub notification: bool,
    /// How long routes stay as long-lived stale (RFC 9494); 0 is not at all.
    pub long_lived_seconds: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Selection {
            multipath: 1,
            multipath_relax: false,
            always_compare_med: false,
            missing_med_worst: false,
            prefer_existing: false,
        }
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        GracefulRestart {
            enabled: true,
            restarting: false,
            restart_seconds: 120,
            selection_deferral_seconds: 120,
            stale_path_seconds: 300,
            notification: true,
            long_lived_seconds: 0,
        }
    }
}

impl Config {
    /// A speaker without neighbours.
    pub fn new(asn: u32, router_id: Ipv4Addr) -> Self {
        Config {
            asn,
            router_id,
            cluster_id: None,
            hostname: None,
            selection: Selection::default(),
            graceful_restart: GracefulRestart::default(),
            require_policy: false,
            graceful_shutdown: false,
            policies: BTreeMap::new(),
            neighbors: Vec::new(),
            ranges: Vec::new(),
            announce: Vec::new(),
        }
    }

    /// The route reflection cluster that this speaker is in.
    pub fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }
}
