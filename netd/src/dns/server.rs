//! The sockets of the DNS server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Error;
use super::handler::{Handler, Outcome};
use super::message::Transport;

/// Datagrams that wait for upstream at once, at most; further ones are dropped, and their
/// clients ask again.
const WAITING: usize = 1024;
/// Connections at once, at most; further ones wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Longest datagram taken.
const DATAGRAM_BYTES: usize = 4096;

/// Bound sockets of one address.
pub struct Server {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

/// Binds an address, which must be on a link of this node.
pub async fn bind(address: SocketAddr) -> Result<Server, Error> {
    let error = |source| Error { address, source };
    let udp = UdpSocket::bind(address).await.map_err(error)?;
    // Port 0 is for tests: TCP takes the port that UDP was given.
    let address = udp.local_addr().map_err(error)?;
    let tcp = TcpListener::bind(address).await.map_err(error)?;
    Ok(Server {
        udp: Arc::new(udp),
        tcp,
    })
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn run(self, handler: Handler) {
        let datagrams = serve_udp(self.udp, handler.clone());
        let connections = serve_tcp(self.tcp, handler);
        tokio::join!(datagrams, connections);
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, handler: Handler) {
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        while tasks.try_join_next().is_some() {}
        let (len, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Errors of earlier replies are told here; the socket itself goes on.
                tracing::debug!(%error, "a DNS reply did not arrive");
                continue;
            }
        };
        match handler.start(&buffer[..len], Transport::Udp) {
            Outcome::Nothing => {}
            Outcome::Reply(reply) => send(&socket, client, &reply).await,
            Outcome::Wait(pending) => {
                let Ok(permit) = waiting.clone().try_acquire_owned() else {
                    tracing::warn!(%client, "too many DNS requests wait for upstream; one was dropped");
                    continue;
                };
                let (socket, handler) = (socket.clone(), handler.clone());
                tasks.spawn(async move {
                    let reply = handler.finish(*pending).await;
                    send(&socket, client, &reply).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, client: SocketAddr, reply: &[u8]) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%client, %error, "a DNS reply could not be sent");
    }
}

async fn serve_tcp(listener: TcpListener, handler: Handler) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                let handler = handler.clone();
                tasks.spawn(async move {
                    if let Err(error) = serve_connection(stream, &handler).await {
                        tracing::debug!(%client, %error, "a DNS connection broke");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers one request after the other until the client has no more, or is silent too long.
async fn serve_connection(mut stream: TcpStream, handler: &Handler) -> std::io::Result<()> {
    loop {
        let Ok(len) = timeout(IDLE, stream.read_u16()).await else {
            return Ok(());
        };
        let len = match len {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let mut request = vec![0; usize::from(len)];
        timeout(IDLE, stream.read_exact(&mut request)).await??;
        let reply = match handler.start(&request, Transport::Tcp) {
            Outcome::Nothing => return Ok(()),
            Outcome::Reply(reply) => reply,
            Outcome::Wait(pending) => handler.finish(*pending).await,
        };
        let len = (reply.len() as u16).to_be_bytes();
        let framed = [&len, reply.as_slice()].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
