//! Connections: listening, connecting, and a task for each direction of each connection.
//!
//! ```text
//!   listener task ──Accepted──▶┐                        ┌──▶ writer task ──▶ socket
//!   connect task ──Connected──▶│ events ──▶ router ─────┤
//!   reader task ◀── socket     │            (speaker)   └──▶ connect task (one a peer)
//!        └───────Received─────▶┘
//! ```
//!
//! The channel of events is bounded: while the router is busy, readers wait, and so do the
//! neighbours, by TCP. What a writer has to send is bounded by the speaker's window.

mod dial;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use peapod_bgp::config::{NeighborOptions, Range};
use peapod_bgp::fsm::ConnectionId;
use peapod_bgp::rib::PeerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use self::dial::dial;
use crate::Error;
use crate::gtsm::{self, Rule};
use crate::sys::{self, Filter};

/// What a connection brings.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody connected.
    Accepted(TcpStream, SocketAddr),
    /// A neighbour was reached.
    Connected(PeerId, TcpStream),
    /// A neighbour was not reached.
    ConnectFailed(PeerId, io::Error),
    /// Bytes came.
    Received(ConnectionId, Bytes),
    /// Bytes left.
    Sent(ConnectionId, usize),
    /// The other end closed, or the connection broke.
    Closed(ConnectionId),
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Transport {
    events: Sender<Event>,
    tasks: JoinSet<()>,
    connects: HashMap<PeerId, AbortHandle>,
    open: HashMap<ConnectionId, Open>,
    listeners: Vec<(SocketAddr, Arc<TcpListener>)>,
    /// Addresses from which connections must be signed, with the name of the neighbour there.
    signed: HashMap<IpAddr, String>,
    /// Filters demand a TTL of some neighbours.
    guarded: bool,
    next: u64,
}

/// A connection that is open.
#[derive(Debug)]
struct Open {
    write: UnboundedSender<Bytes>,
    reader: AbortHandle,
}

/// How to reach a neighbour.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub peer: PeerId,
    pub to: SocketAddr,
    pub source: Option<IpAddr>,
    pub password: Option<String>,
    pub ttl: Ttl,
    /// The number of the link that the neighbour is on; none for one behind others.
    pub on_link: Option<u32>,
}

/// TTL of packets to a neighbour, and the least of those from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ttl {
    pub send: u8,
    pub least: Option<u8>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a connection that is being closed may still take to send what was written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 128;

// === impl Ttl ===

impl Ttl {
    /// As a neighbour's options say; a directly connected external one gets 1.
    pub fn of(options: &NeighborOptions, external: bool) -> Self {
        match (options.ttl_security, options.multihop) {
            (Some(hops), _) => Ttl {
                send: 255,
                least: Some(255 - hops.max(1) + 1),
            },
            (None, Some(hops)) => Ttl {
                send: hops.max(1),
                least: None,
            },
            (None, None) => Ttl {
                send: if external { 1 } else { 64 },
                least: None,
            },
        }
    }

    fn apply(self, stream: &impl AsRawFd, ipv6: bool) -> io::Result<()> {
        sys::set_ttl(stream, ipv6, self.send)?;
        self.least
            .map_or(Ok(()), |least| sys::set_least_ttl(stream, ipv6, least))
    }
}

// === impl Transport ===

impl Transport {
    /// No connections yet; events go to `events`.
    pub fn new(events: Sender<Event>) -> Self {
        Transport {
            events,
            tasks: JoinSet::new(),
            connects: HashMap::new(),
            open: HashMap::new(),
            listeners: Vec::new(),
            signed: HashMap::new(),
            guarded: false,
            next: 0,
        }
    }

    /// Listens. Connections from `signed` addresses must bear a signature.
    pub fn listen(&mut self, at: SocketAddr, signed: &[(IpNet, String)]) -> Result<(), Error> {
        let failed = |source| Error::Listen {
            address: at,
            source,
        };
        let listener = Arc::new(bind(at, signed).map_err(failed)?);
        let address = listener.local_addr().map_err(failed)?;
        self.listeners.push((address, Arc::clone(&listener)));
        let events = self.events.clone();
        self.tasks.spawn(accept(listener, events));
        Ok(())
    }

