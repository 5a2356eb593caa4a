//! Two sessions, a path between them that loses and delays packets, and virtual time.

use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use peapod_bfd::{Config, Diagnostic, Outcome, Packet, Received, Session, State, StateChange, TTL};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// Two ends and the packets between them.
struct Pair {
    ends: [Session; 2],
    now: Duration,
    /// Whether what end 0, and what end 1 sends arrives.
    works: [bool; 2],
    delay: Duration,
    /// Arrival, receiver, packet; in order of arrival.
    flying: Vec<(Duration, usize, [u8; 24])>,
    /// When, at which end, what.
    changes: Vec<(Duration, usize, StateChange)>,
    /// Packets sent by each end.
    sent: [usize; 2],
    chance: u32,
}

impl Pair {
    fn new(configs: [Config; 2], delay: Duration, chance: u32) -> Pair {
        Pair {
            ends: configs.map(Session::new),
            now: Duration::ZERO,
            works: [true; 2],
            delay,
            flying: Vec::new(),
            changes: Vec::new(),
            sent: [0; 2],
            chance,
        }
    }

    fn usual(seed: u32) -> Pair {
        Pair::new(
            [config(1, 100, 100, 3), config(2, 100, 100, 3)],
            MS / 10,
            seed,
        )
    }

    fn random(&mut self) -> u32 {
        self.chance = self
            .chance
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        self.chance
    }

    /// Lets time pass for `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrival = self.flying.first().map(|(at, ..)| *at);
            let deadlines = self.ends.each_ref().map(Session::deadline);
            let next = deadlines.into_iter().flatten().chain(arrival).min();
            let Some(next) = next.map(|at| at.max(self.now)).filter(|at| *at <= end) else {
                break;
            };
            self.now = next;
            let random = self.random();
            if arrival == Some(next) {
                let (_, to, octets) = self.flying.remove(0);
                let packet = Packet::decode(&octets).expect("we send what can be read");
                let outcome = self.ends[to].receive(&Received { packet, ttl: TTL }, next, random);
                assert_eq!(outcome.discarded.filter(|_| self.both_run()), None);
                self.follow(to, &outcome);
            }
            for (end, deadline) in deadlines.into_iter().enumerate() {
                if deadline.is_some_and(|at| at <= next) {
                    let outcome = self.ends[end].tick(next, random);
                    self.follow(end, &outcome);
                }
            }
        }
        self.now = end;
    }

    fn both_run(&self) -> bool {
        self.ends.iter().all(|end| end.state() != State::AdminDown)
    }

    fn follow(&mut self, end: usize, outcome: &Outcome) {
        if let Some(change) = outcome.change {
            self.changes.push((self.now, end, change));
        }
        if let Some(packet) = outcome.send {
            self.sent[end] += 1;
            if self.works[end] {
                self.flying
                    .push((self.now + self.delay, 1 - end, packet.encode()));
            }
        }
    }

    fn states(&self) -> [State; 2] {
        self.ends.each_ref().map(Session::state)
    }

    /// Runs until both are Up and agree on their intervals.
    fn come_up(&mut self) {
        self.run(Duration::from_secs(4));
        assert_eq!(self.states(), [State::Up; 2]);
        self.changes.clear();
    }
}

fn config(discriminator: u32, tx: u32, rx: u32, multiplier: u8) -> Config {
    Config {
        desired_min_tx: MS * tx,
        required_min_rx: MS * rx,
        detect_multiplier: NonZeroU8::new(multiplier).unwrap(),
        ..Config::new(NonZeroU32::new(discriminator).unwrap())
    }
}

#[test]
fn silence_is_noticed_within_three_intervals_of_100_ms() {
    for seed in 0..200 {
        let mut pair = Pair::usual(seed);
        pair.come_up();
        pair.works = [false; 2];
        let cut = pair.now;
        pair.run(Duration::from_secs(1));
        for end in 0..2 {
            let (at, _, change) = pair.changes.iter().find(|(_, who, _)| *who == end).unwrap();
            let took = *at - cut;
            assert!(took > MS * 200 && took <= MS * 300 + pair.delay, "{took:?}");
            assert_eq!(change.diagnostic, Diagnostic::DetectionTimeExpired);
            assert!(change.is_failure());
        }
    }
}

#[test]
fn one_direction_lost_takes_down_both_ends() {
    let mut pair = Pair::usual(1);
    pair.come_up();
    pair.works[0] = false;
    let cut = pair.now;
    pair.run(MS * 302);
    // End 1 hears nothing, and says so to end 0, which it still reaches.
    let by_end = |end| pair.changes.iter().find(|(_, who, _)| *who == end).unwrap();
    assert_eq!(by_end(1).2.diagnostic, Diagnostic::DetectionTimeExpired);
    assert_eq!(by_end(0).2.diagnostic, Diagnostic::NeighborSignaledDown);
    assert!(by_end(0).0 - by_end(1).0 <= pair.delay && by_end(1).0 > cut);
}

#[test]
fn the_path_back_brings_the_session_back() {
    let mut pair = Pair::usual(2);
    pair.come_up();
    pair.works = [false; 2];
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.states(), [State::Down; 2]);
    pair.works = [true; 2];
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.states(), [State::Up; 2]);
}

