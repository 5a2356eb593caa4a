//! The socket options of BGP that no library sets: TCP MD5 signatures, TTL and its least value.
//!
//! The one module with unsafe code: `setsockopt` with structures of the kernel's.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, RawFd};

use ipnet::IpNet;

const TCP_MD5SIG: libc::c_int = 14;
const TCP_MD5SIG_EXT: libc::c_int = 32;
const TCP_MD5SIG_FLAG_PREFIX: u8 = 1;
const MD5_KEY_MAX: usize = 80;
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

/// An address without port, as the kernel has it.
fn storage(address: IpAddr) -> libc::sockaddr_storage {
    // SAFETY: all zeroes is a valid (unspecified) socket address.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match SocketAddr::new(address, 0) {
        SocketAddr::V4(v4) => {
            let inner = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
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
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}
