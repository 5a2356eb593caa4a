//! Sockets of probes: the single module of this part with system calls of its own.
//!
//! `IP_RECVERR` is why: the kernel hands over who complained of a packet, and no wrapper of
//! sockets reads that.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Instant;

use super::packet;

/// A non-blocking socket of one address family.
pub(super) struct Socket {
    fd: OwnedFd,
    v4: bool,
}

/// What ICMP told a socket: the error, and who told, if it was somebody else and has an address.
pub(super) type Complaint = (i32, Option<IpAddr>);

impl Socket {
    pub(super) fn open(v4: bool, kind: i32, protocol: i32) -> io::Result<Self> {
        let family = if v4 { libc::AF_INET } else { libc::AF_INET6 };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain numbers; the result is checked.
        let fd = unsafe { libc::socket(family, kind | flags, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Socket { fd, v4 })
    }

    fn set(&self, level: i32, name: i32, value: i32) -> io::Result<()> {
        let length = size_of::<i32>() as libc::socklen_t;
        let value: *const i32 = &value;
        // SAFETY: `value` points to an i32 that lives through the call, and its length is given.
        let set =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, value.cast(), length) };
        checked(set as isize).map(drop)
    }

    /// The hop limit of what is sent from now on.
    pub(super) fn set_hop_limit(&self, limit: u8) -> io::Result<()> {
        match self.v4 {
            true => self.set(libc::IPPROTO_IP, libc::IP_TTL, limit.into()),
            false => self.set(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, limit.into()),
        }
    }

    /// Has [`complaint`](Self::complaint) hear of errors.
    pub(super) fn hear_errors(&self) -> io::Result<()> {
        match self.v4 {
            true => self.set(libc::IPPROTO_IP, libc::IP_RECVERR, 1),
            false => self.set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
        }
    }

    /// Sends from this address and port. Where that is not free yet, any other does.
    pub(super) fn bind(&self, from: SocketAddr) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let (address, length) = raw(from);
        // SAFETY: the address lives through the call, and its length is its own.
        unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        Ok(())
    }

    /// Begins to connect.
    pub(super) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        let (address, length) = raw(to);
        // SAFETY: the address lives through the call, and its length is its own.
        let done =
            unsafe { libc::connect(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        checked(done as isize).map(drop)
    }

    /// Its own address and port.
    pub(super) fn own_end(&self) -> Option<SocketAddr> {
        // SAFETY: all zeros is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let place = (&raw mut storage).cast();
        // SAFETY: storage and length live through the call; the kernel writes no more than length.
        let got = unsafe { libc::getsockname(self.fd.as_raw_fd(), place, &mut length) };
        if got == 0 {
            read_address(&storage)
        } else {
            None
        }
    }

    /// Waits for events (`POLLIN`, `POLLOUT`); false when there is none in time.
    pub(super) fn wait(&self, events: i16, until: Instant) -> io::Result<bool> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.fd.as_raw_fd(),
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

    /// Sends to where it is connected.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the bytes live through the call, and their length is given.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        checked(sent).map(drop)
    }

    pub(super) fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let (address, length) = raw(to);
        // SAFETY: bytes and address live through the call, with their own lengths.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        checked(sent).map(drop)
    }

    /// What has come, if anything: how many bytes, and from where.
    pub(super) fn receive(&self, bytes: &mut [u8]) -> Option<(usize, Option<SocketAddr>)> {
        // SAFETY: all zeros is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: buffer, address and length live through the call, with their own lengths.
        let got = unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT,
                (&raw mut storage).cast(),
                &mut length,
            )
        };
        Some((usize::try_from(got).ok()?, read_address(&storage)))
    }

    /// The error number that it holds, 0 without one.
    pub(super) fn pending(&self) -> io::Result<i32> {
        let mut errno = 0i32;
        let mut length = size_of::<i32>() as libc::socklen_t;
        let place: *mut i32 = &mut errno;
        // SAFETY: errno and length live through the call.
        let got = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                place.cast(),
                &mut length,
            )
        };
        checked(got as isize).map(|_| errno)
    }

    /// What ICMP told since the last time.
    pub(super) fn complaint(&self) -> Option<Complaint> {
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
        if unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, flags) } < 0 {
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
}

fn checked(result: isize) -> io::Result<isize> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
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
