//! Large tables from one eBGP neighbour into the kernel, by each daemon in turn, from the same
//! injector: how long, at what cost, and how long until they are gone again.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use ipnet::Ipv4Net;
use peapod_bgp::types::{AsPath, Family, Nlri};
use peapod_bgp::wire::{self, Session};
use peapod_lab::process::{Usage, machine, usage};
use peapod_lab::script::{Neighbor, announcement};
use peapod_lab::{Lab, eventually};

const HOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 179);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Prefixes to an attribute set.
const PER_SET: u32 = 64;
/// Nobody is waited for longer.
const LIMIT: Duration = Duration::from_secs(150);
/// The kernel is looked at so often; GoBGP is asked seldom, since it counts its routes to answer.
const LOOK: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    Peapod,
    Bird,
    Frr,
    GoBgp,
}

/// What something took.
struct Cost {
    wall: Option<Duration>,
    cpu: Duration,
    resident: u64,
    /// Cores that were busy with other things meanwhile.
    foreign: f64,
}

/// All of it, as a table.
pub fn print() {
    println!(
        "IPv4 /32 from one eBGP neighbour, {PER_SET} to an attribute set, installed in the kernel"
    );
    println!(
        "{:<8} {:>8}  {:<16} {:>9} {:>8} {:>8} {:>8}",
        "daemon", "prefixes", "what", "wall", "CPU", "memory", "foreign"
    );
    for count in [100_000, 512_000] {
        for daemon in [Daemon::Peapod, Daemon::Bird, Daemon::GoBgp, Daemon::Frr] {
            measure(daemon, count);
        }
    }
    println!("must reach: 512,000 in 5 s, 4 CPU-s, 60 MB; 100,000 in 1 s, 0.8 CPU-s;");
    println!("            100,000 withdrawn in 0.9 s; peer lost with 512,000 in 5 s.");
    println!(
        "memory is resident memory (FRR: zebra and bgpd); foreign is cores busy with other work,"
    );
    println!("the injector's included; GoBGP does not install without zebra: received only");
}

fn measure(daemon: Daemon, count: u32) {
    let mut lab = Lab::new();
    lab.link(("host", "10.0.0.1/24"), ("peer", "10.0.0.2/24"));
    let pids = start(&mut lab, daemon);
    let session = lab.spawn_in("peer", || {
        let mut neighbor = None;
        eventually("a session", || {
            neighbor = Neighbor::connect(HOST, 65_002, PEER).ok();
            neighbor.is_some()
        });
        neighbor.expect("a session")
    });
    let neighbor = session.join().expect("a session");
    let mut stream = neighbor.stream().expect("a second handle");
    drain(&neighbor);
    let (announced, withdrawn) = messages(neighbor.session(), count);
    let before = held(&lab, daemon);
    let there = |lab: &Lab| held(lab, daemon) >= before + count as usize;
    let gone = |lab: &Lab| held(lab, daemon) <= before;
    let what = if daemon == Daemon::GoBgp {
        "received"
    } else {
        "installed"
    };
    let cost = cost(&lab, daemon, &pids, || stream.write_all(&announced), there);
    show(daemon, count, what, &cost);
    if count == 100_000 {
        show(
            daemon,
            count,
            "withdrawn",
            &self::cost(&lab, daemon, &pids, || stream.write_all(&withdrawn), gone),
        );
    } else {
        let lose = || stream.shutdown(Shutdown::Both);
        show(
            daemon,
            count,
            "neighbour lost",
            &self::cost(&lab, daemon, &pids, lose, gone),
        );
    }
}

/// Starts a daemon; its processes.
fn start(lab: &mut Lab, daemon: Daemon) -> Vec<u32> {
    match daemon {
        Daemon::Peapod => {
            let file = lab.file(
                "host.yaml",
                "asn: 65001\nrouterId: 10.0.0.1\ninstall: true\n\
                 neighbors: [{address: 10.0.0.2, remoteAs: 65002, passive: true}]\n",
            );
            let own = std::env::current_exe().expect("this program");
            let command = format!("{} --router {}", own.display(), file.display());
            vec![lab.daemon("host", &command)]
        }
        Daemon::Bird => vec![lab.bird(
            "host",
            "router id 10.0.0.1;\nprotocol device {}\nprotocol kernel { ipv4 { export all; }; }\n\
             protocol bgp peer { local 10.0.0.1 as 65001; neighbor 10.0.0.2 as 65002; passive; \
             ipv4 { import all; export none; }; }\n",
        )],
        Daemon::GoBgp => vec![lab.gobgp(
            "host",
            "[global.config]\nas = 65001\nrouter-id = \"10.0.0.1\"\n[[neighbors]]\n\
             [neighbors.config]\nneighbor-address = \"10.0.0.2\"\npeer-as = 65002\n\
             [neighbors.transport.config]\npassive-mode = true\n",
        )],
        Daemon::Frr => {
            let all = lab.frr(
                "host",
                "hostname host\nrouter bgp 65001\n bgp router-id 10.0.0.1\n \
                 no bgp ebgp-requires-policy\n neighbor 10.0.0.2 remote-as 65002\n \
                 neighbor 10.0.0.2 passive\n",
            );
            // Without bfdd.
            all[..2].to_vec()
        }
    }
}

