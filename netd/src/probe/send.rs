//! Probes: packets whose hop limit grows by one, from the network namespace of the calling
//! thread. Each hop on the way answers that the limit ran out; the last answers itself.
//!
//! TCP and UDP go by ordinary sockets, so that they pass the service map as a client's packets
//! do; the kernel hands over who complained (`IP_RECVERR`). The single module of this part with
//! system calls of its own.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::packet::{self, Heard};

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

fn socket(v4: bool, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain numbers; the result is checked.
    let fd = unsafe { libc::socket(family, kind | flags, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    let value: *const i32 = &value;
    // SAFETY: `value` points to an i32 that lives through the call, and its length is given.
    let set = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.cast(), length) };
    if set < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn prepare(fd: &OwnedFd, v4: bool, limit: u8) -> io::Result<()> {
    match v4 {
        true => {
            set(fd, libc::IPPROTO_IP, libc::IP_TTL, limit.into())?;
            set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
        }
        false => {
            set(
                fd,
                libc::IPPROTO_IPV6,
                libc::IPV6_UNICAST_HOPS,
                limit.into(),
            )?;
            set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
        }
    }
}

/// A socket address as the kernel takes it.
fn raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a sockaddr_storage is large and aligned enough for every address.
            unsafe { std::ptr::write((&raw mut storage).cast(), raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { std::ptr::write((&raw mut storage).cast(), raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// Waits for events of a socket; false when there is none in time.
fn wait(fd: &OwnedFd, events: i16, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events,
            revents: 0,
        };
        let millis = left.as_millis().min(i32::MAX as u128) as i32;
        // SAFETY: one pollfd, which lives through the call.
        match unsafe { libc::poll(&mut poll, 1, millis) } {
            0 => return Ok(false),
            n if n > 0 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Sends from the same port as the probe before. Where that is not free yet, any other does.
fn bind(fd: &OwnedFd, from: Option<SocketAddr>) -> io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let (address, length) = raw(from);
    // SAFETY: the address lives through the call, and its length is its own.
    unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    Ok(())
}

fn start(fd: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = raw(to);
    // SAFETY: the address lives through the call, and its length is its own.
    let done = unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn own_end(fd: &OwnedFd) -> Option<SocketAddr> {
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let place = (&raw mut storage).cast();
    // SAFETY: storage and length live through the call; the kernel writes no more than length.
    let got = unsafe { libc::getsockname(fd.as_raw_fd(), place, &mut length) };
    if got == 0 {
        read_address(&storage)
    } else {
        None
    }
}

fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let place: *const libc::sockaddr_storage = storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in.
            let raw = unsafe { *place.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6.
            let raw = unsafe { *place.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(raw.sin6_port)))
        }
        _ => None,
    }
}

fn connect(
    to: SocketAddr,
    limit: u8,
    from: Option<SocketAddr>,
) -> io::Result<(Met, Option<SocketAddr>)> {
    let fd = socket(to.is_ipv4(), libc::SOCK_STREAM, 0)?;
    prepare(&fd, to.is_ipv4(), limit)?;
    bind(&fd, from)?;
    let until = Instant::now() + PATIENCE;
    if let Err(error) = start(&fd, to)
        && error.raw_os_error() != Some(libc::EINPROGRESS)
    {
        return Ok((judge(&error, complaint(&fd)), own_end(&fd)));
    }
    if !wait(&fd, libc::POLLOUT, until)? {
        return Ok((Met::Silence, own_end(&fd)));
    }
    let complaint = complaint(&fd);
    let met = match pending(&fd)? {
        0 => match complaint {
            Some((errno, from)) => judge(&io::Error::from_raw_os_error(errno), Some((errno, from))),
            None => Met::Answered,
        },
        errno => judge(&io::Error::from_raw_os_error(errno), complaint),
    };
    Ok((met, own_end(&fd)))
}

fn datagram(
    to: SocketAddr,
    limit: u8,
    from: Option<SocketAddr>,
) -> io::Result<(Met, Option<SocketAddr>)> {
    let fd = socket(to.is_ipv4(), libc::SOCK_DGRAM, 0)?;
    prepare(&fd, to.is_ipv4(), limit)?;
    bind(&fd, from)?;
    if let Err(error) = start(&fd, to) {
        return Ok((judge(&error, None), None));
    }
    let own = own_end(&fd);
    let payload = b"peapod net trace";
    // SAFETY: the payload lives through the call, and its length is given.
    let sent = unsafe { libc::send(fd.as_raw_fd(), payload.as_ptr().cast(), payload.len(), 0) };
    if sent < 0 {
        return Ok((judge(&io::Error::last_os_error(), complaint(&fd)), own));
    }
    if !wait(&fd, libc::POLLIN, Instant::now() + PATIENCE)? {
        return Ok((Met::Silence, own));
    }
    let met = match complaint(&fd) {
        Some((errno, from)) => judge(&io::Error::from_raw_os_error(errno), Some((errno, from))),
        None => Met::Answered,
    };
    Ok((met, own))
}

/// The error that a socket holds.
fn pending(fd: &OwnedFd) -> io::Result<i32> {
    let mut errno = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let place: *mut i32 = &mut errno;
    // SAFETY: errno and length live through the call.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            place.cast(),
            &mut length,
        )
    };
    if got < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(errno)
    }
}

