//! What goes into a speaker and what comes out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::fsm::{ConnectionId, Why};
use crate::rib::PeerId;
use crate::types::{Family, PathAttributes, Problem};
use crate::wire::EncodeError;

/// What happens to a speaker.
///
/// It can be written down: a run that was [recorded](super::Recorded) can be had again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Input {
    /// Somebody connected to us.
    Accepted {
        /// The connection.
        connection: ConnectionId,
        /// Its ends.
        endpoint: Endpoint,
    },
    /// The connection that [`Output::Connect`] asked for is there.
    Connected {
        /// The peer.
        peer: PeerId,
        /// The connection.
        connection: ConnectionId,
        /// Its ends.
        endpoint: Endpoint,
    },
    /// The connection that [`Output::Connect`] asked for could not be made.
    ConnectFailed {
        /// The peer.
        peer: PeerId,
    },
    /// Bytes came.
    Received {
        /// The connection.
        connection: ConnectionId,
        /// They.
        #[serde(with = "crate::types::hex")]
        bytes: Bytes,
    },
    /// So many of the bytes of [`Output::Send`] have left.
    Sent {
        /// The connection.
        connection: ConnectionId,
        /// How many.
        bytes: usize,
    },
    /// A connection was closed by the other end, or broke.
    Closed {
        /// The connection.
        connection: ConnectionId,
    },
    /// The address of an unnumbered peer was learned, or is gone.
    Located {
        /// The peer.
        peer: PeerId,
        /// Its link-local address.
        address: Option<IpAddr>,
    },
    /// BFD says that the peer is gone.
    BfdDown {
        /// The peer.
        peer: PeerId,
    },
    /// A link has got or lost its carrier; or has it as before, and something else of it is new.
    Link {
        /// The interface.
        interface: String,
        /// Whether it has carrier.
        up: bool,
    },
    /// The way to a next hop became longer or shorter; `None` is unreachable.
    NextHop {
        /// The next hop.
        address: IpAddr,
        /// Its IGP metric.
        metric: Option<u32>,
    },
    /// An operator starts a peer.
    Enable {
        /// The peer.
        peer: PeerId,
    },
    /// An operator stops a peer.
    Disable {
        /// The peer.
        peer: PeerId,
        /// What to tell it (RFC 9003).
        message: String,
    },
    /// An operator restarts a session.
    Reset {
        /// The peer.
        peer: PeerId,
        /// What to tell it (RFC 9003).
        message: String,
    },
    /// Originate prefixes with attributes.
    Announce {
        /// The prefixes.
        prefixes: Vec<IpNet>,
        /// The attributes, without next hop.
        attributes: Arc<PathAttributes>,
    },
    /// Originate prefixes no longer.
    Withdraw {
        /// The prefixes.
        prefixes: Vec<IpNet>,
    },
    /// The configuration is another now.
    Configure(Box<Config>),
    /// End all sessions for good.
    Shutdown {
        /// What to tell the peers (RFC 9003).
        message: String,
    },
    /// End all sessions so that the peers keep our routes: a planned restart.
    Leave,
    /// Time has passed.
    Tick,
}

/// The ends of a connection, and by which addresses we are known on its link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Our address.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// The interface, when the peer is on a link of ours.
    pub interface: Option<String>,
    /// Our IPv4 address there.
    pub ipv4: Option<Ipv4Addr>,
    /// Our global IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
    /// Our link-local address there.
    pub link_local: Option<Ipv6Addr>,
}

/// What a speaker wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect to a peer, in place of an attempt that is being made.
    Connect {
        /// The peer.
        peer: PeerId,
        /// Where it is.
        address: IpAddr,
    },
    /// Give up the attempt to connect.
    Abandon {
        /// The peer.
        peer: PeerId,
    },
    /// Send bytes, after those sent before.
    Send {
        /// On this connection.
        connection: ConnectionId,
        /// These.
        bytes: Bytes,
    },
    /// Close a connection when all that was sent on it has left.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Tell of the way to a next hop that is behind no neighbour, with [`Input::NextHop`]: now, and
    /// whenever it becomes another. Until then it counts as reachable, at no cost.
    Resolve {
        /// The next hop.
        address: IpAddr,
    },
    /// Something that an operator may want to know.
    Notice {
        /// About this peer.
        peer: PeerId,
        /// What it is called.
        name: String,
        /// This.
        notice: Notice,
    },
}

/// Something that an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The session is up.
    Up,
    /// The session is down.
    Down(Why),
    /// Its routes are kept although it is down.
    Kept(Family),
    /// An UPDATE was wrong in a way that leaves the session up (RFC 7606).
    Problem(Problem),
    /// It has sent more prefixes than it should.
    TooManyPrefixes(Family, u32),
    /// All its routes of a family are here.
    EndOfRib(Family),
    /// A message could not be written.
    Unsendable(EncodeError),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Up => f.write_str("session up"),
            Notice::Down(why) => write!(f, "session down: {why}"),
            Notice::Kept(family) => write!(f, "stale {family} routes are kept"),
            Notice::Problem(problem) => write!(f, "bad UPDATE: {problem}"),
            Notice::TooManyPrefixes(family, limit) => {
                write!(f, "more than {limit} {family} prefixes")
            }
            Notice::EndOfRib(family) => write!(f, "all {family} routes received"),
            Notice::Unsendable(error) => write!(f, "cannot send: {error}"),
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The ends of a connection of which nothing but the addresses is known.
    pub fn between(local: IpAddr, remote: IpAddr) -> Self {
        let (mut ipv4, mut ipv6, mut link_local) = (None, None, None);
        match local {
            IpAddr::V4(address) => ipv4 = Some(address),
            IpAddr::V6(address) if address.is_unicast_link_local() => link_local = Some(address),
            IpAddr::V6(address) => ipv6 = Some(address),
        }
        Endpoint {
            local,
            remote,
            interface: None,
            ipv4,
            ipv6,
            link_local,
        }
    }
}
