//! What goes into the machine and what comes out.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::terms::Agreement;
use crate::types::{Message, Notification, RouteRefresh, Update};

/// A transport connection, by a number that its owner gives it and never uses again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// State of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing is tried: stopped, or waiting out a bad end.
    Idle,
    /// Connecting.
    Connect,
    /// Waiting to be connected to, or for the next attempt.
    Active,
    /// Our OPEN is sent.
    OpenSent,
    /// Theirs was good.
    OpenConfirm,
    /// The session is up.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happens to a peer.
#[derive(Clone, Debug)]
pub enum Event {
    /// Run the session (ManualStart, AutomaticStart). Ends a wait in Idle or Active: the peer
    /// can be reached now.
    Start,
    /// End it, and try again after a pause.
    End(Why, Pause),
    /// A connection is there, which we made (`outgoing`) or which the peer made.
    Connected {
        /// Its number.
        connection: ConnectionId,
        /// Whether we made it.
        outgoing: bool,
    },
    /// Our attempt to connect failed.
    ConnectFailed,
    /// A connection was closed, or broke.
    Closed(ConnectionId),
    /// A message came.
    Received(ConnectionId, Message),
    /// What came is no message that leaves the session up.
    Malformed(ConnectionId, Notification),
    /// Time has passed.
    Tick,
}

/// How long a peer stays Idle after its session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A wait that doubles with each failure.
    Damped,
    /// The same, but the peer is let in sooner: it has only closed its connection, as one does
    /// that restarts gracefully.
    Graceful,
    /// This long.
    For(Duration),
    /// Until it is started.
    UntilStart,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Make a connection to the peer, in place of one that is being made.
    Connect,
    /// Give up the connection that is being made.
    Abandon,
    /// Send our OPEN.
    SendOpen(ConnectionId),
    /// Send a message.
    Send(ConnectionId, Message),
    /// Close a connection, after what was sent on it is gone.
    Close(ConnectionId),
    /// The session is up.
    Up(ConnectionId, Box<Agreement>),
    /// The session is down.
    Down(Down),
    /// Routes came.
    Update(Update),
    /// A ROUTE-REFRESH came.
    Refresh(RouteRefresh),
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Down {
    /// Why.
    pub why: Why,
}

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// We said so.
    Sent(Notification),
    /// The peer said so.
    Received(Notification),
    /// The connection broke, or the peer closed it without a word.
    Closed,
    /// BFD says that the peer is gone, or the link to it is.
    BfdDown,
    /// The link to the peer is gone.
    LinkDown,
    /// The peer was restarted and came back on a new connection.
    Replaced,
    /// We closed it without a word, so that the peer keeps our routes (planned restart).
    Silent,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Sent(notification) => write!(f, "sent {notification}"),
            Why::Received(notification) => write!(f, "received {notification}"),
            Why::Closed => f.write_str("connection closed"),
            Why::BfdDown => f.write_str("BFD down"),
            Why::LinkDown => f.write_str("link down"),
            Why::Replaced => f.write_str("peer restarted"),
            Why::Silent => f.write_str("closed for a planned restart"),
        }
    }
}
