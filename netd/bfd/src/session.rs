//! One session with a neighbour (RFC 5880 §6.8).
//!
//! ```text
//!              hears Down              hears Init or Up
//!   Down ──────────────────▶ Init ──────────────────────▶ Up
//!    │ ▲                      │                           │▲
//!    │ └──────────────────────┴───────────────────────────┘│
//!    │    silence, path down, neighbour AdminDown           │
//!    │    (from Up also: hears Down)                        │
//!    └──────────────────── hears Init ──────────────────────┘
//! ```
//!
//! AdminDown is entered and left by the operator only.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::packet::micros;
use crate::timing::{SLOW, jittered};
use crate::{Config, Diagnostic, Packet, State, TTL};

/// A session. Times are durations since a moment of the caller's choice, the same for all calls;
/// `random` is a number from all of `u32`, a new one for each call.
#[derive(Debug, Clone)]
pub struct Session {
    config: Config,
    state: State,
    diagnostic: Diagnostic,
    remote: Remote,
    poll: Poll,
    tx: Interval,
    rx: Interval,
    last_sent: Option<Duration>,
    /// Chance in the gap after `last_sent`.
    random: u32,
}

/// A change of intervals being told until the neighbour confirms it (RFC 5880 §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    No,
    Running,
    /// There was another change meanwhile: the confirmation under way is not of that.
    RunningThenAgain,
}

/// An interval of this end, in microseconds. What packets say can be ahead of what is in force:
/// until the neighbour confirms it, the change must not make it hear too little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    told: u32,
    in_force: u32,
}

/// What the neighbour's last packet said.
#[derive(Debug, Clone, Copy)]
struct Remote {
    discriminator: Option<NonZeroU32>,
    state: State,
    desired_min_tx: u32,
    required_min_rx: u32,
    detect_multiplier: u8,
    demand: bool,
    control_plane_independent: bool,
    /// When that was.
    heard: Option<Duration>,
}

impl Remote {
    /// A neighbour never heard of. One microsecond is what RFC 5880 §6.8.1 begins with.
    const UNKNOWN: Remote = Remote {
        discriminator: None,
        state: State::Down,
        desired_min_tx: 0,
        required_min_rx: 1,
        detect_multiplier: 1,
        demand: false,
        control_plane_independent: false,
        heard: None,
    };
}

/// A packet as it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The packet.
    pub packet: Packet,
    /// TTL or hop limit that it arrived with.
    pub ttl: u8,
}

/// What follows from an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A packet to send at once.
    pub send: Option<Packet>,
    /// The session has changed its state.
    pub change: Option<StateChange>,
    /// The packet received was dropped.
    pub discarded: Option<Discard>,
}

/// A change of a session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateChange {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Why Up was left last.
    pub diagnostic: Diagnostic,
    /// The neighbour's state: if it is AdminDown, its operator wants no BFD, which says nothing
    /// about the path (RFC 5882 §3.2).
    pub remote_state: State,
    /// The neighbour's BFD lives through a loss of its control plane (C bit): if not, its silence
    /// may be no more than a restart (RFC 5882 §4.3).
    pub remote_control_plane_independent: bool,
}

impl StateChange {
    /// Whether the path that worked is lost, rather than BFD on it taken down by an operator.
    pub fn is_failure(&self) -> bool {
        self.from == State::Up && self.to == State::Down && self.remote_state != State::AdminDown
    }
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Discard {
    /// It came through a router, so not from the neighbour.
    #[error("the packet arrived with TTL {0} instead of 255")]
    Ttl(u8),
    /// It is of another session.
    #[error("the packet is for discriminator {0}")]
    Discriminator(NonZeroU32),
    /// This end is AdminDown.
    #[error("the session is administratively down")]
    AdminDown,
}

impl Session {
    /// A session that has heard nothing yet, with its first packet due at once (unless it is
    /// passive).
    pub fn new(config: Config) -> Session {
        let interval = |micros| Interval {
            told: micros,
            in_force: micros,
        };
        Session {
            config,
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote: Remote::UNKNOWN,
            poll: Poll::No,
            tx: interval(micros(config.desired_min_tx.max(SLOW))),
            rx: interval(micros(config.required_min_rx)),
            last_sent: None,
            random: u32::MAX,
        }
    }

