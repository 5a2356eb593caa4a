//! How long a full table takes through a speaker, and how much memory it needs:
//! `cargo run --release --example table [PREFIXES] [PREFIXES PER ATTRIBUTE SET]`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ipnet::Ipv4Net;
use peapod_bgp::config::{Neighbor, RemoteAs};
use peapod_bgp::fsm::ConnectionId;
use peapod_bgp::speaker::{Endpoint, Input, Output};
use peapod_bgp::types::{AsPath, Capability, Family, Message, NextHop, Nlri, Open, PathAttributes};
use peapod_bgp::wire::{self, Session};
use peapod_bgp::{Config, Speaker, Time};

const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CONNECTION: ConnectionId = ConnectionId(1);
const CHUNK: usize = 64 * 1024;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u32>());
    let count = arguments.next().and_then(Result::ok).unwrap_or(512_000);
    let per_set = arguments.next().and_then(Result::ok).unwrap_or(64);
    let before = resident();
    let mut speaker = established();
    let stream = updates(count, per_set);
    let (encoded, start) = (resident(), Instant::now());
    let mut changes = 0;
    for at in (0..stream.len()).step_by(CHUNK) {
        let bytes = stream.slice(at..(at + CHUNK).min(stream.len()));
        speaker.handle(
            Input::Received {
                connection: CONNECTION,
                bytes,
            },
            Time(1),
        );
        changes += speaker.take_changes(usize::MAX).len();
    }
    let took = start.elapsed();
    let held = resident() - encoded;
    println!("{count} prefixes, {per_set} to an attribute set, {changes} changes of forwarding");
    println!("received and chosen in {took:?}: {}", each(took, count));
    println!(
        "{} MB: {} bytes a prefix",
        held >> 20,
        held / u64::from(count)
    );
    let start = Instant::now();
    speaker.handle(
        Input::Closed {
            connection: CONNECTION,
        },
        Time(2),
    );
    speaker.handle(Input::Tick, Time(200_000));
    let gone = speaker.take_changes(usize::MAX).len();
    println!("peer lost: {gone} gone in {:?}", start.elapsed());
    println!(
        "{} MB in all, {} MB at the start",
        resident() >> 20,
        before >> 20
    );
}

fn each(took: Duration, count: u32) -> String {
    format!("{} ns a prefix", took.as_nanos() / u128::from(count))
}

/// A speaker with one session.
fn established() -> Speaker {
    let mut config = Config::new(65_001, Ipv4Addr::new(10, 0, 0, 1));
    config
        .neighbors
        .push(Neighbor::at(PEER.into(), RemoteAs::Number(65_002)));
    let mut speaker = Speaker::new(config, 1, Time(0));
    let peer = speaker.take_outputs().find_map(|output| match output {
        Output::Connect { peer, .. } => Some(peer),
        _ => None,
    });
    let peer = peer.expect("a speaker connects to its neighbour");
    let endpoint = Endpoint::between(Ipv4Addr::new(10, 0, 0, 1).into(), PEER.into());
    speaker.handle(
        Input::Connected {
            peer,
            connection: CONNECTION,
            endpoint,
        },
        Time(0),
    );
    let family = Capability::MultiProtocol(Family::IPV4_UNICAST);
    let open = Message::Open(Open::new(65_002, 90, PEER, [family]));
    let mut bytes = BytesMut::new();
    for message in [open, Message::Keepalive] {
        wire::encode(&message, &Session::before_open(), &mut bytes).expect("it fits");
    }
    speaker.handle(
        Input::Received {
            connection: CONNECTION,
            bytes: bytes.freeze(),
        },
        Time(0),
    );
    speaker
}

/// The UPDATEs of a peer with so many host routes.
fn updates(count: u32, per_set: u32) -> Bytes {
    let open = |asn: u32| {
        Open::new(
            asn,
            90,
            PEER,
            [Capability::MultiProtocol(Family::IPV4_UNICAST)],
        )
    };
    let session = Session::negotiate(&open(65_002), &open(65_001));
    let mut bytes = BytesMut::new();
    for first in (0..count).step_by(per_set as usize) {
        let attributes = PathAttributes {
            as_path: AsPath::sequence([65_002, 65_100 + first / per_set]),
            next_hop: Some(NextHop::V4(PEER)),
            ..PathAttributes::default()
        };
        let prefix = |n: u32| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + n), 32);
        let prefixes = (first..(first + per_set).min(count)).map(|n| Nlri::new(prefix(n)));
        wire::announce(
            &session,
            &attributes,
            Family::IPV4_UNICAST,
            prefixes,
            &mut bytes,
        )
        .expect("it fits");
    }
    bytes.freeze()
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
