//! Sockets as routing protocols need them: TCP MD5 signatures, TTLs set, bounded and received,
//! raw ICMPv6.
//!
//! The one module with unsafe code: socket calls with structures of the kernel's.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use ipnet::IpNet;

const TCP_MD5SIG: libc::c_int = 14;
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
const MD5_KEY_MAX: usize = 80;
const ICMP6_FILTER: libc::c_int = 1;
const SOCKADDR_BYTES: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// `struct tcp_md5sig` (linux/tcp.h).
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: libc::c_int,
    key: [u8; MD5_KEY_MAX],
}

/// Has segments to and from the peers of a prefix signed (RFC 2385); an empty key takes that back.
pub(crate) fn set_md5(socket: &impl AsRawFd, peers: IpNet, key: &str) -> io::Result<()> {
    let key = key.as_bytes();
    if key.len() > MD5_KEY_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut option = TcpMd5Sig {
        address: storage(peers.network()),
        flags: TCP_MD5SIG_FLAG_PREFIX,
        prefix_len: peers.prefix_len(),
        key_len: key.len() as u16,
        interface: 0,
        key: [0; MD5_KEY_MAX],
    };
    option.key[..key.len()].copy_from_slice(key);
    let exact = peers.prefix_len() == peers.max_prefix_len();
    if exact {
        option.flags = 0;
    }
    let name = if exact { TCP_MD5SIG } else { TCP_MD5SIG_EXT };
    set(socket.as_raw_fd(), libc::IPPROTO_TCP, name, &option)
}

/// Sets the TTL (hop limit) that packets leave with.
pub(crate) fn set_ttl(socket: &impl AsRawFd, ipv6: bool, ttl: u8) -> io::Result<()> {
    let value = libc::c_int::from(ttl);
    match ipv6 {
        true => set(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_UNICAST_HOPS,
            &value,
        ),
        false => set(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TTL, &value),
    }
}

/// Drops packets that arrive with a lower TTL (GTSM, RFC 5082).
pub(crate) fn set_least_ttl(socket: &impl AsRawFd, ipv6: bool, ttl: u8) -> io::Result<()> {
    let value = libc::c_int::from(ttl);
    match ipv6 {
        true => set(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            IPV6_MINHOPCOUNT,
            &value,
        ),
        false => set(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MINTTL,
            &value,
        ),
    }
}

/// Listens for IPv6 only, so that IPv4 can have its own socket.
pub(crate) fn set_v6_only(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    set(
        socket.as_raw_fd(),
        libc::IPPROTO_IPV6,
        libc::IPV6_V6ONLY,
        &on,
    )
}

/// Makes room for netlink messages of this size, past the limit for ordinary users.
pub(crate) fn set_buffers(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        &value,
    )?;
    set(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        &value,
    )
}

/// An instruction of a socket filter (`struct sock_filter`, classic BPF). Values that it loads are
/// taken as big-endian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter(libc::sock_filter);

impl Filter {
    /// Loads four octets.
    pub fn word(offset: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
    }

    /// Loads two.
    pub fn half(offset: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, offset, 0, 0)
    }

    /// Loads one.
    pub fn octet(offset: u32) -> Self {
        Self::of(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset, 0, 0)
    }

    /// Loads four octets of the network header.
    pub fn network_word(offset: u32) -> Self {
        Self::word((libc::SKF_NET_OFF as u32).wrapping_add(offset))
    }

    /// Loads one.
    pub fn network_octet(offset: u32) -> Self {
        Self::octet((libc::SKF_NET_OFF as u32).wrapping_add(offset))
    }

    /// Keeps these bits of what was loaded.
    pub fn and(mask: u32) -> Self {
        Self::of(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
    }

    /// Skips so many instructions if what was loaded is at least this, or if not.
    pub fn if_at_least(value: u32, then: u8, otherwise: u8) -> Self {
        let code = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
        Self::of(code, value, then, otherwise)
    }

    /// Its code, how far it jumps (then, otherwise), and its number.
    #[cfg(test)]
    pub fn parts(self) -> (u16, u8, u8, u32) {
        (self.0.code, self.0.jt, self.0.jf, self.0.k)
    }

    /// Compares what was loaded, and skips so many instructions if it is that, or if not.
    pub fn if_equal(value: u32, then: u8, otherwise: u8) -> Self {
        let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        Self::of(code, value, then, otherwise)
    }

    /// Ends, letting so many octets of the message through.
    pub fn take(octets: u32) -> Self {
        Self::of(libc::BPF_RET | libc::BPF_K, octets, 0, 0)
    }

    fn of(code: u32, k: u32, jt: u8, jf: u8) -> Self {
        let code = u16::try_from(code).unwrap_or(0);
        Filter(libc::sock_filter { code, jt, jf, k })
    }
}

/// Has a socket take in only what a filter lets through.
pub(crate) fn set_filter(socket: &impl AsRawFd, program: &[Filter]) -> io::Result<()> {
    let mut instructions: Vec<libc::sock_filter> = program.iter().map(|one| one.0).collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).unwrap_or(u16::MAX),
        filter: instructions.as_mut_ptr(),
    };
    set(
        socket.as_raw_fd(),
        libc::SOL_SOCKET,
        libc::SO_ATTACH_FILTER,
        &program,
    )
}

