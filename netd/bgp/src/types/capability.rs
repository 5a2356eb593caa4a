//! Capabilities: what two speakers tell each other, in OPEN, that they can do (RFC 5492).

use bytes::Bytes;

use super::Family;
use super::codes::codes;

/// One capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    /// RFC 4760: routes of this family.
    MultiProtocol(Family),
    /// RFC 2918: asks for and answers ROUTE-REFRESH.
    RouteRefresh,
    /// RFC 8950: next hops of another family.
    ExtendedNextHop(Vec<ExtendedNextHop>),
    /// RFC 8654: messages up to 65,535 octets.
    ExtendedMessage,
    /// RFC 9234: the sender's place in the relationship.
    Role(Role),
    /// RFC 4724.
    GracefulRestart(GracefulRestart),
    /// RFC 6793: AS numbers of four octets, and the sender's own.
    FourOctetAs(u32),
    /// RFC 7911: several paths to one prefix.
    AddPath(Vec<AddPath>),
    /// RFC 7313: marks begin and end of a refresh.
    EnhancedRouteRefresh,
    /// RFC 9494.
    LongLivedGracefulRestart(Vec<LongLivedFamily>),
    /// The sender's names, for people (draft-walton-bgp-hostname-capability).
    Fqdn {
        /// Host name.
        hostname: String,
        /// Domain name.
        domain: String,
    },
    /// One that this crate does not know, or whose value has not the form that its code asks for.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value.
        value: Bytes,
    },
}

/// Routes of `family` may have next hops of the address family `next_hop_afi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtendedNextHop {
    /// The routes' family.
    pub family: Family,
    /// The next hops' AFI ([`Family::AFI_IPV6`]).
    pub next_hop_afi: u16,
}

/// What the sender does with several paths of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddPath {
    /// The family.
    pub family: Family,
    /// It wants to send several.
    pub send: bool,
    /// It can receive several.
    pub receive: bool,
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// The sender has just restarted (R bit).
    pub restarting: bool,
    /// NOTIFICATIONs too lead to a graceful restart (N bit, RFC 8538).
    pub notification: bool,
    /// Seconds until the sender is back after a restart; 12 bits.
    pub restart_time: u16,
    /// The families that take part.
    pub families: Vec<Restartable>,
}

/// A family in a graceful restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restartable {
    /// The family.
    pub family: Family,
    /// The sender kept forwarding its routes over the restart (F bit).
    pub forwarding: bool,
}

/// A family in a long-lived graceful restart (RFC 9494 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLivedFamily {
    /// The family.
    pub family: Family,
    /// The sender kept forwarding its routes over the restart (F bit).
    pub forwarding: bool,
    /// Seconds for which its stale routes are to be kept; 24 bits.
    pub stale_time: u32,
}

codes! {
    /// The sender's place in the relationship between two AS (RFC 9234 §4.1).
    pub enum Role {
        /// Sells transit to the receiver.
        Provider = 0 "provider",
        /// A route server.
        RouteServer = 1 "rs-server",
        /// A client of a route server.
        RouteServerClient = 2 "rs-client",
        /// Buys transit from the receiver.
        Customer = 3 "customer",
        /// A peer that exchanges its customers' routes.
        Peer = 4 "peer",
    }
}

impl Role {
    /// Whether the two ends may have these roles (RFC 9234 table 2).
    pub fn matches(self, remote: Role) -> bool {
        matches!(
            (self, remote),
            (Role::Provider, Role::Customer)
                | (Role::Customer, Role::Provider)
                | (Role::RouteServer, Role::RouteServerClient)
                | (Role::RouteServerClient, Role::RouteServer)
                | (Role::Peer, Role::Peer)
        )
    }
}

impl Capability {
    /// Its code in the registry.
    pub fn code(&self) -> u8 {
        match self {
            Capability::MultiProtocol(_) => 1,
            Capability::RouteRefresh => 2,
            Capability::ExtendedNextHop(_) => 5,
            Capability::ExtendedMessage => 6,
            Capability::Role(_) => 9,
            Capability::GracefulRestart(_) => 64,
            Capability::FourOctetAs(_) => 65,
            Capability::AddPath(_) => 69,
            Capability::EnhancedRouteRefresh => 70,
            Capability::LongLivedGracefulRestart(_) => 71,
            Capability::Fqdn { .. } => 73,
            Capability::Unknown { code, .. } => *code,
        }
    }
}