    /// Takes in a packet, found to be of this session (RFC 5880 §6.8.6).
    pub fn receive(&mut self, received: &Received, now: Duration, random: u32) -> Outcome {
        let Received { packet, ttl } = received;
        if let Err(discarded) = self.check(packet, *ttl) {
            return Outcome {
                discarded: Some(discarded),
                ..Outcome::default()
            };
        }
        self.remote.discriminator = Some(packet.my_discriminator);
        self.remote.state = packet.state;
        self.remote.desired_min_tx = packet.desired_min_tx;
        self.remote.required_min_rx = packet.required_min_rx;
        self.remote.detect_multiplier = packet.detect_multiplier;
        self.remote.demand = packet.demand;
        self.remote.control_plane_independent = packet.control_plane_independent;
        if packet.final_ {
            self.confirmed();
        }
        if self.state == State::AdminDown {
            return Outcome {
                discarded: Some(Discard::AdminDown),
                ..Outcome::default()
            };
        }
        self.remote.heard = Some(now);
        let next = self.state.after(packet.state);
        let lost = next == State::Down && self.state != State::Down;
        let diagnostic = if lost {
            Diagnostic::NeighborSignaledDown
        } else {
            self.diagnostic
        };
        let mut outcome = self.enter(next, diagnostic, now, random);
        if packet.poll {
            outcome.send = Some(Packet {
                poll: false,
                final_: true,
                ..self.packet()
            });
        }
        outcome
    }

    /// Does what is due: to be called when [`Session::deadline`] is reached, harmless at any time.
    pub fn tick(&mut self, now: Duration, random: u32) -> Outcome {
        if self.silence_at().is_some_and(|at| at <= now) {
            let lost = matches!(self.state, State::Init | State::Up);
            let mut outcome = Outcome::default();
            if lost {
                let remote = self.remote;
                outcome = self.enter(State::Down, Diagnostic::DetectionTimeExpired, now, random);
                self.remote = Remote {
                    state: remote.state,
                    ..Remote::UNKNOWN
                };
                outcome.send = Some(self.packet());
            } else {
                self.remote = Remote::UNKNOWN;
            }
            if outcome.send.is_some() {
                return outcome;
            }
        }
        let due = self.send_at().is_some_and(|at| at <= now);
        let send = due.then(|| self.periodic(now, random));
        Outcome {
            send,
            ..Outcome::default()
        }
    }

    /// When [`Session::tick`] must be called next; a moment that has passed means at once, `None`
    /// not before the next packet is received.
    pub fn deadline(&self) -> Option<Duration> {
        match (self.send_at(), self.silence_at()) {
            (Some(send), Some(silence)) => Some(send.min(silence)),
            (send, silence) => send.or(silence),
        }
    }

    /// Takes the session down for an operator, or lets it come up again. Before a planned restart
    /// this tells the neighbour that the coming silence is no failure.
    pub fn set_admin_down(&mut self, down: bool, now: Duration, random: u32) -> Outcome {
        match (down, self.state) {
            (true, _) => self.enter(
                State::AdminDown,
                Diagnostic::AdministrativelyDown,
                now,
                random,
            ),
            (false, State::AdminDown) => {
                self.remote = Remote::UNKNOWN;
                self.enter(State::Down, Diagnostic::None, now, random)
            }
            (false, _) => Outcome::default(),
        }
    }

    /// The path is known to be down, as when the link lost its carrier: no need to wait for
    /// silence.
    pub fn path_down(&mut self, now: Duration, random: u32) -> Outcome {
        match self.state {
            State::Init | State::Up => {
                let outcome = self.enter(State::Down, Diagnostic::PathDown, now, random);
                self.remote = Remote::UNKNOWN;
                outcome
            }
            State::AdminDown | State::Down => Outcome::default(),
        }
    }

