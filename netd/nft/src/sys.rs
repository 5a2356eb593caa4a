//! The socket options that no library sets for us: the crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use netlink_sys::Socket;

/// Lets one send of `bytes` pass, beyond `net.core.wmem_max` too (root only): the kernel wants
/// a batch in one message.
pub(crate) fn grow_send_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    // The kernel doubles the value and counts its own overhead in.
    let size = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2);
    set(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size)
}

/// Room for the answers of a large batch or dump.
pub(crate) fn grow_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2);
    set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size)
}

/// The kernel's words with an error, and not our whole message back.
pub(crate) fn terse_errors(socket: &Socket) -> io::Result<()> {
    set(socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
    set(socket, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)
}

fn set(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the pointer and
    // length are those of `value`, which the kernel copies.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
