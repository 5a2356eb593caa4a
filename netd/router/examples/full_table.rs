//! How long a full table takes from a neighbour's socket into the kernel, and what that costs.
//!
//! Run it as root, built for speed, in a network namespace of its own that has a link with
//! 10.0.0.1/24: `full_table [PREFIXES]`. It is router and neighbour in one process.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipnet::Ipv4Net;
use peapod_bgp::types::{AsPath, Capability, Family, Message, NextHop, Nlri, Open, PathAttributes};
use peapod_bgp::wire::{self, Session};
use peapod_router::kernel::routes::installed;
use tokio_util::sync::CancellationToken;

const ROUTER: &str = "127.0.0.1:1790";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PER_SET: u32 = 64;

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(512_000);
    let stream = updates(count);
    let stop = CancellationToken::new();
    let router = start(stop.clone());
    std::thread::sleep(Duration::from_millis(300));
    let (start, cpu, memory) = (Instant::now(), cpu(), resident());
    let neighbor = announce(&stream);
    let last = Ipv4Addr::from_bits(0x0b00_0000 + count - 1);
    wait_for(|| reachable(last));
    println!(
        "{count} installed after {:?}, {:?} of CPU",
        start.elapsed(),
        self::cpu() - cpu
    );
    println!("{} MB for them", (resident() - memory) >> 20);
    assert_eq!(
        installed().expect("the kernel's routes").len(),
        count as usize
    );
    let (start, cpu) = (Instant::now(), self::cpu());
    neighbor.shutdown(Shutdown::Both).expect("it was connected");
    wait_for(|| !reachable(last));
    println!(
        "neighbour lost: gone after {:?}, {:?} of CPU",
        start.elapsed(),
        self::cpu() - cpu
    );
    stop.cancel();
    router.join().expect("the router ends");
}

fn start(stop: CancellationToken) -> std::thread::JoinHandle<()> {
    let file = std::env::temp_dir().join(format!("full-table-{}.yaml", std::process::id()));
    let text = format!(
        "asn: 65001\nrouterId: 10.0.0.1\nlisten: [\"{ROUTER}\"]\ninstall: true\n\
         neighbors: [{{address: 127.0.0.1, remoteAs: 65002, passive: true}}]\n"
    );
    std::fs::write(&file, text).expect("a configuration can be written");
    let config = peapod_router::RouterConfig::read(&file).expect("a good configuration");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        runtime
            .block_on(peapod_router::run(config, stop))
            .expect("the router runs");
    })
}

/// Comes up as the router's neighbour and says everything.
fn announce(updates: &[u8]) -> TcpStream {
    let to: SocketAddr = ROUTER.parse().expect("an address");
    let mut stream = TcpStream::connect(to).expect("the router listens");
    let mut bytes = BytesMut::new();
    for message in [Message::Open(open(65_002)), Message::Keepalive] {
        wire::encode(&message, &Session::before_open(), &mut bytes).expect("it fits");
    }
    stream.write_all(&bytes).expect("it is taken");
    let mut answers = stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while answers.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
    stream.write_all(updates).expect("it is taken");
    stream
}

fn open(asn: u32) -> Open {
    Open::new(
        asn,
        90,
        GATEWAY,
        [Capability::MultiProtocol(Family::IPV4_UNICAST)],
    )
}

fn updates(count: u32) -> Vec<u8> {
    let session = Session::negotiate(&open(65_002), &open(65_001));
    let mut bytes = BytesMut::new();
    for first in (0..count).step_by(PER_SET as usize) {
        let attributes = PathAttributes {
            as_path: AsPath::sequence([65_002, 65_100 + first / PER_SET]),
            next_hop: Some(NextHop::V4(GATEWAY)),
            ..PathAttributes::default()
        };
        let prefix = |n: u32| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + n), 32);
        let prefixes = (first..(first + PER_SET).min(count)).map(|n| Nlri::new(prefix(n)));
        wire::announce(
            &session,
            &attributes,
            Family::IPV4_UNICAST,
            prefixes,
            &mut bytes,
        )
        .expect("it fits");
    }
    bytes.to_vec()
}

/// Waits for a condition, looking seldom, since looking costs too.
fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the kernel has a way to an address.
fn reachable(address: Ipv4Addr) -> bool {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((address, 9)).is_ok()
}

/// CPU time of this process, the kernel's work for it included.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat
        .split_whitespace()
        .skip(13)
        .take(2)
        .flat_map(str::parse::<u64>)
        .sum();
    Duration::from_millis(ticks * 10)
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