fn set<T>(socket: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the pointer and the length are those of a live value, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket,
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A UDP socket at an address, alone there among IPv6 ones.
pub(crate) fn udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let family = if at.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let socket = open(family, libc::SOCK_DGRAM, 0)?;
    if at.is_ipv6() {
        set_v6_only(&socket)?;
    }
    let storage = storage_of(at);
    // SAFETY: the address lives through the call, which only reads it.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&storage).cast(),
            SOCKADDR_BYTES,
        )
    })?;
    Ok(UdpSocket::from(socket))
}

/// Has the TTL (hop limit) of packets told with them.
pub(crate) fn receive_ttl(socket: &impl AsRawFd, ipv6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    match ipv6 {
        true => set(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVHOPLIMIT,
            &on,
        ),
        false => set(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, &on),
    }
}

/// A packet: its length, where it came from, and the TTL that it came with (0 if not told).
pub(crate) fn receive_with_ttl(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, u8)> {
    let mut from = storage_of(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut control = [0u64; 16];
    // SAFETY: all zeroes is a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = std::ptr::from_mut(&mut from).cast();
    message.msg_namelen = SOCKADDR_BYTES;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: all that the header points to lives through the call and has the lengths it says.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, address_of(&from), told_ttl(&message)))
}

fn told_ttl(message: &libc::msghdr) -> u8 {
    // SAFETY: the kernel filled the header; the macros stay within the control buffer.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a control header inside the buffer, followed by its
        // data, which for these two kinds is a C integer.
        let (level, kind, value) = unsafe {
            let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                data.read_unaligned(),
            )
        };
        let v4 = level == libc::IPPROTO_IP && kind == libc::IP_TTL;
        let v6 = level == libc::IPPROTO_IPV6 && kind == libc::IPV6_HOPLIMIT;
        if v4 || v6 {
            return u8::try_from(value).unwrap_or(0);
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    0
}

/// A raw ICMPv6 socket on one interface, for messages of some types, with hop limit 255. It sends
/// and receives as a UDP socket does; its messages have no ports.
pub(crate) fn icmp6(interface: &str, index: u32, types: &[u8]) -> io::Result<UdpSocket> {
    let socket = open(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)?;
    let fd = socket.as_raw_fd();
    let mut name = [0u8; libc::IFNAMSIZ];
    let bytes = interface.as_bytes();
    name.get_mut(..bytes.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(bytes);
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &name)?;
    // A set bit keeps that type out.
    let mut filter = [u32::MAX; 8];
    for kind in types {
        filter[usize::from(kind / 32)] &= !(1 << (kind % 32));
    }
    set(fd, libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)?;
    let (hops, off): (libc::c_int, libc::c_int) = (255, 0);
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, &hops)?;
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, &off)?;
    receive_ttl(&socket, true)?;
    // Solicitations go to all routers.
    let all_routers = libc::ipv6_mreq {
        ipv6mr_multiaddr: libc::in6_addr {
            s6_addr: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets(),
        },
        ipv6mr_interface: index,
    };
    set(
        fd,
        libc::IPPROTO_IPV6,
        libc::IPV6_ADD_MEMBERSHIP,
        &all_routers,
    )?;
    Ok(UdpSocket::from(socket))
}

fn open(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(family, kind | flags, protocol) };
    check(fd)?;
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn address_of(storage: &libc::sockaddr_storage) -> SocketAddr {
    if libc::c_int::from(storage.ss_family) == libc::AF_INET6 {
        // SAFETY: the family says which structure it is.
        let v6 = unsafe {
            std::ptr::from_ref(storage)
                .cast::<libc::sockaddr_in6>()
                .read()
        };
        let address = Ipv6Addr::from(v6.sin6_addr.s6_addr);
        SocketAddrV6::new(address, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()
    } else {
        // SAFETY: as above; a storage of zeroes is an unspecified IPv4 address.
        let v4 = unsafe {
            std::ptr::from_ref(storage)
                .cast::<libc::sockaddr_in>()
                .read()
        };
        let address = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
        SocketAddr::from((address, u16::from_be(v4.sin_port)))
    }
}

/// An address without port, as the kernel has it.
fn storage(address: IpAddr) -> libc::sockaddr_storage {
    storage_of(SocketAddr::new(address, 0))
}

fn storage_of(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: all zeroes is a valid (unspecified) socket address.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match address {
        SocketAddr::V4(v4) => {
            let inner = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as any socket address.
            unsafe {
                std::ptr::from_mut(&mut storage)
                    .cast::<libc::sockaddr_in>()
                    .write(inner)
            };
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            unsafe {
                std::ptr::from_mut(&mut storage)
                    .cast::<libc::sockaddr_in6>()
                    .write(v6_of(&v6))
            };
        }
    }
    storage
}

fn v6_of(address: &SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}
