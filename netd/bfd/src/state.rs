//! The states of a session, and the reasons for leaving one (RFC 5880 §4.1).

use std::fmt;

/// The state of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Held down by an operator. Says nothing about the path.
    AdminDown,
    /// Not heard from the neighbour, or just lost it.
    #[default]
    Down,
    /// Heard from the neighbour; it may not have heard from here.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    pub(crate) fn from_bits(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    pub(crate) fn bits(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }

    /// The next state after a packet with the neighbour's `remote` state (RFC 5880 §6.2, §6.8.6).
    pub(crate) fn after(self, remote: State) -> State {
        match (self, remote) {
            (State::AdminDown, _) => State::AdminDown,
            (_, State::AdminDown) => State::Down,
            (State::Down, State::Down) => State::Init,
            (State::Down, State::Init) => State::Up,
            (State::Down, State::Up) => State::Down,
            (State::Init, State::Down) => State::Init,
            (State::Init, State::Init | State::Up) => State::Up,
            (State::Up, State::Down) => State::Down,
            (State::Up, State::Init | State::Up) => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        })
    }
}

/// Why a session last left Up, as its sender says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// It never did.
    #[default]
    None,
    /// Nothing was heard for the detection time.
    DetectionTimeExpired,
    /// The echo function failed.
    EchoFailed,
    /// The neighbour said that it is down.
    NeighborSignaledDown,
    /// The forwarding plane was reset.
    ForwardingPlaneReset,
    /// The path is known to be down, as when the link has no carrier.
    PathDown,
    /// A path that this one is joined to is down.
    ConcatenatedPathDown,
    /// An operator took it down.
    AdministrativelyDown,
    /// The same in the other direction of a joined path.
    ReverseConcatenatedPathDown,
    /// A reason that is not assigned; 5 bits.
    Other(u8),
}

impl Diagnostic {
    pub(crate) fn from_bits(bits: u8) -> Diagnostic {
        match bits & 0x1f {
            0 => Diagnostic::None,
            1 => Diagnostic::DetectionTimeExpired,
            2 => Diagnostic::EchoFailed,
            3 => Diagnostic::NeighborSignaledDown,
            4 => Diagnostic::ForwardingPlaneReset,
            5 => Diagnostic::PathDown,
            6 => Diagnostic::ConcatenatedPathDown,
            7 => Diagnostic::AdministrativelyDown,
            8 => Diagnostic::ReverseConcatenatedPathDown,
            other => Diagnostic::Other(other),
        }
    }

    pub(crate) fn bits(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::EchoFailed => 2,
            Diagnostic::NeighborSignaledDown => 3,
            Diagnostic::ForwardingPlaneReset => 4,
            Diagnostic::PathDown => 5,
            Diagnostic::ConcatenatedPathDown => 6,
            Diagnostic::AdministrativelyDown => 7,
            Diagnostic::ReverseConcatenatedPathDown => 8,
            Diagnostic::Other(other) => other & 0x1f,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Diagnostic::None => "no diagnostic",
            Diagnostic::DetectionTimeExpired => "control detection time expired",
            Diagnostic::EchoFailed => "echo function failed",
            Diagnostic::NeighborSignaledDown => "neighbor signaled session down",
            Diagnostic::ForwardingPlaneReset => "forwarding plane reset",
            Diagnostic::PathDown => "path down",
            Diagnostic::ConcatenatedPathDown => "concatenated path down",
            Diagnostic::AdministrativelyDown => "administratively down",
            Diagnostic::ReverseConcatenatedPathDown => "reverse concatenated path down",
            Diagnostic::Other(code) => return write!(f, "diagnostic {code}"),
        })
    }
}