#[test]
fn an_end_that_is_not_up_sends_one_packet_a_second_at_most() {
    let mut pair = Pair::usual(3);
    pair.works = [false; 2];
    pair.run(Duration::from_secs(60));
    for sent in pair.sent {
        assert!(
            (60..=81).contains(&sent),
            "{sent} in 60 s, with up to a quarter less each"
        );
    }
}

#[test]
fn admin_down_first_is_no_failure() {
    let mut pair = Pair::usual(4);
    pair.come_up();
    let (now, random) = (pair.now, pair.random());
    let outcome = pair.ends[0].set_admin_down(true, now, random);
    pair.follow(0, &outcome);
    pair.run(MS);
    let (at, _, change) = *pair.changes.iter().find(|(_, who, _)| *who == 1).unwrap();
    assert_eq!(
        (at, change.remote_state),
        (now + pair.delay, State::AdminDown)
    );
    assert!(!change.is_failure());
    // And the silence of the restart that follows changes nothing.
    pair.works[0] = false;
    pair.changes.clear();
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.changes, []);
    pair.works[0] = true;
    let outcome = pair.ends[0].set_admin_down(false, pair.now, random);
    pair.follow(0, &outcome);
    pair.come_up();
}

#[test]
fn a_restarted_end_with_a_new_number_is_taken_in() {
    let mut pair = Pair::usual(5);
    pair.come_up();
    pair.ends[0] = Session::new(config(7, 100, 100, 3));
    pair.flying.clear();
    // What end 1 still says to the old number is dropped by end 0, so not through `run`.
    let (now, random) = (pair.now, pair.random());
    let hello = pair.ends[0].tick(now, random).send.unwrap();
    let outcome = pair.ends[1].receive(
        &Received {
            packet: hello,
            ttl: TTL,
        },
        now,
        random,
    );
    assert_eq!(outcome.change.map(|change| change.to), Some(State::Down));
    pair.follow(1, &outcome);
    pair.come_up();
    assert_eq!(pair.ends[1].remote_discriminator(), NonZeroU32::new(7));
}

#[test]
fn each_direction_has_a_rate_of_its_own() {
    let configs = [config(1, 50, 200, 3), config(2, 20, 400, 5)];
    let mut pair = Pair::new(configs, MS, 6);
    pair.come_up();
    let [a, b] = &pair.ends;
    assert_eq!(
        (a.transmit_interval(), b.transmit_interval()),
        (MS * 400, MS * 200)
    );
    assert_eq!(
        (a.detection_time(), b.detection_time()),
        (MS * 200 * 5, MS * 400 * 3)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever rates they have and change to: a path that works never looks lost.
    #[test]
    fn changes_of_rate_lose_nothing(
        before in prop::array::uniform2((10..2_000u32, 10..2_000u32, 1..6u8)),
        after in prop::array::uniform2((10..2_000u32, 10..2_000u32, 1..6u8)),
        pause in 0..5_000u32,
        seed: u32,
    ) {
        let build = |settings: [(u32, u32, u8); 2]| {
            let [a, b] = settings;
            [config(1, a.0, a.1, a.2), config(2, b.0, b.1, b.2)]
        };
        let mut pair = Pair::new(build(before), MS / 2, seed);
        pair.run(Duration::from_secs(20));
        prop_assert_eq!(pair.states(), [State::Up; 2]);
        pair.changes.clear();
        for (end, config) in build(after).into_iter().enumerate() {
            pair.ends[end].reconfigure(config);
            pair.run(MS * pause);
        }
        pair.run(Duration::from_secs(20));
        prop_assert_eq!(&pair.changes, &vec![]);
        let [a, b] = &pair.ends;
        prop_assert_eq!(a.transmit_interval(), MS * after[0].0.max(after[1].1));
        prop_assert_eq!(b.detection_time(), a.transmit_interval() * u32::from(after[0].2));
    }

    /// Whatever arrives in whatever order: nothing panics, what is due never stays due, and two
    /// sessions that hear each other come up.
    #[test]
    fn any_packets(
        octets in prop::collection::vec((any::<[u8; 24]>(), any::<u8>(), 0..3_000u32), 0..60),
        seed: u32,
    ) {
        let mut session = Session::new(config(1, 100, 100, 3));
        let mut now = Duration::ZERO;
        for (mut octets, ttl, pause) in octets {
            octets[0] = 0x20 | octets[0] & 0x1f;
            octets[1] &= !5;
            octets[3] = 24;
            let ours = octets[11] & 1;
            octets[8..12].copy_from_slice(&[0, 0, 0, ours]);
            if let Ok(packet) = Packet::decode(&octets) {
                let ttl = if ttl < 8 { ttl } else { TTL };
                session.receive(&Received { packet, ttl }, now, seed);
            }
            now += MS * pause;
            while let Some(at) = session.deadline().filter(|at| *at <= now) {
                session.tick(at.max(now), seed);
                prop_assert!(session.deadline() != Some(at));
            }
        }
    }
}
