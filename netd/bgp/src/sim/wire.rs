//! Connections: what a speaker wants done with them is done.

use std::net::IpAddr;

use bytes::Bytes;

use super::Net;
use crate::fsm::ConnectionId;
use crate::rib::PeerId;
use crate::speaker::{Endpoint, Input, Output};

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Far {
    pub(super) node: usize,
    pub(super) connection: ConnectionId,
    pub(super) link: usize,
}

impl Net {
    pub(super) fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Connect { peer, address } => self.connect(node, peer, address),
            Output::Send { connection, bytes } => self.send(node, connection, bytes),
            Output::Close { connection } => {
                if let Some(far) = self.connections.remove(&connection) {
                    self.connections.remove(&far.connection);
                    let closed = Input::Closed {
                        connection: far.connection,
                    };
                    self.later(far.node, Some(far.link), closed);
                }
            }
            Output::Abandon { .. } | Output::Notice { .. } | Output::Resolve { .. } => {}
        }
    }

    fn connect(&mut self, node: usize, peer: PeerId, address: IpAddr) {
        let links = self.links.iter().enumerate();
        let found = links
            .filter(|(_, link)| link.up)
            .find_map(|(at, link)| match link.ends {
                [near, far] if near.0 == node && far.1 == address => Some((at, near, far)),
                [far, near] if near.0 == node && far.1 == address => Some((at, near, far)),
                _ => None,
            });
        let Some((link, near, far)) = found else {
            self.later(node, None, Input::ConnectFailed { peer });
            return;
        };
        self.next += 2;
        let (ours, theirs) = (ConnectionId(self.next - 1), ConnectionId(self.next));
        self.connections.insert(
            ours,
            Far {
                node: far.0,
                connection: theirs,
                link,
            },
        );
        self.connections.insert(
            theirs,
            Far {
                node,
                connection: ours,
                link,
            },
        );
        let ends = |local: IpAddr, remote: IpAddr| Endpoint {
            interface: Some(format!("link{link}")),
            ..Endpoint::between(local, remote)
        };
        let endpoint = ends(near.1, far.1);
        self.later(
            node,
            Some(link),
            Input::Connected {
                peer,
                connection: ours,
                endpoint,
            },
        );
        let endpoint = ends(far.1, near.1);
        self.later(
            far.0,
            Some(link),
            Input::Accepted {
                connection: theirs,
                endpoint,
            },
        );
    }

    fn send(&mut self, node: usize, connection: ConnectionId, bytes: Bytes) {
        let count = bytes.len();
        if let Some(far) = self.connections.get(&connection).copied() {
            let input = Input::Received {
                connection: far.connection,
                bytes,
            };
            self.later(far.node, Some(far.link), input);
        }
        self.later(
            node,
            None,
            Input::Sent {
                connection,
                bytes: count,
            },
        );
    }
}
