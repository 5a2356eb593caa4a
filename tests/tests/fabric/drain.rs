//! A node leaves, and nobody outside notices.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use peapod_lab::Lab;
use peapod_tests::{Rack, command, wait};

/// Where clients are: behind a spine.
const OUTSIDE: [&str; 2] = ["198.51.100.0/24", "2001:db8::/64"];
const SERVICE: [&str; 2] = ["203.0.113.9", "2001:db8:f::9"];
const PORT: u16 = 8080;
/// So long the drain waits for connections.
const WAIT_S: u64 = 8;
/// Connections that end within the wait, and some that do not.
const SLOW: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(20);
/// Slow connections say something so often.
const PACE: Duration = Duration::from_millis(100);

/// One on each node. Who ends serves on for longer than slow connections last.
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: web}}
      terminationGracePeriodSeconds: 10
      containers:
      - name: c
        image: peapod.dev/demo:v1
        env: [{name: DRAIN_MS, value: '4000'}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  type: LoadBalancer
  externalTrafficPolicy: Local
  ipFamilyPolicy: PreferDualStack
  externalIPs: [203.0.113.9, '2001:db8:f::9']
  ports: [{port: 8080}]
";

/// When the first client began.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Drains a node, and says how it goes; the last lines.
fn drain(rack: &Rack, node: &str) -> Result<Vec<String>> {
    let wait = WAIT_S.to_string();
    let mut child = Command::new(command::peapod()?)
        .args(["net", "drain", node, "--wait", &wait])
        .env("PEAPOD_DATA_DIR", rack.cluster.data_dir())
        .env("KUBECONFIG", rack.cluster.kubeconfig())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line?;
        println!("{:>6.1} s  {line}", start().elapsed().as_secs_f32());
        lines.push(line);
    }
    ensure!(child.wait()?.success(), "the drain failed");
    Ok(lines)
}

/// What became of connections.
#[derive(Default)]
struct Counts {
    ended: AtomicUsize,
    slowest_ms: AtomicUsize,
    failed: parking_lot::Mutex<Vec<String>>,
}

/// Clients that open one connection after the other.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Some that do, in a network namespace, to both addresses; each connection lasts so long.
    fn start(space: &Path, count: usize, lasting: Duration, counts: &Arc<Counts>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..count {
            let to = SocketAddr::new(SERVICE[number % 2].parse()?, PORT);
            let (space, stop, counts) = (space.to_owned(), stop.clone(), counts.clone());
            let start = self::start();
            threads.push(std::thread::spawn(move || {
                peapod_lab::enter(&space);
                while !stop.load(Ordering::SeqCst) {
                    let begun = Instant::now();
                    match converse(to, lasting) {
                        Ok(()) => counts.ended.fetch_add(1, Ordering::SeqCst),
                        Err(error) => {
                            let (at, took) = (begun - start, begun.elapsed());
                            let told =
                                format!("to {to}, begun at {at:.1?}, after {took:.1?}: {error:#}");
                            counts.failed.lock().push(told);
                            0
                        }
                    };
                    let took = begun.elapsed().saturating_sub(lasting).as_millis() as usize;
                    counts.slowest_ms.fetch_max(took, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }));
        }
        Ok(Self { stop, threads })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client panicked");
        }
    }
}

/// A request that takes its time, and its answer.
fn converse(to: SocketAddr, lasting: Duration) -> Result<()> {
    let begun = Instant::now();
    let patience = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&to, patience).context("connecting")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.1\r\n")?;
    while begun.elapsed() < lasting {
        stream.write_all(b"X-More: yes\r\n").context("asking")?;
        std::thread::sleep(PACE);
    }
    stream.write_all(b"\r\n").context("asking")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("the answer")?;
    ensure!(text.contains("from web-"), "cut off: {text:?}");
    Ok(())
}

