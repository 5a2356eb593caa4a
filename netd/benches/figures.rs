//! The figures of services: how long the kernel takes to learn many and one change among them, and
//! what a connection through a service address costs: `cargo bench -p peapod-netd --bench figures`,
//! as root. It works in network namespaces of its own, and reads everything back to check it.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use peapod_api::attach::Protocol;
use peapod_lab::process::before_others;
use peapod_netd::core::facts::{EndpointFacts, PortFacts, ServiceFacts, ServiceKey, SliceFacts};
use peapod_netd::core::services::ServiceTable;
use peapod_netd::nat::{Nat, NatConfig, Ranges};

const ENDPOINTS: u32 = 3;
const CHANGES: u32 = 200;
const SIZES: [u32; 3] = [100, 1_000, 10_000];
/// Connections in a row, and how often, for each of the two ways: in short turns, so that what the
/// machine does besides is the same for both.
const CONNECTIONS: usize = 50;
const TURNS: usize = 201;
const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 3);
/// The service of the pod; beyond those that are only there to be many.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 111, 0, 1);

fn main() {
    println!("services of {ENDPOINTS} endpoints each, programmed, and one endpoint changed");
    for services in SIZES {
        let sized = std::thread::spawn(move || program(services));
        sized.join().expect("a measurement");
    }
    println!("must reach: 10,000 in 1 s; one change 5 ms, flat from 100 to 10,000");
    let connections = std::thread::spawn(connections);
    connections.join().expect("a measurement");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average at the end: {load}");
}

/// Tables of this many services, in a namespace of their own.
fn filled(
    services: u32,
    extra: Option<(ServiceKey, Arc<ServiceFacts>, Arc<SliceFacts>)>,
) -> (Nat, ServiceTable, NatConfig) {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    let config = NatConfig {
        private_ips: Vec::new(),
        source_ips: Vec::new(),
        service_cidrs: vec!["10.96.0.0/12".parse().expect("a range")],
        ipv6: false,
        foreign_links: false,
    };
    let (nat, empty) = Nat::open(&config).expect("nftables");
    let mut table = ServiceTable::new("here", &[], empty);
    let many = (0..services).map(|n| service(n, 0));
    for (key, service, slice) in many.chain(extra) {
        let name = format!("slice-{}", key.name);
        table.set_service(key, Some(service));
        table.set_slice("default", &name, Some(slice));
    }
    (nat, table, config)
}

fn program(services: u32) {
    let (mut nat, mut table, config) = filled(services, None);
    let (changes, plan) = timed(|| table.plan());
    let (written, write) = timed(|| nat.apply(&changes));
    written.expect("the kernel takes them");
    let (_, found) = Nat::open(&config).expect("nftables");
    assert_eq!(&found, table.current(), "the kernel has what was written");

    let mut took = Vec::new();
    for n in 0..CHANGES {
        let at = (n * 7919) % services;
        let start = Instant::now();
        let (key, _, slice) = service(at, n + 1);
        table.set_slice("default", &format!("slice-{}", key.name), Some(slice));
        nat.apply(&table.plan()).expect("the kernel takes it");
        took.push(start.elapsed());
    }
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    println!(
        "  {services:>6}: worked out in {plan}, written in {write}; one change p50 {:.2} ms, p99 {:.2} ms",
        at(50),
        at(99)
    );
    let (_, found) = Nat::open(&config).expect("nftables");
    assert_eq!(&found, table.current(), "the kernel has what was changed");
}

/// Connections to a pod, direct and by its service's address, in turns, with 10,000 other services:
/// from another pod and from the node. Then the same with a single rule in the place of all of it:
/// what the kernel's translation costs by itself.
fn connections() {
    let (mut nat, mut table, _) = filled(10_000, Some(pod_service()));
    nat.apply(&table.plan()).expect("the kernel takes them");
    let pods = ["10.1.0.0/24".parse().expect("a range")];
    let ranges = Ranges {
        blocks: &pods,
        cluster: &pods,
        masqueraded_off_fabric: &pods,
        ..Ranges::default()
    };
    nat.set_ranges(ranges).expect("the kernel takes them");
    ip("link set lo up");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root");
    // As netd has them: services' addresses lead somewhere, and the node's own is the source.
    ip("addr add 10.243.0.1/32 dev lo");
    ip("route add 10.96.0.0/12 dev lo src 10.243.0.1");
    let [server, client] = [("server", POD), ("client", CLIENT)].map(|(name, address)| {
        let space = Space::new(name);
        space.link(address);
        space
    });
    server.serve();
    println!(
        "connections, one after the other, median of {TURNS} turns: direct | by the service's address"
    );
    compare("from a pod", Some(&client));
    compare("from the node", None);
    peapod_netd::nat::remove().expect("the kernel removes them");
    let to = format!("ip daddr {SERVICE} tcp dport 80 dnat to {POD}:8080");
    nft(&format!(
        "table ip bare {{ chain pre {{ type nat hook prerouting priority -100; {to}; }}; \
         chain out {{ type nat hook output priority -100; {to}; }}; }}"
    ));
    println!("  the same by one rule of nft and nothing else, as what the kernel's NAT can give:");
    compare("from a pod", Some(&client));
    compare("from the node", None);
    println!("  must reach 0.95 x");
}

