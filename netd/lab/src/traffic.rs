//! Traffic between namespaces: flows of small packets at a steady pace, and for each flow the
//! longest time in which none arrived.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Lab;

/// Packets of a flow follow each other so closely.
pub const PACE: Duration = Duration::from_millis(2);

/// Flows from one namespace to an address in another.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    receiver: JoinHandle<Vec<Flow>>,
}

/// What arrived of a flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// When its packets arrived.
    pub arrivals: Vec<Instant>,
}

impl Flow {
    /// The longest time between two arrivals, of those after `from`.
    pub fn longest_gap(&self, from: Instant) -> Duration {
        let pairs = self.arrivals.windows(2).filter(|pair| pair[1] > from);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or(Duration::MAX)
    }
}

impl Traffic {
    /// Starts so many flows, each from a source port of its own; `source` is the sender's address.
    pub fn start(lab: &Lab, from: &str, source: &str, to: &str, target: &str, flows: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let target: SocketAddr = format!("{target}:7000").parse().unwrap();
        let receiver = {
            let stop = Arc::clone(&stop);
            lab.spawn_in(to, move || receive(target, flows, &stop))
        };
        let source: SocketAddr = format!("{source}:0").parse().unwrap();
        let sender = {
            let stop = Arc::clone(&stop);
            lab.spawn_in(from, move || send(source, target, flows, &stop))
        };
        Traffic {
            stop,
            threads: vec![sender],
            receiver,
        }
    }

    /// Ends it: what arrived, flow by flow.
    pub fn stop(self) -> Vec<Flow> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.receiver.join().unwrap()
    }
}

fn send(source: SocketAddr, target: SocketAddr, flows: u16, stop: &AtomicBool) {
    let sockets: Vec<UdpSocket> = (0..flows)
        .map(|_| UdpSocket::bind(source).unwrap())
        .collect();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for (number, socket) in (0u16..).zip(&sockets) {
            // While there is no way, there is none: that is what is measured.
            let _ = socket.send_to(&number.to_be_bytes(), target);
        }
        next += PACE;
        // A sender that was held up does not catch up: that would hide gaps.
        next = next.max(Instant::now());
        std::thread::sleep(next - Instant::now());
    }
}

fn receive(at: SocketAddr, flows: u16, stop: &AtomicBool) -> Vec<Flow> {
    let arrivals = Vec::new();
    let mut all = vec![Flow { arrivals }; flows.into()];
    let socket = UdpSocket::bind(at).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut buffer = [0; 16];
    while !stop.load(Ordering::Relaxed) {
        let Ok(2) = socket.recv(&mut buffer) else {
            continue;
        };
        let number = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
        if let Some(flow) = all.get_mut(number) {
            flow.arrivals.push(Instant::now());
        }
    }
    all
}

/// The longest time in which any flow had no arrival, of those after `from`.
pub fn longest_gap(flows: &[Flow], from: Instant) -> Duration {
    let gaps = flows.iter().map(|flow| flow.longest_gap(from));
    gaps.max().unwrap_or(Duration::MAX)
}