/// A namespace behind a spine, which announces it.
fn clients_behind_a_spine(rack: &Rack) -> Result<Lab> {
    let mut lab = Lab::new();
    lab.adopt("spine-1", &rack.space("spine-1")?);
    let ends = [1, 2].map(|end| format!("198.51.100.{end}/24 2001:db8::{end}/64"));
    lab.link(("spine-1", &ends[0]), ("outside", &ends[1]));
    lab.within("outside", "ip route add default via 198.51.100.1");
    lab.within("outside", "ip -6 route add default via 2001:db8::1");
    rack.reconfigure("spine-1", |config| {
        config["announce"] = OUTSIDE.to_vec().into()
    })?;
    rack.complete()?;
    Ok(lab)
}

/// How many next hops a member's kernel has for a service's address.
fn ways(rack: &Rack, member: &str, address: &str) -> Result<usize> {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let shown = rack.within(member, &format!("ip {family} route show {address}"))?;
    Ok(shown.matches("dev ").count())
}

#[test]
fn a_node_leaves_without_a_connection_being_lost() -> Result<()> {
    let rack = Rack::up(4, "2x4", &[])?;
    let cluster = &rack.cluster;
    let lab = clients_behind_a_spine(&rack)?;
    cluster.apply(WEB)?;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")?
        .ok()?;
    wait::until("the nodes to know where clients are", || {
        let mut known = true;
        for node in ["node-1", "node-2", "node-3", "node-4"] {
            for prefix in OUTSIDE {
                known &= ways(&rack, node, prefix)? == 2;
            }
        }
        Ok(known)
    })?;
    for address in SERVICE {
        wait::until("both nodes of the rack to announce the service", || {
            Ok(ways(&rack, "leaf-1", address)? == 2 && ways(&rack, "spine-1", address)? == 4)
        })?;
    }
    let web = "pods -l app=web --field-selector=spec.nodeName=node-1";
    let here = cluster.field(web, "{.items[*].metadata.name}")?;
    ensure!(!here.is_empty(), "no server on the node that is to leave");

    let space = lab.space_file("outside");
    let (counts, long) = (Arc::<Counts>::default(), Arc::<Counts>::default());
    let clients = [
        Clients::start(&space, 4, Duration::ZERO, &counts)?,
        Clients::start(&space, 16, SLOW, &counts)?,
        Clients::start(&space, 8, LONG, &long)?,
    ];
    wait::until("connections", || {
        Ok(counts.ended.load(Ordering::SeqCst) > 50)
    })?;
    let said = drain(&rack, "node-1")?;
    let block = cluster.field("node/node-1", "{.spec.podCIDR}")?;
    wait::until("its pods' addresses to be withdrawn", || {
        Ok(rack
            .within("leaf-1", &format!("ip route show {block}"))?
            .is_empty())
    })?;
    for clients in clients {
        clients.stop();
    }
    let failed = counts.failed.lock();
    println!(
        "drain of {WAIT_S} s: {} connections ended well, {} did not, the slowest took {} ms more \
         than it wanted; of those of {LONG:?} {} ended well, {} did not",
        counts.ended.load(Ordering::SeqCst),
        failed.len(),
        counts.slowest_ms.load(Ordering::SeqCst),
        long.ended.load(Ordering::SeqCst),
        long.failed.lock().len(),
    );
    ensure!(failed.is_empty(), "{:#?}", failed);
    ensure!(
        !said.iter().any(|line| line.contains("warning")),
        "{said:#?}"
    );
    ensure!(cluster.field(web, "{.items[*].metadata.name}")?.is_empty());
    ensure!(cluster.field("node/node-1", "{.spec.unschedulable}")? == "true");
    ensure!(ways(&rack, "leaf-1", SERVICE[0])? == 1);

    cluster.peapod(["net", "drain", "node-1", "--undo"])?.ok()?;
    wait::until("it announces as before", || {
        let back = rack.within("leaf-1", &format!("ip route show {block}"))?;
        // What others did for it meanwhile is over.
        let tables = rack.within("node-2", "nft list tables")?;
        Ok(!back.is_empty() && !tables.contains("handover"))
    })?;
    ensure!(
        cluster
            .field("node/node-1", "{.spec.unschedulable}")?
            .is_empty()
    );
    Ok(())
}
