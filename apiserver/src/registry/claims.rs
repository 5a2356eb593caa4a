//! What objects claim for themselves alone: service addresses and node ports.
//!
//! A claim is a key of the store, written in the transaction that writes its object and deleted
//! in the one that deletes it; that a key is created once is what makes the claim exclusive,
//! across restarts and between servers. The rules of a kind name the claims of an object and
//! fill in what is to be allocated; where items come from is behind [`Pools`].

use std::net::IpAddr;

/// The pool of service addresses, both families.
pub const CLUSTER_IP: &str = "clusterip";
/// The pool of node ports; health check ports are in it too.
pub const NODE_PORT: &str = "nodeport";

/// An item that one object holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// [`CLUSTER_IP`] or [`NODE_PORT`].
    pub pool: &'static str,
    /// The item: `10.96.0.7`, `30080`.
    pub item: String,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `IPv4`
    V4,
    /// `IPv6`
    V6,
}

/// Where items come from. Nothing is held before the commit: what two objects picked at once,
/// the commit refuses to one of them, which then picks again.
pub trait Pools {
    /// The families that services can have, the preferred one first.
    fn families(&self) -> &[Family];

    /// An address of a family that nothing holds; `None` when there is none left.
    fn pick_address(&mut self, family: Family) -> Option<IpAddr>;

    /// A node port that nothing holds; `None` when there is none left.
    fn pick_port(&mut self) -> Option<u16>;

    /// Whether an address is one that services may have.
    fn holds_address(&self, address: IpAddr) -> bool;

    /// Whether another object holds the item.
    fn is_taken(&self, claim: &Claim) -> bool;

    /// The range of node ports, as `30000-32767`.
    fn port_range(&self) -> String;

    /// Whether a port is in that range.
    fn holds_port(&self, port: u16) -> bool;
}
