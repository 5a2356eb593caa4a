//! NodePorts: no two pods of a node take the same port of it.

use crate::core::node::Node;
use crate::core::reason::{Plugin, Reason, Refusal};
use crate::core::shape::Shape;
use crate::view;

const ANY: &str = "0.0.0.0";

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The node's address that it is taken on; `0.0.0.0` is all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The port of the node that a container's port takes, if it takes one.
    pub fn of(port: &view::Port) -> Option<Self> {
        let full = |text: &Option<String>, default: &str| match text.as_deref() {
            None | Some("") => default.to_owned(),
            Some(text) => text.to_owned(),
        };
        Some(Self {
            port: port.host_port.filter(|port| *port > 0)?,
            ip: full(&port.host_ip, ANY),
            protocol: full(&port.protocol, "TCP"),
        })
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY || other.ip == ANY)
    }
}

/// The filter.
pub fn check(shape: &Shape, node: &Node) -> Result<(), Refusal> {
    let taken = |port: &HostPort| node.ports.iter().any(|other| port.conflicts(other));
    if shape.ports.iter().any(taken) {
        return Err(Refusal::resolvable(Plugin::NodePorts, Reason::Ports));
    }
    Ok(())
}