/// Measures both ways in turns.
fn compare(what: &str, from: Option<&Space>) {
    let measure = || {
        before_others();
        let ways = [
            SocketAddr::from((POD, 8080)),
            SocketAddr::from((SERVICE, 80)),
        ];
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (way, found) in ways.iter().zip(&mut found) {
                found.push(cost(*way));
            }
        }
        found
    };
    let found = match from {
        Some(space) => space.run(measure),
        None => measure(),
    };
    let median = |part: fn(&Cost) -> f64| {
        found.each_ref().map(|costs| {
            let mut costs: Vec<f64> = costs.iter().map(part).collect();
            costs.sort_by(f64::total_cmp);
            costs[costs.len() / 2]
        })
    };
    let ([direct, service], cpu) = (median(|cost| cost.wall), median(|cost| cost.cpu));
    println!(
        "  {what:<14} {:>7.0} | {:>7.0} /s: {:.2} x;  CPU of both ends {:.1} | {:.1} us: {:.2} x",
        1.0 / direct,
        1.0 / service,
        direct / service,
        cpu[0] * 1e6,
        cpu[1] * 1e6,
        cpu[0] / cpu[1]
    );
}

/// Seconds of a connection.
struct Cost {
    wall: f64,
    /// Of this process, which is both ends.
    cpu: f64,
}

fn cost(to: SocketAddr) -> Cost {
    let (start, cpu) = (Instant::now(), cpu_time());
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(to).expect("the pod answers");
        // The server closes first, so that no port is used up here.
        let _ = stream.read(&mut [0]);
    }
    let of_one = |all: Duration| all.as_secs_f64() / CONNECTIONS as f64;
    Cost {
        wall: of_one(start.elapsed()),
        cpu: of_one(cpu_time() - cpu),
    }
}

/// A network namespace with a name, which goes with this.
struct Space(String);

impl Space {
    fn new(name: &str) -> Self {
        let name = format!("figures-{}-{name}", std::process::id());
        ip(&format!("netns add {name}"));
        Space(name)
    }

    /// Links it as a pod of the calling thread's namespace.
    fn link(&self, address: Ipv4Addr) {
        let (space, host) = (&self.0, format!("pod{}", address.octets()[3]));
        for command in [
            format!("link add {host} type veth peer name eth0 netns {space}"),
            format!("addr add 169.254.1.1/32 dev {host} scope link"),
            format!("link set {host} up"),
            format!("-n {space} addr add {address}/32 dev eth0"),
            format!("-n {space} link set eth0 up"),
            format!("-n {space} route add 169.254.1.1 dev eth0 scope link"),
            format!("-n {space} route add default via 169.254.1.1"),
            format!("route add {address} dev {host}"),
        ] {
            ip(&command);
        }
    }

    /// Runs something in it.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.0)).expect("a namespace");
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).expect("root");
                work()
            });
            inside.join().expect("a measurement")
        })
    }

    /// A server in it that closes what it accepts.
    fn serve(&self) {
        let listener = self.run(|| TcpListener::bind("0.0.0.0:8080").expect("a port"));
        std::thread::spawn(move || {
            before_others();
            listener.incoming().for_each(drop);
        });
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

fn nft(command: &str) {
    let done = Command::new("nft").arg(command).status();
    assert!(done.is_ok_and(|status| status.success()), "nft {command}");
}

fn ip(command: &str) {
    let done = Command::new("ip").args(command.split(' ')).status();
    assert!(done.is_ok_and(|status| status.success()), "ip {command}");
}

fn pod_service() -> (ServiceKey, Arc<ServiceFacts>, Arc<SliceFacts>) {
    let (key, mut service, mut slice) = service(0, 0);
    let key = ServiceKey {
        name: "pod".to_owned(),
        ..key
    };
    Arc::make_mut(&mut service).cluster_ips = vec![SERVICE.into()];
    let facts = Arc::make_mut(&mut slice);
    facts.service = key.clone();
    facts.endpoints.truncate(1);
    facts.endpoints[0].ip = POD.into();
    (key, service, slice)
}

/// Service number `n`, its first endpoint being its `generation`th.
fn service(n: u32, generation: u32) -> (ServiceKey, Arc<ServiceFacts>, Arc<SliceFacts>) {
    let key = ServiceKey {
        namespace: "default".to_owned(),
        name: format!("service-{n}"),
    };
    let port = PortFacts {
        name: String::new(),
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
    };
    let service = ServiceFacts {
        cluster_ips: vec![address(0x0a60_0001 + n)],
        ports: vec![port.clone()],
        ..ServiceFacts::default()
    };
    let first = 0x0af4_0000 + n * ENDPOINTS;
    let ip = |place: u32| match place {
        0 => address(first + (generation << 20)),
        place => address(first + place),
    };
    let endpoint = |place: u32| EndpointFacts {
        ip: ip(place),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        hostname: None,
    };
    let slice = SliceFacts {
        service: key.clone(),
        ports: vec![PortFacts { port: 8080, ..port }],
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
    };
    (key, Arc::new(service), Arc::new(slice))
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// What a piece of work gave, and its time in both kinds.
fn timed<T>(work: impl FnOnce() -> T) -> (T, String) {
    let (start, cpu) = (Instant::now(), cpu_time());
    let result = work();
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    (result, format!("{wall:8.1?} ({cpu:.1?} of CPU)"))
}

fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).map(|usage| {
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Duration::from_micros(micros.unsigned_abs())
    });
    usage.unwrap_or_default()
}