    /// Where it listens.
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(address, _)| *address).collect()
    }

    /// Has connections from the address of a neighbour bear a signature, from now on; without a key,
    /// no longer. The address of an unnumbered neighbour is known only when it was heard. (The kernel
    /// knows keys by address only: two neighbours of one link-local address, on two links, need the
    /// same key.)
    pub fn sign(&mut self, neighbor: &str, address: IpAddr, key: Option<&str>) {
        match key {
            Some(_) => drop(self.signed.insert(address, neighbor.to_owned())),
            None if self.signed.remove(&address).is_none() => return,
            None => {}
        }
        let fits = |at: &SocketAddr| at.is_ipv4() == address.is_ipv4();
        for (_, listener) in self.listeners.iter().filter(|(at, _)| fits(at)) {
            let key = key.unwrap_or_default();
            if let Err(error) = sys::set_md5(listener.as_ref(), IpNet::from(address), key) {
                tracing::warn!(%address, %error, "cannot have its connections signed");
            }
        }
    }

    /// Has packets from neighbours be dropped that may have come from farther away than these rules
    /// allow, from now on.
    pub fn guard(&mut self, rules: &[Rule]) {
        let demanded = rules.iter().any(|(_, least)| *least > 0);
        if !demanded && !self.guarded {
            return;
        }
        self.guarded = demanded;
        for (at, listener) in &self.listeners {
            let all = || vec![Filter::take(u32::MAX)];
            let program = gtsm::program(rules, at.is_ipv6()).unwrap_or_else(all);
            if let Err(error) = sys::set_filter(listener.as_ref(), &program) {
                tracing::warn!(%at, %error, "cannot demand a TTL before connections are accepted");
            }
        }
    }

    /// The addresses from which connections must be signed, with the name of the neighbour there.
    pub fn signed(&self) -> Vec<(IpAddr, String)> {
        let all = self.signed.iter();
        all.map(|(address, name)| (*address, name.clone()))
            .collect()
    }

    /// Connects to a neighbour, in place of an attempt that is being made.
    pub fn connect(&mut self, call: Call) {
        self.abandon(call.peer);
        let (peer, events) = (call.peer, self.events.clone());
        let task = self.tasks.spawn(async move {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, dial(&call)).await;
            let event = match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => Event::Connected(peer, stream),
                Err(error) => Event::ConnectFailed(peer, error),
            };
            // The router is gone, and so is the interest in this.
            let _ = events.send(event).await;
        });
        self.connects.insert(peer, task);
    }

    /// Gives up an attempt.
    pub fn abandon(&mut self, peer: PeerId) {
        if let Some(task) = self.connects.remove(&peer) {
            task.abort();
        }
    }

    /// Takes a connection in.
    pub fn open(&mut self, stream: TcpStream, ttl: Ttl) -> io::Result<ConnectionId> {
        stream.set_nodelay(true)?;
        ttl.apply(&stream, stream.local_addr()?.is_ipv6())?;
        self.next += 1;
        let id = ConnectionId(self.next);
        let (read_half, write_half) = stream.into_split();
        let (write, queue) = unbounded_channel();
        let reader = self.tasks.spawn(read(id, read_half, self.events.clone()));
        self.tasks
            .spawn(send(id, write_half, queue, self.events.clone()));
        self.open.insert(id, Open { write, reader });
        Ok(id)
    }

    /// Sends bytes, after those sent before.
    pub fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        if let Some(open) = self.open.get(&connection) {
            // A writer that is gone has said so with `Closed`.
            let _ = open.write.send(bytes);
        }
    }

    /// Closes a connection, after what was sent has left.
    pub fn close(&mut self, connection: ConnectionId) {
        if let Some(open) = self.open.remove(&connection) {
            open.reader.abort();
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Waits, a little, for all that was sent to leave.
    pub async fn drain(&mut self) {
        self.open.drain().for_each(|(_, open)| open.reader.abort());
        let writers = async {
            while self.tasks.len() > self.listeners.len() {
                if self.tasks.join_next().await.is_none() {
                    break;
                }
            }
        };
        // Who does not take it in this time does not get it.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, writers).await;
    }
}

/// Has an accepted connection signed from here on, whether or not it was until now: it may be older
/// than the demand, or come from an unnumbered neighbour that was not heard yet.
pub(crate) fn demand_signature(stream: &TcpStream, from: IpAddr, key: &str) -> io::Result<()> {
    sys::set_md5(stream, IpNet::from(from), key)
}

/// Which addresses must sign, and with which key.
pub(crate) fn signed_ranges(ranges: &[Range]) -> Vec<(IpNet, String)> {
    let with_key = ranges
        .iter()
        .filter_map(|range| Some((range.prefix, range.options.password.clone()?)));
    with_key.collect()
}

fn bind(at: SocketAddr, signed: &[(IpNet, String)]) -> io::Result<TcpListener> {
    let socket = socket_for(at)?;
    socket.set_reuseaddr(true)?;
    if at.is_ipv6() {
        sys::set_v6_only(&socket)?;
    }
    for (peers, key) in signed
        .iter()
        .filter(|(peers, _)| peers.addr().is_ipv4() == at.is_ipv4())
    {
        sys::set_md5(&socket, *peers, key)?;
    }
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

fn socket_for(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

async fn accept(listener: Arc<TcpListener>, events: Sender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if events.send(Event::Accepted(stream, from)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: wait for some to come free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn read(id: ConnectionId, mut socket: OwnedReadHalf, events: Sender<Event>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        match socket.read_buf(&mut buffer).await {
            Ok(count) if count > 0 => {
                if events
                    .send(Event::Received(id, buffer.split().freeze()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Ok(_) | Err(_) => {
                let _ = events.send(Event::Closed(id)).await;
                return;
            }
        }
    }
}

async fn send(
    id: ConnectionId,
    mut socket: OwnedWriteHalf,
    mut queue: UnboundedReceiver<Bytes>,
    events: Sender<Event>,
) {
    while let Some(bytes) = queue.recv().await {
        let written = match queue.is_closed() {
            // Being closed: a peer that takes nothing does not hold it up for ever.
            true => tokio::time::timeout(CLOSE_TIMEOUT, socket.write_all(&bytes)).await,
            false => Ok(socket.write_all(&bytes).await),
        };
        if !matches!(written, Ok(Ok(()))) {
            let _ = events.send(Event::Closed(id)).await;
            return;
        }
        if !queue.is_closed() && events.send(Event::Sent(id, bytes.len())).await.is_err() {
            return;
        }
    }
    // The peer may be gone already.
    let _ = socket.shutdown().await;
}

/// A peer's address with the port and, for link-local ones, the interface.
pub(crate) fn socket_address(address: IpAddr, port: u16, interface: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, interface.unwrap_or(0)).into()
        }
        address => SocketAddr::new(address, port),
    }
}
