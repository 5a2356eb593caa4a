//! How connections end, and what the peer's machine does then.

use std::time::Duration;

use super::super::connection::{Connection, Phase};
use super::super::event::{Action, ConnectionId, Down, Pause, State, Why};
use super::Step;
use crate::types::{CeaseError, FsmError, Message, MessageType, Notification, NotificationError};

/// How long to wait, the first time, after the peer closed a session for another connection that is
/// no more: both ends connected at the same moment.
const COLLIDED: Duration = Duration::from_millis(100);

/// So many times in a row a peer may close its connection and come back at once.
const GRACEFUL_WELCOMES: u32 = 5;

impl Step<'_> {
    pub(super) fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.fsm.connections.iter_mut().find(|one| one.id == id)
    }

    /// A connection ends badly.
    pub(super) fn fail(&mut self, id: ConnectionId, why: Why) {
        if self.connection(id).is_none() {
            return;
        }
        self.drop_connection(id, &why);
        self.rest_if_alone(why, Pause::Damped);
    }

    /// Closes a connection, telling the peer why when that is ours to tell.
    pub(super) fn drop_connection(&mut self, id: ConnectionId, why: &Why) {
        let Some(at) = self.fsm.connections.iter().position(|one| one.id == id) else {
            return;
        };
        let one = self.fsm.connections.remove(at);
        if let Why::Sent(notification) = why {
            self.actions.push(Action::Send(
                id,
                Message::Notification(notification.clone()),
            ));
        } else if *why == Why::BfdDown {
            let cease = Notification::cease(CeaseError::BfdDown);
            self.actions
                .push(Action::Send(id, Message::Notification(cease)));
        }
        self.actions.push(Action::Close(id));
        if one.established() {
            self.actions.push(Action::Down(Down { why: why.clone() }));
        }
    }

    pub(super) fn rest_if_alone(&mut self, why: Why, pause: Pause) {
        if self.fsm.connections.is_empty() {
            self.rest(why, pause);
        }
    }

    /// To Idle.
    pub(super) fn rest(&mut self, why: Why, pause: Pause) {
        if self.fsm.resting == State::Connect {
            self.actions.push(Action::Abandon);
        }
        self.fsm.resting = State::Idle;
        self.fsm.connect_retry = None;
        // Who comes over a link that was down has seen it come up before we did.
        self.fsm.welcome = why == Why::LinkDown;
        let collided = matches!(&why, Why::Received(told)
            if told.error == NotificationError::Cease(CeaseError::CollisionResolution));
        self.fsm.last = Some(why);
        self.fsm.idle_hold = match pause {
            Pause::UntilStart => {
                self.fsm.damping.forgive();
                None
            }
            Pause::For(wait) => Some(self.now + wait),
            Pause::Damped | Pause::Graceful => {
                let wait = self.fsm.damping.failed(self.now);
                // Each end has closed the connection that the other one kept.
                let wait = match collided && self.fsm.damping.failures() == 1 {
                    true => COLLIDED,
                    false => wait,
                };
                let most = if pause == Pause::Graceful {
                    GRACEFUL_WELCOMES
                } else {
                    1
                };
                self.fsm.welcome = self.fsm.damping.failures() <= most;
                Some(self.now + self.chance.jitter(wait))
            }
        };
    }
}

/// What to say to a message that has no place in this phase (RFC 6608).
pub(super) fn unexpected(phase: &Phase, message: &Message) -> Notification {
    let error = match phase {
        Phase::Delayed | Phase::OpenSent => FsmError::InOpenSent,
        Phase::OpenConfirm(_) => FsmError::InOpenConfirm,
        Phase::Established(_) => FsmError::InEstablished,
    };
    let kind = match message {
        Message::Open(_) => MessageType::Open,
        Message::Update(_) => MessageType::Update,
        Message::Notification(_) => MessageType::Notification,
        Message::Keepalive => MessageType::Keepalive,
        Message::RouteRefresh(_) => MessageType::RouteRefresh,
    };
    Notification::with_data(NotificationError::Fsm(error), vec![u8::from(kind)])
}
