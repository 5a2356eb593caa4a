//! Neighbours that misbehave, over real sockets: only they come to harm.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ipnet::Ipv4Net;
use peapod_bgp::fsm::State;
use peapod_bgp::types::AsPath;
use peapod_lab::process::usage;
use peapod_lab::script::{Neighbor, announcement};
use peapod_lab::{Lab, eventually};

const A: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 179);
const BAD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// A router of ours with a scripted neighbour in `bad`, and a good one in `good`.
fn lab(options: &str) -> Lab {
    let mut lab = Lab::new();
    lab.link(("a", "10.0.0.1/24"), ("bad", "10.0.0.2/24"));
    lab.link(("a", "10.0.1.1/24"), ("good", "10.0.1.2/24"));
    lab.router(
        "a",
        &format!(
            "asn: 65001\nrouterId: 10.0.0.1\ninstall: true\nneighbors:\n\
             - {{address: 10.0.0.2, remoteAs: 65002, passive: true{options}}}\n\
             - {{address: 10.0.1.2, remoteAs: 65003}}"
        ),
    );
    lab.router(
        "good",
        "asn: 65003\nrouterId: 10.0.1.2\nannounce: [10.99.0.0/16]\n\
         neighbors: [{address: 10.0.1.1, remoteAs: 65001}]",
    );
    lab.established("a", "10.0.1.2");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
    lab
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn numbered(n: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + n), 32)
}

/// RFC 7606: a malformed attribute withdraws the routes of its UPDATE, and nothing else.
#[test]
fn a_malformed_update_withdraws_its_routes_and_keeps_the_session() {
    let lab = lab("");
    let script = lab.spawn_in("bad", || {
        let mut bad = Neighbor::connect(A, 65002, BAD).unwrap();
        let good = bad.announcement(BAD, &[net("10.5.0.0/16"), net("10.6.0.0/16")]);
        bad.say_octets(&good).unwrap();
        bad
    });
    let mut bad = script.join().unwrap();
    lab.kernel_route("a", "10.5.0.0/16", &["10.0.0.2"]);
    // The same for one of them, with an ORIGIN that does not exist.
    let mut wrong = bad.announcement(BAD, &[net("10.5.0.0/16")]);
    let origin = wrong.windows(4).position(|four| four == [0x40, 1, 1, 0]);
    wrong[origin.expect("ORIGIN IGP") + 3] = 9;
    bad.say_octets(&wrong).unwrap();
    lab.kernel_route("a", "10.5.0.0/16", &[]);
    lab.kernel_route("a", "10.6.0.0/16", &["10.0.0.2"]);
    let view = lab.peer("a", "10.0.0.2").unwrap();
    assert_eq!(
        (view.state, view.established, view.problems),
        (State::Established, 1, 1)
    );
    // And it may make good for it.
    let good = bad.announcement(BAD, &[net("10.5.0.0/16")]);
    bad.say_octets(&good).unwrap();
    lab.kernel_route("a", "10.5.0.0/16", &["10.0.0.2"]);
}

