//! The machine.

mod ends;

use std::time::Duration;

use self::ends::unexpected;
use super::collision::keep_outgoing;
use super::connection::{Connection, Phase};
use super::damping::Damping;
use super::event::{Action, ConnectionId, Down, Event, Pause, State, Why};
use super::terms::{Agreement, Terms};
use crate::Time;
use crate::chance::Chance;
use crate::time::{due, earliest};
use crate::types::{CeaseError, Message, Notification, NotificationError, Open, OpenError};

/// The state machine of one peer.
#[derive(Clone, Debug)]
pub struct Fsm {
    /// What sessions with the peer are to be. What is changed counts from the next OPEN on.
    pub terms: Terms,
    resting: State,
    connections: Vec<Connection>,
    connect_retry: Option<Time>,
    idle_hold: Option<Time>,
    /// The peer is let in although we are in Idle.
    welcome: bool,
    damping: Damping,
    last: Option<Why>,
}

/// The machine at work on one event.
struct Step<'a> {
    fsm: &'a mut Fsm,
    now: Time,
    chance: &'a mut Chance,
    actions: &'a mut Vec<Action>,
}

// === impl Fsm ===

impl Fsm {
    /// A machine in Idle.
    pub fn new(terms: Terms) -> Self {
        Fsm {
            terms,
            resting: State::Idle,
            connections: Vec::new(),
            connect_retry: None,
            idle_hold: None,
            welcome: false,
            damping: Damping::default(),
            last: None,
        }
    }

    /// What an event leads to.
    pub fn handle(
        &mut self,
        event: Event,
        now: Time,
        chance: &mut Chance,
        actions: &mut Vec<Action>,
    ) {
        let mut step = Step {
            fsm: self,
            now,
            chance,
            actions,
        };
        match event {
            Event::Start => step.start(),
            Event::End(why, pause) => step.end(why, pause),
            Event::Connected {
                connection,
                outgoing,
            } => step.connected(connection, outgoing),
            Event::ConnectFailed => step.connect_failed(),
            Event::Closed(connection) => step.closed(connection),
            Event::Received(connection, message) => step.received(connection, message),
            Event::Malformed(connection, notification) => {
                step.fail(connection, Why::Sent(notification));
            }
            Event::Tick => step.tick(),
        }
    }

    /// Where the peer stands: the farthest of its connections.
    pub fn state(&self) -> State {
        let states = self.connections.iter().map(|one| one.state(self.resting));
        states.max().unwrap_or(self.resting)
    }

    /// When [`Event::Tick`] is due.
    pub fn deadline(&self) -> Option<Time> {
        let connections = self.connections.iter().flat_map(Connection::deadlines);
        earliest(connections.chain([self.connect_retry, self.idle_hold]))
    }

    /// The connection of the established session, and what was agreed on it.
    pub fn session(&self) -> Option<(ConnectionId, &Agreement)> {
        let one = self.connections.iter().find(|one| one.established())?;
        Some((one.id, one.agreement()?))
    }

    /// What was agreed on a connection so far.
    pub fn agreement(&self, connection: ConnectionId) -> Option<&Agreement> {
        self.connections
            .iter()
            .find(|one| one.id == connection)?
            .agreement()
    }

    /// Why the last session, or attempt at one, ended.
    pub fn last_end(&self) -> Option<&Why> {
        self.last.as_ref()
    }

    /// Bad ends in a row.
    pub fn failures(&self) -> u32 {
        self.damping.failures()
    }

    /// When a wait in Idle ends.
    pub fn idle_until(&self) -> Option<Time> {
        self.idle_hold
    }
}

// === impl Step: what events do ===

