//! Probes: packets whose hop limit grows by one, from the network namespace of the calling
//! thread. Each hop on the way answers that the limit ran out; the last answers itself.
//!
//! TCP and UDP go by ordinary sockets, so that they pass the service map as a client's packets
//! do; the kernel hands over who complained.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::packet::{self, Heard};
use super::socket::{Complaint, Socket};

/// How long a hop may take to answer.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How often a probe is sent again that nobody answered: hops answer a few times a second only.
const AGAIN: usize = 2;
/// Most hops.
pub const HOPS_MAX: u8 = 12;

/// What kind of probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// An echo request.
    Icmp,
    /// A connection to a port.
    Tcp(u16),
    /// A datagram to a port.
    Udp(u16),
}

/// What one probe met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Met {
    /// A hop on the way: the limit ran out there.
    Hop(IpAddr),
    /// The destination answered.
    Answered,
    /// The destination answered that nobody listens.
    Refused,
    /// A hop says that it cannot get there.
    Unreachable(Option<IpAddr>),
    /// Nobody answered in time.
    Silence,
}

/// One probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its hop limit.
    pub limit: u8,
    /// What it met.
    pub met: Met,
    /// After how long, in microseconds.
    pub micros: u64,
}

/// Probes to one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// The probes, in order.
    pub steps: Vec<Step>,
    /// Source address and port of the last.
    pub source: Option<SocketAddr>,
}

/// Sends probes until the destination answers, three in a row meet silence, or [`HOPS_MAX`].
///
/// # Errors
/// If a socket cannot be made: not root, or no such address family here.
pub fn walk(destination: IpAddr, probe: Probe) -> io::Result<Walk> {
    let mut walk = Walk::default();
    let mut silent = 0;
    for limit in 1..=HOPS_MAX {
        // All by one flow: routers with several ways choose by its ports.
        let (mut step, mut source) = send(destination, probe, limit, walk.source)?;
        for _ in 0..AGAIN {
            if step.met != Met::Silence {
                break;
            }
            (step, source) = send(destination, probe, limit, walk.source)?;
        }
        walk.source = source.or(walk.source);
        let met = step.met;
        walk.steps.push(step);
        silent = if met == Met::Silence { silent + 1 } else { 0 };
        if silent == 3 || !matches!(met, Met::Hop(_) | Met::Silence) {
            break;
        }
    }
    Ok(walk)
}

/// Sends one probe with the usual hop limit.
///
/// # Errors
/// As [`walk`].
pub fn once(destination: IpAddr, probe: Probe) -> io::Result<Walk> {
    const USUAL: u8 = 64;
    let (step, source) = send(destination, probe, USUAL, None)?;
    Ok(Walk {
        steps: vec![step],
        source,
    })
}

fn send(
    destination: IpAddr,
    probe: Probe,
    limit: u8,
    from: Option<SocketAddr>,
) -> io::Result<(Step, Option<SocketAddr>)> {
    let begun = Instant::now();
    let (met, source) = match probe {
        Probe::Icmp => (echo(destination, limit)?, None),
        Probe::Tcp(port) => connect(SocketAddr::new(destination, port), limit, from)?,
        Probe::Udp(port) => datagram(SocketAddr::new(destination, port), limit, from)?,
    };
    let micros = begun.elapsed().as_micros() as u64;
    Ok((Step { limit, met, micros }, source))
}

/// A socket for probes to an address, of a flow that began at `from`.
fn prepared(to: SocketAddr, kind: i32, limit: u8, from: Option<SocketAddr>) -> io::Result<Socket> {
    let socket = Socket::open(to.is_ipv4(), kind, 0)?;
    socket.set_hop_limit(limit)?;
    socket.hear_errors()?;
    if let Some(from) = from {
        socket.bind(from)?;
    }
    Ok(socket)
}