/// Routes that the daemon has put into the kernel (with those that are there anyway), or that it
/// holds, if it puts none there.
fn held(lab: &Lab, daemon: Daemon) -> usize {
    if daemon == Daemon::GoBgp {
        let text = lab.within("host", "gobgp --host 127.0.0.1 neighbor 10.0.0.2");
        let line = text
            .lines()
            .find(|line| line.contains("Received:"))
            .unwrap_or_default();
        return line
            .split(':')
            .nth(1)
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or(0);
    }
    let count = lab.spawn_in("host", || {
        let text = std::fs::read_to_string("/proc/thread-self/net/fib_triestat");
        let text = text.expect("the kernel counts its prefixes");
        let line = text.lines().find(|line| line.contains("Prefixes:"));
        line.and_then(|line| line.split(':').nth(1)?.trim().parse().ok())
            .expect("a count")
    });
    count.join().expect("a count")
}

/// Does something, and waits for what follows from it.
fn cost(
    lab: &Lab,
    daemon: Daemon,
    pids: &[u32],
    act: impl FnOnce() -> std::io::Result<()>,
    done: impl Fn(&Lab) -> bool,
) -> Cost {
    let (start, before, busy) = (Instant::now(), usage(pids), machine());
    act().expect("the daemon listens");
    let mut wall = None;
    while start.elapsed() < LIMIT {
        if done(lab) {
            wall = Some(start.elapsed());
            break;
        }
        std::thread::sleep(LOOK[usize::from(daemon == Daemon::GoBgp)]);
    }
    let Usage { cpu, resident } = usage(pids);
    let took = start.elapsed();
    let cpu = cpu.saturating_sub(before.cpu);
    let others = machine().saturating_sub(busy).saturating_sub(cpu);
    Cost {
        wall,
        cpu,
        resident,
        foreign: others.as_secs_f64() / took.as_secs_f64(),
    }
}

fn show(daemon: Daemon, count: u32, what: &str, cost: &Cost) {
    let wall = cost.wall.map_or_else(
        || format!("> {} s", LIMIT.as_secs()),
        |wall| format!("{:.2} s", wall.as_secs_f64()),
    );
    println!(
        "{:<8} {count:>8}  {what:<16} {wall:>9} {:>6.2} s {:>5} MB {:>8.1}",
        format!("{daemon:?}"),
        cost.cpu.as_secs_f64(),
        cost.resident >> 20,
        cost.foreign,
    );
}

/// All announcements, and all withdrawals.
fn messages(session: &Session, count: u32) -> (Vec<u8>, Vec<u8>) {
    let prefix = |n: u32| Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + n), 32);
    let mut announced = Vec::new();
    for first in (0..count).step_by(PER_SET as usize) {
        let path = AsPath::sequence([65_002, 65_100 + first / PER_SET]);
        let some = (first..(first + PER_SET).min(count)).map(prefix);
        announced.extend(announcement(session, path, PEER, some));
    }
    let mut withdrawn = BytesMut::new();
    let all = (0..count).map(|n| Nlri::new(prefix(n)));
    wire::withdraw(session, Family::IPV4_UNICAST, all, &mut withdrawn).expect("they fit");
    (announced, withdrawn.to_vec())
}

/// Reads and forgets what the daemon says.
fn drain(neighbor: &Neighbor) {
    let mut stream: TcpStream = neighbor.stream().expect("a second handle");
    stream.set_read_timeout(None).expect("a socket");
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    });
}

/// This program as the router that is measured.
pub fn route(file: &Path) {
    let config = peapod_router::RouterConfig::read(file).expect("a good configuration");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime
        .block_on(peapod_router::run(config, Default::default()))
        .expect("the router runs");
}
