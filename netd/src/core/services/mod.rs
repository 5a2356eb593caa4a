//! The service map: which address and port leads to which endpoints.
//!
//! Services and EndpointSlices go in, changes of [`Frontend`]s come out. The kernel looks a
//! packet's destination up in one map, however many services there are; how that map is
//! encoded is none of this module's business.

mod backends;
mod table;

use std::net::{IpAddr, SocketAddr};

pub use backends::{Backends, keep_order};
pub use table::{Change, ServiceTable};

use peapod_api::attach::Protocol;

/// Where clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frontend {
    /// An address of the service's own: cluster, external or load balancer address.
    Address {
        /// The address.
        ip: IpAddr,
        /// Transport protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A port of every address of this node.
    NodePort {
        /// IPv4, or IPv6.
        v4: bool,
        /// Transport protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
}

impl Frontend {
    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        match self {
            Frontend::Address { ip, .. } => ip.is_ipv4(),
            Frontend::NodePort { v4, .. } => *v4,
        }
    }

    /// Its protocol.
    pub fn protocol(&self) -> Protocol {
        match self {
            Frontend::Address { protocol, .. } | Frontend::NodePort { protocol, .. } => *protocol,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        match self {
            Frontend::Address { port, .. } | Frontend::NodePort { port, .. } => *port,
        }
    }
}

/// Where the packets of a frontend go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dispatch {
    /// To one of the endpoints, chosen at random for each connection.
    Balance(Balance),
    /// Nowhere, and the client is told at once: there is no endpoint.
    Refuse,
    /// Nowhere, silently: there are endpoints, but the traffic policy wants one on this node.
    Drop,
    /// To this node itself, which serves it (the cluster's DNS).
    Here,
}

/// The choice among endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// For every client; or, when `outside` is given, for pods and nodes of the cluster only.
    pub endpoints: Vec<SocketAddr>,
    /// For clients outside of the cluster, when they may have this node's endpoints only;
    /// when there are none, what they send is dropped.
    pub outside: Option<Vec<SocketAddr>>,
    /// For how many seconds a client stays with its endpoint.
    pub affinity_s: Option<u32>,
}

impl Dispatch {
    /// Every endpoint that a connection may have been led to.
    pub fn endpoints(&self) -> impl Iterator<Item = &SocketAddr> {
        let balance = match self {
            Dispatch::Balance(balance) => Some(balance),
            _ => None,
        };
        balance.into_iter().flat_map(|balance| {
            let outside = balance.outside.iter().flatten();
            balance.endpoints.iter().chain(outside)
        })
    }
}
