//! A neighbour: who it is, how the session with it runs, what goes in and out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::names;
use crate::types::{Family, Role};

/// A neighbour, by address or (unnumbered) by interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbor {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The interface behind which it is; alone, the neighbour is unnumbered: its link-local
    /// address is learned from its router advertisements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Everything else.
    #[serde(flatten)]
    pub options: NeighborOptions,
}

/// Addresses from which neighbours may come that are not listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// Where they may come from.
    pub prefix: IpNet,
    /// How many of them there may be.
    #[serde(default = "Range::default_limit")]
    pub limit: u32,
    /// What holds for each of them.
    #[serde(flatten)]
    pub options: NeighborOptions,
}

/// What holds for a neighbour, or for all of a range.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighborOptions {
    /// Its AS.
    pub remote_as: RemoteAs,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// An AS that we pretend to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_as: Option<LocalAs>,
    /// Do not run the session.
    #[serde(default)]
    pub shutdown: bool,
    /// Wait for the neighbour to connect.
    #[serde(default)]
    pub passive: bool,
    /// TCP port of the neighbour.
    #[serde(default = "NeighborOptions::default_port")]
    pub port: u16,
    /// Our end of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// TCP MD5 key (RFC 2385), at most 80 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Accept packets of at most this many hops only (GTSM, RFC 5082).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_security: Option<u8>,
    /// Hops to an eBGP neighbour that is not on a shared link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<u8>,
    /// BFD watches the neighbour: `true`, or `{intervalMs: 100, multiplier: 3}`.
    #[serde(default, with = "names::bfd", skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
    /// Timers.
    #[serde(default)]
    pub timers: Timers,
    /// Address families; IPv4 and IPv6 unicast when empty.
    #[serde(
        default,
        with = "names::families",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub families: Vec<Family>,
    /// IPv4 routes with IPv6 next hops (RFC 8950); always on an unnumbered session.
    #[serde(default)]
    pub extended_next_hop: bool,
    /// Name of the import policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<String>,
    /// Name of the export policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// Most prefixes to take from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prefixes: Option<MaxPrefixes>,
    /// Several paths of one prefix (RFC 7911).
    #[serde(default)]
    pub add_path: AddPath,
    /// It is a client of our route reflection (iBGP).
    #[serde(default)]
    pub route_reflector_client: bool,
    /// Announce ourselves as next hop to an iBGP neighbour.
    #[serde(default)]
    pub next_hop_self: bool,
    /// How often our own AS may stand in a path from it.
    #[serde(default)]
    pub allowas_in: u8,
    /// Replace its AS in paths to it by ours.
    #[serde(default)]
    pub as_override: bool,
    /// Remove private ASes from paths to it.
    #[serde(default)]
    pub remove_private_as: bool,
    /// Our role towards it (RFC 9234): provider, rs-server, rs-client, customer or peer.
    #[serde(default, with = "names::role", skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Refuse it when it does not tell its role.
    #[serde(default)]
    pub strict_role: bool,
    /// Fields that nobody knows, for [`Config::check`](super::Config::check) to name.
    #[serde(flatten, skip_serializing)]
    pub unknown: BTreeMap<String, Unknown>,
}

/// The value of a field that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "serde::de::IgnoredAny")]
pub struct Unknown;

impl From<serde::de::IgnoredAny> for Unknown {
    fn from(_: serde::de::IgnoredAny) -> Self {
        Unknown
    }
}

/// A neighbour's AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoteAs {
    /// This one.
    Number(u32),
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

/// An AS that we pretend to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalAs {
    /// The AS.
    pub asn: u32,
    /// Do not prepend it to what comes in.
    #[serde(default)]
    pub no_prepend: bool,
    /// Do not show the real AS to the neighbour.
    #[serde(default)]
    pub replace_as: bool,
}

/// Timers of a session, in seconds unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timers {
    /// Hold time that we propose: 0 (no keepalives) or at least 3.
    pub hold_seconds: u16,
    /// Time between keepalives; a third of the hold time agreed when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keepalive_seconds: Option<u16>,
    /// Time between attempts to connect.
    pub connect_retry_seconds: u16,
    /// Wait this long for the neighbour's OPEN before sending ours.
    pub delay_open_seconds: u16,
    /// Least time between two announcements of a prefix, in milliseconds.
    pub advertisement_interval_ms: u32,
}

/// Most prefixes to take from a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaxPrefixes {
    /// The session ends at one more.
    pub limit: u32,
    /// Start again after this many seconds; only an operator does when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_seconds: Option<u32>,
    /// Only say so.
    #[serde(default)]
    pub warning_only: bool,
}

/// How BFD watches a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bfd {
    /// Time between packets that we send and want, in milliseconds.
    pub interval_ms: u32,
    /// So many missing packets mean that the neighbour is gone.
    pub multiplier: u8,
}