/// What a socket was told by ICMP: the error, and who told.
fn complaint(fd: &OwnedFd) -> Option<(i32, Option<IpAddr>)> {
    let mut data = [0u8; 512];
    let mut control = [0u64; 64];
    let mut piece = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: every buffer that the header names lives through the call, with its own length.
    if unsafe { libc::recvmsg(fd.as_raw_fd(), &mut message, flags) } < 0 {
        return None;
    }
    // SAFETY: the header was filled by the kernel, and its control buffer is still there.
    let mut head = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !head.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give headers inside of the control buffer.
        let (level, kind) = unsafe { ((*head).cmsg_level, (*head).cmsg_type) };
        let ours = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        if ours {
            // SAFETY: this kind of message holds a sock_extended_err and, behind it, the address
            // of who told, with its family; the kernel writes both whole.
            let (error, from) = unsafe {
                let error = libc::CMSG_DATA(head).cast::<libc::sock_extended_err>();
                let offender = libc::SO_EE_OFFENDER(error);
                let family = i32::from((*offender).sa_family);
                (
                    std::ptr::read_unaligned(error),
                    offender_ip(family, offender.cast()),
                )
            };
            let told = error.ee_origin != libc::SO_EE_ORIGIN_LOCAL;
            let from = from.filter(|ip| told && packet::is_answerable(*ip));
            return Some((error.ee_errno as i32, from));
        }
        // SAFETY: as above.
        head = unsafe { libc::CMSG_NXTHDR(&message, head) };
    }
    None
}

/// # Safety
/// `address` must point to an address of that family.
unsafe fn offender_ip(family: i32, address: *const u8) -> Option<IpAddr> {
    match family {
        libc::AF_INET => {
            // SAFETY: the caller's.
            let raw = unsafe { std::ptr::read_unaligned(address.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the caller's.
            let raw = unsafe { std::ptr::read_unaligned(address.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(raw.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// What an error means for a probe.
fn judge(error: &io::Error, complaint: Option<(i32, Option<IpAddr>)>) -> Met {
    let from = complaint.and_then(|(_, from)| from);
    match (error.raw_os_error(), from) {
        (Some(libc::ECONNREFUSED), _) => Met::Refused,
        // A hop limit that ran out is "no route to host", told by the hop.
        (Some(libc::EHOSTUNREACH), Some(hop)) => Met::Hop(hop),
        (_, from) => Met::Unreachable(from),
    }
}

fn echo(to: IpAddr, limit: u8) -> io::Result<Met> {
    let v4 = to.is_ipv4();
    let protocol = if v4 {
        libc::IPPROTO_ICMP
    } else {
        libc::IPPROTO_ICMPV6
    };
    let fd = socket(v4, libc::SOCK_RAW, protocol)?;
    match v4 {
        true => set(&fd, libc::IPPROTO_IP, libc::IP_TTL, limit.into())?,
        false => set(
            &fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_UNICAST_HOPS,
            limit.into(),
        )?,
    }
    let (id, sequence) = (std::process::id() as u16, u16::from(limit));
    let request = packet::echo_request(v4, id, sequence);
    let (address, length) = raw(SocketAddr::new(to, 0));
    // SAFETY: request and address live through the call, with their own lengths.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            request.as_ptr().cast(),
            request.len(),
            0,
            (&raw const address).cast(),
            length,
        )
    };
    if sent < 0 {
        return Ok(judge(&io::Error::last_os_error(), None));
    }
    let until = Instant::now() + PATIENCE;
    while wait(&fd, libc::POLLIN, until)? {
        if let Some((heard, from)) = receive(&fd, v4, id, sequence) {
            return Ok(match heard {
                Heard::Echo => Met::Answered,
                Heard::Expired => from.map_or(Met::Silence, Met::Hop),
                Heard::Unreachable => Met::Unreachable(from),
            });
        }
    }
    Ok(Met::Silence)
}

fn receive(fd: &OwnedFd, v4: bool, id: u16, sequence: u16) -> Option<(Heard, Option<IpAddr>)> {
    let mut bytes = [0u8; 1500];
    // SAFETY: all zeros is a valid sockaddr_storage.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: buffer, address and length live through the call, with their own lengths.
    let got = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
            (&raw mut storage).cast(),
            &mut length,
        )
    };
    let got = usize::try_from(got).ok()?;
    let heard = packet::read(v4, bytes.get(..got)?, id, sequence)?;
    Some((heard, read_address(&storage).map(|from| from.ip())))
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
