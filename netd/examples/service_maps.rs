//! How long the kernel takes to learn many services, and one change among them.
//!
//! `cargo run --release -p peapod-netd --example service_maps [SERVICES]`, as root. It works in
//! a network namespace of its own, and reads everything back to check it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use peapod_api::attach::Protocol;
use peapod_netd::core::facts::{EndpointFacts, PortFacts, ServiceFacts, ServiceKey, SliceFacts};
use peapod_netd::core::services::ServiceTable;
use peapod_netd::nat::{Nat, NatConfig};

const ENDPOINTS: u32 = 3;
const CHANGES: u32 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let services: u32 = std::env::args().nth(1).map_or(Ok(10_000), |n| n.parse())?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let config = NatConfig {
        private_ips: Vec::new(),
        service_cidrs: vec!["10.96.0.0/12".parse()?],
        ipv6: false,
    };
    let (mut nat, empty) = Nat::open(&config)?;
    let mut table = ServiceTable::new("here", &[], empty);
    for n in 0..services {
        let (key, service, slice) = service(n, 0);
        table.set_service(key, Some(service));
        table.set_slice("default", &format!("slice-{n}"), Some(slice));
    }
    println!("{services} services of {ENDPOINTS} endpoints each");
    let (changes, plan) = timed(|| table.plan());
    println!("  what to write     {plan}");
    let (written, write) = timed(|| nat.apply(&changes));
    written?;
    println!("  writing it        {write}");
    let (reopened, read) = timed(|| Nat::open(&config));
    let (_, found) = reopened?;
    println!("  reading it back   {read}");
    assert_eq!(&found, table.current(), "the kernel has what was written");

    let mut took = Vec::new();
    for n in 0..CHANGES {
        let at = (n * 7919) % services;
        let start = Instant::now();
        let (_, _, slice) = service(at, n + 1);
        table.set_slice("default", &format!("slice-{at}"), Some(slice));
        nat.apply(&table.plan())?;
        took.push(start.elapsed());
    }
    took.sort();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!("  one change        p50 {:?}, p99 {:?}", at(50), at(99));
    let (_, found) = Nat::open(&config)?;
    assert_eq!(&found, table.current(), "the kernel has what was changed");
    Ok(())
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
