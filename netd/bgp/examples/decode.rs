//! How long the codec takes per prefix: a full table of 512,000 host routes, 64 to an attribute
//! set, written and read again.
//!
//! ```sh
//! cargo run --release -p peapod-bgp --example decode
//! ```

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;

use bytes::BytesMut;
use ipnet::Ipv4Net;
use peapod_bgp::types::{AsPath, Community, Family, Message, NextHop, Nlri, PathAttributes};
use peapod_bgp::wire::{self, FamilySession, Session};

const PREFIXES: u32 = 512_000;
const PER_SET: u32 = 64;
const ROUNDS: u32 = 10;

fn main() {
    let session = Session {
        peer_as: 65001,
        four_octet_as: true,
        families: Family::SUPPORTED.map(FamilySession::plain).to_vec(),
        ..Session::before_open()
    };
    let (mut writing, mut reading, mut read) = (0.0, 0.0, 0);
    let mut size = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut stream = BytesMut::new();
        (0..PREFIXES / PER_SET).for_each(|set| announce(set, &session, &mut stream));
        writing += start.elapsed().as_secs_f64();
        size = stream.len();

        let start = Instant::now();
        while let Ok(Some(message)) = wire::split(&mut stream, &session) {
            let message = wire::decode(&message, &session);
            let Ok(Message::Update(update)) = message else {
                panic!("{message:?}")
            };
            for one in &update.announced {
                read += one.nlri.iter().map(black_box).count();
            }
        }
        reading += start.elapsed().as_secs_f64();
    }
    assert_eq!(read, (PREFIXES * ROUNDS) as usize);
    let per_prefix = |seconds: f64| seconds * 1e9 / f64::from(PREFIXES * ROUNDS);
    println!("{PREFIXES} prefixes, {PER_SET} to a set, {size} octets, {ROUNDS} rounds");
    println!("write {:6.1} ns per prefix", per_prefix(writing));
    println!("read  {:6.1} ns per prefix", per_prefix(reading));
}

/// The routes of one attribute set.
fn announce(set: u32, session: &Session, out: &mut BytesMut) {
    let attributes = PathAttributes {
        as_path: AsPath::sequence([65001, 64_512 + set % 1_000, 4_200_000_000 + set]),
        next_hop: Some(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1))),
        med: Some(set),
        communities: vec![Community::new(65001, 100), Community(set)],
        ..PathAttributes::default()
    };
    let first = 0x0a00_0000 + set * PER_SET;
    let prefixes = (first..first + PER_SET).map(|bits| Nlri {
        prefix: Ipv4Net::from(Ipv4Addr::from(bits)).into(),
        path_id: 0,
    });
    wire::announce(session, &attributes, Family::IPV4_UNICAST, prefixes, out)
        .expect("the attributes fit the session");
}
