//! One transport connection on its way to a session.

use std::time::Duration;

use super::event::{ConnectionId, State};
use super::terms::{Agreement, Terms};
use crate::Time;
use crate::chance::Chance;

/// Hold time while waiting for the peer's OPEN (RFC 4271 section 8.2.2 suggests 4 minutes).
const OPEN_HOLD: Duration = Duration::from_secs(240);

/// A connection, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub id: ConnectionId,
    pub outgoing: bool,
    pub phase: Phase,
    /// HoldTimer.
    pub hold: Option<Time>,
    /// KeepaliveTimer.
    pub keepalive: Option<Time>,
    /// DelayOpenTimer.
    pub delay_open: Option<Time>,
}

/// How far a connection has come.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Connected; the peer's OPEN is waited for before ours is sent.
    Delayed,
    /// Our OPEN is sent.
    OpenSent,
    /// The peer's OPEN was good; its KEEPALIVE is waited for.
    OpenConfirm(Box<Agreement>),
    /// Messages flow.
    Established(Box<Agreement>),
}

// === impl Connection ===

impl Connection {
    pub fn new(id: ConnectionId, outgoing: bool, phase: Phase) -> Self {
        Connection {
            id,
            outgoing,
            phase,
            hold: None,
            keepalive: None,
            delay_open: None,
        }
    }

    pub fn state(&self, resting: State) -> State {
        match self.phase {
            Phase::Delayed => resting,
            Phase::OpenSent => State::OpenSent,
            Phase::OpenConfirm(_) => State::OpenConfirm,
            Phase::Established(_) => State::Established,
        }
    }

    pub fn agreement(&self) -> Option<&Agreement> {
        match &self.phase {
            Phase::Delayed | Phase::OpenSent => None,
            Phase::OpenConfirm(agreement) | Phase::Established(agreement) => Some(agreement),
        }
    }

    pub fn established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }

    /// Our OPEN goes out.
    pub fn open_sent(&mut self, now: Time) {
        self.phase = Phase::OpenSent;
        self.delay_open = None;
        self.hold = Some(now + OPEN_HOLD);
    }

    /// Something was heard: HoldTimer starts anew.
    pub fn heard(&mut self, now: Time) {
        let seconds = self
            .agreement()
            .map_or(0, |agreement| agreement.hold_seconds);
        self.hold = (seconds > 0).then(|| now + Duration::from_secs(seconds.into()));
    }

    /// A KEEPALIVE goes out: KeepaliveTimer starts anew.
    pub fn spoke(&mut self, now: Time, terms: &Terms, chance: &mut Chance) {
        let seconds = self
            .agreement()
            .map_or(0, |agreement| agreement.hold_seconds);
        self.keepalive = terms
            .keepalive(seconds)
            .map(|period| now + chance.jitter(period));
    }

    pub fn deadlines(&self) -> [Option<Time>; 3] {
        [self.hold, self.keepalive, self.delay_open]
    }
}