    /// Takes over new settings, but for the discriminator, which a session keeps. New intervals
    /// of a session that is Up come into force as the neighbour confirms them.
    pub fn reconfigure(&mut self, config: Config) {
        self.config = Config {
            discriminator: self.config.discriminator,
            ..config
        };
        self.negotiate();
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it last left Up.
    pub fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// The neighbour's state, as last heard.
    pub fn remote_state(&self) -> State {
        self.remote.state
    }

    /// The neighbour's number for the session, while it is heard.
    pub fn remote_discriminator(&self) -> Option<NonZeroU32> {
        self.remote.discriminator
    }

    /// This end's number for it.
    pub fn discriminator(&self) -> NonZeroU32 {
        self.config.discriminator
    }

    /// The time between packets sent, before chance makes it shorter: the slower of what this end
    /// would like and what the neighbour can receive.
    pub fn transmit_interval(&self) -> Duration {
        let micros = self.tx.in_force.max(self.remote.required_min_rx);
        Duration::from_micros(u64::from(micros))
    }

    /// The silence after which the neighbour is taken for gone: as many of its intervals as it
    /// says (RFC 5880 §6.8.4).
    pub fn detection_time(&self) -> Duration {
        let micros = self.rx.in_force.max(self.remote.desired_min_tx);
        Duration::from_micros(u64::from(micros) * u64::from(self.remote.detect_multiplier))
    }

    fn check(&self, packet: &Packet, ttl: u8) -> Result<(), Discard> {
        if ttl != TTL {
            return Err(Discard::Ttl(ttl));
        }
        match packet.your_discriminator {
            Some(other) if other != self.config.discriminator => Err(Discard::Discriminator(other)),
            _ => Ok(()),
        }
    }

    /// Goes to a state, which may be the same; a change is told to the neighbour at once
    /// (RFC 5880 §6.8.7, last paragraph).
    fn enter(&mut self, to: State, diagnostic: Diagnostic, now: Duration, random: u32) -> Outcome {
        let from = std::mem::replace(&mut self.state, to);
        if from == to {
            return Outcome::default();
        }
        self.diagnostic = diagnostic;
        self.negotiate();
        let change = StateChange {
            from,
            to,
            diagnostic,
            remote_state: self.remote.state,
            remote_control_plane_independent: self.remote.control_plane_independent,
        };
        let send = Some(self.periodic(now, random));
        Outcome {
            send,
            change: Some(change),
            discarded: None,
        }
    }

    /// Works out the intervals to tell, and whether they can be in force at once: a slower rate
    /// of sending, or a faster one of receiving, only after the neighbour knows (RFC 5880 §6.8.3).
    fn negotiate(&mut self) {
        let up = self.state == State::Up;
        let slowest = if up { Duration::ZERO } else { SLOW };
        let tx = micros(self.config.desired_min_tx.max(slowest));
        let rx = micros(self.config.required_min_rx);
        let changed = tx != self.tx.told || rx != self.rx.told;
        (self.tx.told, self.rx.told) = (tx, rx);
        self.poll = match self.poll {
            _ if !up => Poll::No,
            Poll::No if changed => Poll::Running,
            Poll::Running if changed => Poll::RunningThenAgain,
            same => same,
        };
        if self.poll == Poll::No {
            return self.enforce();
        }
        self.tx.in_force = self.tx.in_force.min(tx);
        self.rx.in_force = self.rx.in_force.max(rx);
    }

    /// The neighbour knows what was told when the poll began.
    fn confirmed(&mut self) {
        match self.poll {
            Poll::No => {}
            Poll::RunningThenAgain => self.poll = Poll::Running,
            Poll::Running => {
                self.poll = Poll::No;
                self.enforce();
            }
        }
    }

    fn enforce(&mut self) {
        self.tx.in_force = self.tx.told;
        self.rx.in_force = self.rx.told;
    }

    /// When the next periodic packet is due.
    fn send_at(&self) -> Option<Duration> {
        let remote = &self.remote;
        let waits = self.config.passive && remote.discriminator.is_none();
        let both_up = self.state == State::Up && remote.state == State::Up;
        let on_demand = remote.demand && both_up && self.poll == Poll::No;
        if waits || on_demand || remote.required_min_rx == 0 {
            return None;
        }
        let Some(last) = self.last_sent else {
            return Some(Duration::ZERO);
        };
        let multiplier = self.config.detect_multiplier.get();
        Some(last + jittered(self.transmit_interval(), multiplier, self.random))
    }

    /// When nothing will have been heard for the detection time.
    fn silence_at(&self) -> Option<Duration> {
        let expected = self.rx.in_force != 0;
        self.remote
            .heard
            .filter(|_| expected)
            .map(|heard| heard + self.detection_time())
    }

    /// The packet to send, from which the next gap is counted.
    fn periodic(&mut self, now: Duration, random: u32) -> Packet {
        self.last_sent = Some(now);
        self.random = random;
        self.packet()
    }

    /// What is to be said now (RFC 5880 §6.8.7).
    fn packet(&self) -> Packet {
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            poll: self.poll != Poll::No,
            final_: false,
            control_plane_independent: self.config.control_plane_independent,
            demand: false,
            detect_multiplier: self.config.detect_multiplier.get(),
            my_discriminator: self.config.discriminator,
            your_discriminator: self.remote.discriminator,
            desired_min_tx: self.tx.told,
            required_min_rx: self.rx.told,
            required_min_echo_rx: 0,
        }
    }
}