impl Default for Bfd {
    fn default() -> Self {
        Bfd {
            interval_ms: 300,
            multiplier: 3,
        }
    }
}

/// Several paths of one prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AddPath {
    /// Take them.
    pub receive: bool,
    /// Send the best so many; 0 is not at all.
    pub send: u8,
}

// === impl Neighbor ===

impl Neighbor {
    /// A neighbour at an address.
    pub fn at(address: IpAddr, remote_as: RemoteAs) -> Self {
        Neighbor {
            address: Some(address),
            interface: None,
            options: NeighborOptions::new(remote_as),
        }
    }

    /// An unnumbered neighbour.
    pub fn on(interface: &str, remote_as: RemoteAs) -> Self {
        Neighbor {
            address: None,
            interface: Some(interface.to_owned()),
            options: NeighborOptions::new(remote_as),
        }
    }

    /// What it is called: its address, else its interface.
    pub fn name(&self) -> String {
        match (&self.address, &self.interface) {
            (Some(address), _) => address.to_string(),
            (None, Some(interface)) => interface.clone(),
            (None, None) => "(nowhere)".to_owned(),
        }
    }

    /// Whether its address is to be learned.
    pub fn unnumbered(&self) -> bool {
        self.address.is_none()
    }
}

// === impl NeighborOptions ===

impl NeighborOptions {
    /// The defaults for a neighbour of this AS.
    pub fn new(remote_as: RemoteAs) -> Self {
        NeighborOptions {
            remote_as,
            description: None,
            local_as: None,
            shutdown: false,
            passive: false,
            port: Self::default_port(),
            source: None,
            password: None,
            ttl_security: None,
            multihop: None,
            bfd: None,
            timers: Timers::default(),
            families: Vec::new(),
            extended_next_hop: false,
            import: None,
            export: None,
            max_prefixes: None,
            add_path: AddPath::default(),
            route_reflector_client: false,
            next_hop_self: false,
            allowas_in: 0,
            as_override: false,
            remove_private_as: false,
            role: None,
            strict_role: false,
            unknown: BTreeMap::new(),
        }
    }

    fn default_port() -> u16 {
        179
    }

    /// Whether the neighbour is external to an AS.
    pub fn external(&self, asn: u32) -> bool {
        match self.remote_as {
            RemoteAs::Number(remote) => remote != self.local_as.map_or(asn, |local| local.asn),
            RemoteAs::External => true,
            RemoteAs::Internal => false,
        }
    }

    /// The families to negotiate.
    pub fn wanted_families(&self) -> Vec<Family> {
        if self.families.is_empty() {
            Family::SUPPORTED.to_vec()
        } else {
            self.families.clone()
        }
    }
}

impl Range {
    fn default_limit() -> u32 {
        100
    }
}

// === impl RemoteAs ===

impl RemoteAs {
    /// Whether a neighbour of AS `remote` is meant, where ours is `local`.
    pub fn accepts(self, remote: u32, local: u32) -> bool {
        match self {
            RemoteAs::Number(number) => number == remote,
            RemoteAs::External => remote != local,
            RemoteAs::Internal => remote == local,
        }
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoteAs::Number(number) => number.fmt(f),
            RemoteAs::External => f.write_str("external"),
            RemoteAs::Internal => f.write_str("internal"),
        }
    }
}

impl Serialize for RemoteAs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            RemoteAs::Number(number) => serializer.serialize_u32(*number),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for RemoteAs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u32),
            Text(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Number(number) => Ok(RemoteAs::Number(number)),
            Given::Text(text) => match text.as_str() {
                "external" => Ok(RemoteAs::External),
                "internal" => Ok(RemoteAs::Internal),
                other => other.parse().map(RemoteAs::Number).map_err(|_| {
                    serde::de::Error::custom(format!(
                        "`{other}` is no AS: give a number, `external` or `internal`"
                    ))
                }),
            },
        }
    }
}

// === impl Timers ===

impl Default for Timers {
    fn default() -> Self {
        Timers {
            hold_seconds: 90,
            keepalive_seconds: None,
            connect_retry_seconds: 10,
            delay_open_seconds: 0,
            advertisement_interval_ms: 0,
        }
    }
}

impl Timers {
    /// Time between attempts to connect.
    pub fn connect_retry(&self) -> Duration {
        Duration::from_secs(self.connect_retry_seconds.into())
    }

    /// Time to wait for the neighbour's OPEN.
    pub fn delay_open(&self) -> Duration {
        Duration::from_secs(self.delay_open_seconds.into())
    }

    /// Least time between two announcements of a prefix.
    pub fn advertisement_interval(&self) -> Duration {
        Duration::from_millis(self.advertisement_interval_ms.into())
    }
}
