//! The link-layer addresses of neighbours.

use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::message;

/// Forgets the link-layer address of a neighbour, so that the next packet to it asks for it.
///
/// When a link comes up, one end is ready before the other, and asks in vain; it asks again after a
/// second. It does not need to if it is asked itself, which is what this is for: an address learned
/// from the vain question would keep this end from asking.
///
/// # Errors
/// If the kernel cannot be told. That it knows of none is no error.
pub fn forget(link: u32, address: IpAddr) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let request = message::forget_neighbor(link, address);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
    Ok(())
}