impl Step<'_> {
    fn start(&mut self) {
        if !matches!(self.fsm.resting, State::Idle | State::Active)
            || !self.fsm.connections.is_empty()
        {
            return;
        }
        self.fsm.idle_hold = None;
        match self.fsm.terms.passive {
            true => self.fsm.resting = State::Active,
            false => self.connect(),
        }
    }

    fn connect(&mut self) {
        self.fsm.resting = State::Connect;
        self.restart_connect_retry();
        self.actions.push(Action::Connect);
    }

    fn restart_connect_retry(&mut self) {
        let period = self.chance.jitter(self.fsm.terms.connect_retry);
        self.fsm.connect_retry = (!self.fsm.terms.passive).then(|| self.now + period);
    }

    fn end(&mut self, why: Why, pause: Pause) {
        let ids: Vec<ConnectionId> = self.fsm.connections.iter().map(|one| one.id).collect();
        for id in ids {
            self.drop_connection(id, &why);
        }
        self.rest(why, pause);
    }

    fn connected(&mut self, id: ConnectionId, outgoing: bool) {
        if self.fsm.resting == State::Idle && !self.welcome_in_idle(outgoing) {
            self.actions.push(Action::Close(id));
            return;
        }
        if self
            .fsm
            .session()
            .is_some_and(|(_, agreed)| outgoing || agreed.graceful_restart.is_none())
        {
            // A session stands; another connection is a collision that it wins. With graceful restart
            // the peer may have lost the session and call again (RFC 4724 section 4.2), but our own
            // call, which we gave up when the session came up, tells nothing of that.
            let cease = Notification::cease(CeaseError::CollisionResolution);
            self.actions
                .push(Action::Send(id, Message::Notification(cease)));
            self.actions.push(Action::Close(id));
            return;
        }
        if outgoing {
            self.fsm.connect_retry = None;
            self.fsm.resting = State::Active;
        }
        let older = self
            .fsm
            .connections
            .iter()
            .find(|one| one.outgoing == outgoing && !one.established());
        if let Some(older) = older.map(|one| one.id) {
            // The peer has given up the older one, or it would not have made another.
            self.drop_connection(older, &Why::Closed);
        }
        let mut fresh = Connection::new(id, outgoing, Phase::Delayed);
        if self.fsm.terms.delay_open > Duration::ZERO {
            fresh.delay_open = Some(self.now + self.chance.jitter(self.fsm.terms.delay_open));
        } else {
            fresh.open_sent(self.now);
            self.actions.push(Action::SendOpen(id));
        }
        self.fsm.connections.push(fresh);
    }

    /// A peer that comes by itself ends a wait of the first few, since it is back already.
    fn welcome_in_idle(&mut self, outgoing: bool) -> bool {
        let welcome = !outgoing && self.fsm.welcome;
        if welcome {
            self.fsm.idle_hold = None;
            self.fsm.resting = State::Active;
            self.restart_connect_retry();
        }
        welcome
    }

    fn connect_failed(&mut self) {
        if self.fsm.resting == State::Connect {
            self.fsm.resting = State::Active;
            self.restart_connect_retry();
        }
    }

    fn closed(&mut self, id: ConnectionId) {
        let Some(one) = self.connection(id) else {
            return;
        };
        let phase = one.phase.clone();
        self.fsm.connections.retain(|one| one.id != id);
        match phase {
            Phase::Established(agreement) => {
                self.actions.push(Action::Down(Down { why: Why::Closed }));
                let graceful = agreement.graceful_restart.is_some();
                let pause = if graceful {
                    Pause::Graceful
                } else {
                    Pause::Damped
                };
                self.rest_if_alone(Why::Closed, pause);
            }
            Phase::OpenConfirm(_) => self.rest_if_alone(Why::Closed, Pause::Damped),
            Phase::Delayed | Phase::OpenSent => self.lose_quietly(),
        }
    }

    /// A connection that had not come far is gone: wait for the next.
    fn lose_quietly(&mut self) {
        if self.fsm.connections.is_empty() && self.fsm.resting != State::Idle {
            self.fsm.last.get_or_insert(Why::Closed);
            self.fsm.resting = State::Active;
            self.restart_connect_retry();
        }
    }

    fn received(&mut self, id: ConnectionId, message: Message) {
        let Some(one) = self.connection(id) else {
            return;
        };
        if let Message::Notification(notification) = message {
            self.notified(id, notification);
            return;
        }
        match (&one.phase, message) {
            (Phase::Delayed | Phase::OpenSent, Message::Open(open)) => self.opened(id, &open),
            (Phase::OpenConfirm(_), Message::Keepalive) => self.establish(id),
            (Phase::Established(_), Message::Keepalive) => self.heard(id),
            (Phase::Established(_), Message::Update(update)) => {
                self.heard(id);
                self.actions.push(Action::Update(update));
            }
            (Phase::Established(_), Message::RouteRefresh(refresh)) => {
                self.heard(id);
                self.actions.push(Action::Refresh(refresh));
            }
            (phase, message) => {
                let error = unexpected(phase, &message);
                self.fail(id, Why::Sent(error));
            }
        }
    }

    fn notified(&mut self, id: ConnectionId, notification: Notification) {
        let Some(one) = self.connection(id) else {
            return;
        };
        let collided =
            notification.error == NotificationError::Cease(CeaseError::CollisionResolution);
        let version = notification.error == NotificationError::Open(OpenError::UnsupportedVersion);
        if (collided || version) && !one.established() {
            self.fsm.connections.retain(|one| one.id != id);
            self.actions.push(Action::Close(id));
            self.lose_quietly();
        } else {
            self.fail(id, Why::Received(notification));
        }
    }

    fn heard(&mut self, id: ConnectionId) {
        let now = self.now;
        if let Some(one) = self.connection(id) {
            one.heard(now);
        }
    }

    fn opened(&mut self, id: ConnectionId, open: &Open) {
        let agreement = match self.fsm.terms.agree(open) {
            Ok(agreement) => Box::new(agreement),
            Err(notification) => return self.fail(id, Why::Sent(notification)),
        };
        if !self.survives_collision(id, &agreement) {
            return;
        }
        let (now, terms) = (self.now, self.fsm.terms.clone());
        let Some(one) = self.fsm.connections.iter_mut().find(|one| one.id == id) else {
            return;
        };
        if matches!(one.phase, Phase::Delayed) {
            self.actions.push(Action::SendOpen(id));
            one.delay_open = None;
        }
        one.phase = Phase::OpenConfirm(agreement);
        one.heard(now);
        one.spoke(now, &terms, self.chance);
        self.actions.push(Action::Send(id, Message::Keepalive));
        self.fsm.connect_retry = None;
    }

    /// Drops this connection or the others, whichever must go; whether this one stays.
    fn survives_collision(&mut self, id: ConnectionId, agreement: &Agreement) -> bool {
        let others: Vec<(ConnectionId, bool)> = self
            .fsm
            .connections
            .iter()
            .filter(|one| one.id != id)
            .map(|one| (one.id, one.established()))
            .collect();
        let outgoing = self.connection(id).is_some_and(|one| one.outgoing);
        for (other, established) in others {
            if established {
                // Only with graceful restart: the peer has lost the session that we still see.
                self.drop_connection(other, &Why::Replaced);
                continue;
            }
            let ours = (self.fsm.terms.router_id, self.fsm.terms.local_as);
            let theirs = (agreement.theirs.router_id, agreement.theirs.asn());
            let cease = Why::Sent(Notification::cease(CeaseError::CollisionResolution));
            if keep_outgoing(ours, theirs) == outgoing {
                self.drop_connection(other, &cease);
            } else if self
                .connection(other)
                .is_some_and(|other| other.agreement().is_some())
            {
                self.drop_connection(id, &cease);
                return false;
            }
        }
        if outgoing {
            return true;
        }
        if self.fsm.resting == State::Connect {
            self.actions.push(Action::Abandon);
            self.fsm.resting = State::Active;
        }
        true
    }

    fn establish(&mut self, id: ConnectionId) {
        // Another connection that was waiting for its OPEN has lost now.
        let cease = Why::Sent(Notification::cease(CeaseError::CollisionResolution));
        let others = self
            .fsm
            .connections
            .iter()
            .map(|one| one.id)
            .filter(|other| *other != id);
        for other in others.collect::<Vec<_>>() {
            self.drop_connection(other, &cease);
        }
        let now = self.now;
        let Some(one) = self.connection(id) else {
            return;
        };
        let Phase::OpenConfirm(agreement) = one.phase.clone() else {
            return;
        };
        one.phase = Phase::Established(agreement.clone());
        one.heard(now);
        self.fsm.connect_retry = None;
        self.fsm.resting = State::Active;
        self.fsm.damping.established(now);
        self.fsm.last = None;
        self.actions.push(Action::Up(id, agreement));
    }

    fn tick(&mut self) {
        if due(self.fsm.idle_hold, self.now) {
            self.start();
        }
        if due(self.fsm.connect_retry, self.now) {
            self.connect();
        }
        let ids: Vec<ConnectionId> = self.fsm.connections.iter().map(|one| one.id).collect();
        for id in ids {
            self.tick_connection(id);
        }
    }

    fn tick_connection(&mut self, id: ConnectionId) {
        let (now, terms) = (self.now, self.fsm.terms.clone());
        let Some(one) = self.fsm.connections.iter_mut().find(|one| one.id == id) else {
            return;
        };
        if due(one.hold, now) {
            let expired = Notification::new(NotificationError::HoldTimerExpired);
            self.fail(id, Why::Sent(expired));
            return;
        }
        if due(one.delay_open, now) {
            one.open_sent(now);
            self.actions.push(Action::SendOpen(id));
        }
        if due(one.keepalive, now) {
            one.spoke(now, &terms, self.chance);
            self.actions.push(Action::Send(id, Message::Keepalive));
        }
    }
}