/// What is no BGP at all ends the session with a NOTIFICATION, and others do not notice. Who does
/// it again and again is let in later and later.
#[test]
fn a_peer_that_flaps_is_damped_and_others_go_on() {
    let lab = lab("");
    let rounds = lab.spawn_in("bad", || {
        let mut let_in = 0;
        for _ in 0..60 {
            if let Ok(mut bad) = Neighbor::connect(A, 65002, BAD) {
                let_in += 1;
                bad.say_octets(&[0; 64]).unwrap();
                while bad.hear().is_ok() {}
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let_in
    });
    let let_in = rounds.join().unwrap();
    println!("let in {let_in} times of 60");
    assert!((1..30).contains(&let_in), "let in {let_in} times of 60");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
    let good = lab.peer("a", "10.0.1.2").unwrap();
    assert_eq!((good.state, good.established), (State::Established, 1));
    let bad = lab.peer("a", "10.0.0.2").unwrap();
    assert!(
        bad.last_error
            .is_some_and(|error| error.contains("NOTIFICATION") || error.contains("sent"))
    );
}

/// A thousand connections, from an address that is a neighbour's and from one that is nobody's:
/// the good neighbour's session goes on, and a new one can be made.
#[test]
fn a_thousand_connections_do_no_harm() {
    let mut lab = lab("");
    lab.within("bad", "ip addr add 10.0.0.77/24 dev to-a");
    let held = lab.spawn_in("bad", || {
        let mut held = Vec::new();
        for n in 0..1000u32 {
            let from = if n % 2 == 0 {
                BAD
            } else {
                Ipv4Addr::new(10, 0, 0, 77)
            };
            if let Ok(stream) = from_address(from) {
                held.push(stream);
            }
        }
        held
    });
    let held = held.join().unwrap();
    println!("{} connections were made", held.len());
    assert!(held.len() > 100, "{} connections", held.len());
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    println!(
        "{descriptors} descriptors in use, {} of them the attacker's",
        held.len()
    );
    lab.stop("good");
    lab.router(
        "good",
        "asn: 65003\nrouterId: 10.0.1.2\nannounce: [10.98.0.0/16]\n\
         neighbors: [{address: 10.0.1.1, remoteAs: 65001, timers: {connectRetrySeconds: 1}}]",
    );
    lab.kernel_route("a", "10.98.0.0/16", &["10.0.1.2"]);
    drop(held);
    // The neighbour itself is let in again once it behaves.
    lab.spawn_in("bad", persist).join().unwrap();
}

/// Comes up, however often it takes.
fn persist() -> Neighbor {
    let mut neighbor = None;
    eventually("let in", || {
        std::thread::sleep(Duration::from_millis(100));
        neighbor = Neighbor::connect(A, 65002, BAD).ok();
        neighbor.is_some()
    });
    neighbor.expect("it was let in")
}

fn from_address(from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        socket.connect(A).await?.into_std()
    })
}

/// A neighbour that reads nothing while a table changes under it, and one that floods: what is
/// kept for them is bounded by the table, and the good neighbour's routes are in the kernel.
#[test]
fn who_never_reads_and_who_floods_cost_bounded_memory() {
    const PREFIXES: u32 = 20_000;
    let mut lab = lab(", maxPrefixes: {limit: 30000}");
    lab.link(("a", "10.0.2.1/24"), ("deaf", "10.0.2.2/24"));
    lab.stop("a");
    lab.router(
        "a",
        "asn: 65001\nrouterId: 10.0.0.1\ninstall: true\nneighbors:\n\
         - {address: 10.0.0.2, remoteAs: 65002, passive: true}\n\
         - {address: 10.0.1.2, remoteAs: 65003}\n\
         - {address: 10.0.2.2, remoteAs: 65004, passive: true}",
    );
    let deaf = lab.spawn_in("deaf", || {
        let a: SocketAddr = "10.0.2.1:179".parse().unwrap();
        Neighbor::connect(a, 65004, Ipv4Addr::new(10, 0, 2, 2)).unwrap()
    });
    let deaf = deaf.join().unwrap();
    let me = [std::process::id()];
    let flood = |times: u32| {
        let work = move || {
            let bad = persist();
            let mut stream = bad.stream().unwrap();
            for time in 0..times {
                // Other attributes each time, so that everything changes for the deaf one.
                let path = AsPath::sequence([65002, 65100 + time]);
                let all = (0..PREFIXES).map(numbered);
                stream
                    .write_all(&announcement(bad.session(), path, BAD, all))
                    .unwrap();
            }
            bad
        };
        lab.spawn_in("bad", work).join().unwrap()
    };
    let first = flood(2);
    lab.kernel_route("a", "11.0.78.31/32", &["10.0.0.2"]);
    let before = usage(&me).resident;
    drop(first);
    lab.kernel_route("a", "11.0.78.31/32", &[]);
    let last = flood(20);
    lab.kernel_route("a", "11.0.78.31/32", &["10.0.0.2"]);
    let after = usage(&me).resident;
    let [before, after] = [before, after].map(|bytes| bytes >> 20);
    println!("{before} MB after two tables, {after} MB after twenty more");
    assert!(after < before + 64, "{before} MB grew to {after} MB");
    lab.kernel_route("a", "10.99.0.0/16", &["10.0.1.2"]);
    drop((last, deaf));
}