fn connect(
    to: SocketAddr,
    limit: u8,
    from: Option<SocketAddr>,
) -> io::Result<(Met, Option<SocketAddr>)> {
    let socket = prepared(to, libc::SOCK_STREAM, limit, from)?;
    let until = Instant::now() + PATIENCE;
    if let Err(error) = socket.connect(to)
        && error.raw_os_error() != Some(libc::EINPROGRESS)
    {
        return Ok((judge(&error, socket.complaint()), socket.own_end()));
    }
    if !socket.wait(libc::POLLOUT, until)? {
        return Ok((Met::Silence, socket.own_end()));
    }
    let complaint = socket.complaint();
    let met = match socket.pending()? {
        0 => told(complaint),
        errno => judge(&io::Error::from_raw_os_error(errno), complaint),
    };
    Ok((met, socket.own_end()))
}

fn datagram(
    to: SocketAddr,
    limit: u8,
    from: Option<SocketAddr>,
) -> io::Result<(Met, Option<SocketAddr>)> {
    let socket = prepared(to, libc::SOCK_DGRAM, limit, from)?;
    if let Err(error) = socket.connect(to) {
        return Ok((judge(&error, None), None));
    }
    let own = socket.own_end();
    if let Err(error) = socket.send(b"peapod net trace") {
        return Ok((judge(&error, socket.complaint()), own));
    }
    if !socket.wait(libc::POLLIN, Instant::now() + PATIENCE)? {
        return Ok((Met::Silence, own));
    }
    Ok((told(socket.complaint()), own))
}

fn echo(to: IpAddr, limit: u8) -> io::Result<Met> {
    let v4 = to.is_ipv4();
    let protocol = if v4 {
        libc::IPPROTO_ICMP
    } else {
        libc::IPPROTO_ICMPV6
    };
    let socket = Socket::open(v4, libc::SOCK_RAW, protocol)?;
    socket.set_hop_limit(limit)?;
    let (id, sequence) = (std::process::id() as u16, u16::from(limit));
    let request = packet::echo_request(v4, id, sequence);
    if let Err(error) = socket.send_to(&request, SocketAddr::new(to, 0)) {
        return Ok(judge(&error, None));
    }
    let until = Instant::now() + PATIENCE;
    let mut bytes = [0u8; 1500];
    while socket.wait(libc::POLLIN, until)? {
        let Some((got, from)) = socket.receive(&mut bytes) else {
            continue;
        };
        // A raw socket hears of everybody's echoes.
        let heard = bytes
            .get(..got)
            .and_then(|b| packet::read(v4, b, id, sequence));
        let from = from.map(|from| from.ip());
        match heard {
            Some(Heard::Echo) => return Ok(Met::Answered),
            Some(Heard::Expired) => return Ok(from.map_or(Met::Silence, Met::Hop)),
            Some(Heard::Unreachable) => return Ok(Met::Unreachable(from)),
            None => {}
        }
    }
    Ok(Met::Silence)
}

/// What it means that a socket became ready.
fn told(complaint: Option<Complaint>) -> Met {
    complaint.map_or(Met::Answered, |(errno, from)| {
        judge(&io::Error::from_raw_os_error(errno), Some((errno, from)))
    })
}

/// What an error means for a probe.
fn judge(error: &io::Error, complaint: Option<Complaint>) -> Met {
    let from = complaint.and_then(|(_, from)| from);
    match (error.raw_os_error(), from) {
        (Some(libc::ECONNREFUSED), _) => Met::Refused,
        // A hop limit that ran out is "no route to host", told by the hop.
        (Some(libc::EHOSTUNREACH), Some(hop)) => Met::Hop(hop),
        (_, from) => Met::Unreachable(from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listener_answers_and_a_closed_port_refuses() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let ip: IpAddr = ip.parse().unwrap();
            let found = walk(ip, Probe::Tcp(port)).unwrap();
            assert_eq!(found.steps[0].met, Met::Answered, "{ip}");
            assert!(found.source.is_some());
            drop(listener);
            let found = walk(ip, Probe::Tcp(port)).unwrap();
            assert_eq!(found.steps.last().unwrap().met, Met::Refused, "{ip}");
            let found = walk(ip, Probe::Udp(port)).unwrap();
            assert_eq!(found.steps.last().unwrap().met, Met::Refused, "{ip}");
            let found = walk(ip, Probe::Icmp).unwrap();
            assert_eq!(found.steps[0].met, Met::Answered, "{ip}");
        }
    }
}
