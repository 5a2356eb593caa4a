//! Unnumbered neighbours: who is on the other end of a link is known from its router
//! advertisements (RFC 4861), and it knows us from ours.
//!
//! Ours offer nothing: no prefix, and a lifetime of zero, so that no host takes us for its
//! default router. A neighbour that is heard for the first time is answered at once, so that two
//! routers know each other within a moment of the link's coming up.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedSender;

use crate::sys;

/// Somebody was heard on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The interface.
    pub interface: String,
    /// Its link-local address.
    pub address: Ipv6Addr,
}

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Until somebody is heard.
const EAGER: Duration = Duration::from_secs(1);
/// From then on.
const CALM: Duration = Duration::from_secs(10);
/// The hop limit of what comes from this link and from nowhere else.
const HOP_LIMIT: u8 = 255;

/// Advertises on an interface and listens, as long as the interface is there.
pub(crate) async fn run(interface: String, index: u32, heard: UnboundedSender<Heard>) {
    loop {
        match converse(&interface, index, &heard).await {
            Ok(()) => return,
            // The interface is going, or has no address yet: the next try may find it well.
            Err(error) => tracing::debug!(interface, %error, "router advertisements"),
        }
        tokio::time::sleep(EAGER).await;
    }
}

async fn converse(interface: &str, index: u32, heard: &UnboundedSender<Heard>) -> io::Result<()> {
    let kinds = [ROUTER_SOLICITATION, ROUTER_ADVERTISEMENT];
    let socket = UdpSocket::from_std(sys::icmp6(interface, index, &kinds)?)?;
    let mut known: Option<Ipv6Addr> = None;
    advertise(&socket, index).await?;
    let mut timer = tokio::time::interval(EAGER);
    timer.tick().await;
    loop {
        tokio::select! {
            _ = timer.tick() => advertise(&socket, index).await?,
            received = receive(&socket) => {
                let (kind, from) = received?;
                if kind == Some(ROUTER_SOLICITATION) {
                    advertise(&socket, index).await?;
                }
                let Some(address) = from.filter(|_| kind == Some(ROUTER_ADVERTISEMENT)) else {
                    continue;
                };
                if known != Some(address) {
                    known = Some(address);
                    timer = tokio::time::interval(CALM);
                    // The first tick of an interval is at once: this is the answer.
                }
                let news = Heard { interface: interface.to_owned(), address };
                if heard.send(news).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

async fn advertise(socket: &UdpSocket, index: u32) -> io::Result<()> {
    // Type, code, checksum (the kernel's), hop limit 64, no flags, lifetime 0, no timers.
    let mut message = [0u8; 16];
    message[0] = ROUTER_ADVERTISEMENT;
    message[4] = 64;
    socket
        .send_to(&message, SocketAddrV6::new(ALL_NODES, 0, 0, index))
        .await
        .map(drop)
}

async fn receive(socket: &UdpSocket) -> io::Result<(Option<u8>, Option<Ipv6Addr>)> {
    let read = || {
        let mut buffer = [0; 1500];
        let (length, from, ttl) = sys::receive_with_ttl(socket, &mut buffer)?;
        let from = match from.ip() {
            std::net::IpAddr::V6(address) if address.is_unicast_link_local() => Some(address),
            _ => None,
        };
        let kind = buffer[..length].first().copied();
        Ok((kind, from.filter(|_| ttl == HOP_LIMIT)))
    };
    socket.async_io(Interest::READABLE, read).await
}
