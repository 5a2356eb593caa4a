//! Traffic between namespaces: flows of small packets at a steady pace. For each flow it is seen
//! how many packets were lost, and the longest time in which none arrived.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::process::before_others;
use crate::{Lab, enter, eventually};

/// Packets of a flow follow each other so closely.
pub const PACE: Duration = Duration::from_millis(2);
/// What is on its way when the senders end arrives within this time.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// Room for what arrives while the receiver waits for a processor.
const RECEIVE_BUFFER: usize = 64 << 20;
const PORT: u16 = 7000;
/// A packet: its flow and its round.
const PACKET: usize = 10;

/// One end of flows.
#[derive(Clone, Debug)]
pub struct End {
    /// The file of its network namespace.
    pub space: PathBuf,
    /// Its address there.
    pub address: String,
}

/// Flows from one namespace to an address in another.
#[derive(Debug)]
pub struct Traffic {
    shared: Arc<Shared>,
    flows: u64,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<Flow>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The round in which each flow sends its next packet.
    round: AtomicU64,
    /// The round from which on packets count.
    mark: AtomicU64,
    /// Flows of which something has arrived.
    heard: AtomicU64,
}

/// What arrived of a flow.
#[derive(Clone, Debug, Default)]
pub struct Flow {
    /// When its packets arrived.
    pub arrivals: Vec<Instant>,
    /// Those of them that count: sent since [`Traffic::flowing`].
    pub received: u64,
    /// So many were sent that count.
    pub sent: u64,
    /// The rounds of the arrivals.
    rounds: Vec<u64>,
}

/// What became of some flows.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Packets that were sent.
    pub sent: u64,
    /// Of these, packets that never arrived.
    pub lost: u64,
    /// The longest time in which any flow had no arrival.
    pub longest: Duration,
}

// === impl End ===

impl End {
    /// An end in a namespace of a lab's.
    pub fn of(lab: &Lab, name: &str, address: &str) -> Self {
        End {
            space: lab.space_file(name),
            address: address.to_owned(),
        }
    }
}

// === impl Flow ===

impl Flow {
    /// What arrived of it before a moment.
    pub fn until(&self, at: Instant) -> Self {
        let count = self.arrivals.partition_point(|one| *one < at);
        Flow {
            arrivals: self.arrivals[..count].to_vec(),
            ..Flow::default()
        }
    }

    /// The longest time between two arrivals, of those after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let pairs = self.arrivals.windows(2).filter(|pair| pair[1] > from);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(Duration::MAX)
    }
}

// === impl Loss ===

impl Loss {
    /// Of these flows, from a moment on.
    pub fn of(flows: &[Flow], from: Instant) -> Self {
        let sum = |count: fn(&Flow) -> u64| flows.iter().map(count).sum();
        let (sent, received): (u64, u64) = (sum(|flow| flow.sent), sum(|flow| flow.received));
        Loss {
            sent,
            lost: sent - received,
            longest: longest_gap(flows, from),
        }
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Loss {
            sent,
            lost,
            longest,
        } = self;
        write!(f, "{lost} of {sent} packets lost, longest gap {longest:?}")
    }
}

// === impl Traffic ===

impl Traffic {
    /// Starts so many flows, each from a source port of its own; `source` is the sender's address.
    pub fn start(lab: &Lab, from: &str, source: &str, to: &str, target: &str, flows: u16) -> Self {
        Self::between(
            &End::of(lab, from, source),
            &End::of(lab, to, target),
            flows,
        )
    }

    /// Starts so many flows from one end to another.
    pub fn between(from: &End, to: &End, flows: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let at = |end: &End, port| SocketAddr::new(end.address.parse().unwrap(), port);
        let (source, target) = (at(from, 0), at(to, PORT));
        let receiver = {
            let shared = Arc::clone(&shared);
            spawn(&to.space, move || receive(target, flows, &shared))
        };
        let sender = {
            let shared = Arc::clone(&shared);
            spawn(&from.space, move || send(source, target, flows, &shared))
        };
        Traffic {
            shared,
            flows: flows.into(),
            sender,
            receiver,
        }
    }

    /// Waits until something of every flow has arrived. Packets count from then on: the first
    /// ones wait for the addresses of neighbours, and not all of them can.
    pub fn flowing(self) -> Self {
        eventually("every flow arrives", || {
            self.shared.heard.load(Ordering::SeqCst) == self.flows
        });
        let next = self.shared.round.load(Ordering::SeqCst) + 1;
        self.shared.mark.store(next, Ordering::SeqCst);
        self
    }

    /// Ends it: what arrived, flow by flow.
    pub fn stop(self) -> Vec<Flow> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.sender.join().unwrap();
        let mut flows = self.receiver.join().unwrap();
        let mark = self.shared.mark.load(Ordering::SeqCst);
        let rounds = self.shared.round.load(Ordering::SeqCst);
        for flow in &mut flows {
            flow.sent = rounds.saturating_sub(mark);
            let count = flow.rounds.iter().filter(|round| **round >= mark).count();
            flow.received = count as u64;
        }
        flows
    }
}

fn spawn<T: Send + 'static>(
    space: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let space = space.to_owned();
    std::thread::spawn(move || {
        enter(&space);
        before_others();
        work()
    })
}

fn send(source: SocketAddr, target: SocketAddr, flows: u16, shared: &Shared) {
    let sockets: Vec<UdpSocket> = (0..flows)
        .map(|_| UdpSocket::bind(source).unwrap())
        .collect();
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::SeqCst) {
        let round = shared.round.load(Ordering::SeqCst);
        let mut packet = [0; PACKET];
        packet[2..].copy_from_slice(&round.to_be_bytes());
        for (number, socket) in (0u16..).zip(&sockets) {
            packet[..2].copy_from_slice(&number.to_be_bytes());
            // While there is no way, there is none: that is what is measured.
            let _ = socket.send_to(&packet, target);
        }
        shared.round.fetch_add(1, Ordering::SeqCst);
        next += PACE;
        // A sender that was held up does not catch up: that would hide gaps.
        next = next.max(Instant::now());
        std::thread::sleep(next - Instant::now());
    }
}

fn receive(at: SocketAddr, flows: u16, shared: &Shared) -> Vec<Flow> {
    let mut all = vec![Flow::default(); flows.into()];
    let socket = UdpSocket::bind(at).unwrap();
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).unwrap();
    socket.set_read_timeout(Some(ON_ITS_WAY)).unwrap();
    let mut packet = [0; PACKET + 1];
    loop {
        match socket.recv(&mut packet) {
            Ok(PACKET) => {}
            Ok(_) => continue,
            Err(_) if shared.stop.load(Ordering::SeqCst) => return all,
            Err(_) => continue,
        }
        let number = usize::from(u16::from_be_bytes([packet[0], packet[1]]));
        let round = packet[2..PACKET].try_into().map(u64::from_be_bytes);
        let (Some(flow), Ok(round)) = (all.get_mut(number), round) else {
            continue;
        };
        if flow.arrivals.is_empty() {
            shared.heard.fetch_add(1, Ordering::SeqCst);
        }
        flow.arrivals.push(Instant::now());
        flow.rounds.push(round);
    }
}

/// The longest time in which any flow had no arrival, of those after `from`.
pub fn longest_gap(flows: &[Flow], from: Instant) -> Duration {
    let gaps = flows.iter().map(|flow| flow.longest_gap(from));
    gaps.max().unwrap_or(Duration::MAX)
}
