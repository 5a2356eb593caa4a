//! Asking the node's upstream servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::cache::Cache;
use super::message::UDP_BYTES;
use super::upstreams::Upstreams;

/// How long a server has to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to ask.
    #[error("this node knows no upstream DNS server; is there one in its resolv.conf?")]
    NoUpstream,
    /// Nobody answered.
    #[error("no upstream DNS server answered; the last one, {server}, failed: {source}")]
    Unanswered {
        /// The last one asked.
        server: SocketAddr,
        /// Why it failed.
        source: io::Error,
    },
}

/// Asks upstream, and remembers.
pub struct Forwarder {
    upstreams: Mutex<Upstreams>,
    cache: Mutex<Cache>,
    /// The server that answered last is asked first.
    preferred: Mutex<Option<SocketAddr>>,
    start: Instant,
}

impl Forwarder {
    /// One that asks these servers.
    pub fn new(upstreams: Upstreams) -> Self {
        Forwarder {
            upstreams: Mutex::new(upstreams),
            cache: Mutex::new(Cache::default()),
            preferred: Mutex::new(None),
            start: Instant::now(),
        }
    }

    /// The remembered answer to a question.
    pub fn cached(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let now = self.start.elapsed();
        self.cache.lock().get(query, dnssec, now)
    }

    /// The answer to a question; its message ID means nothing.
    pub async fn ask(&self, query: &Query, dnssec: bool) -> Result<Message, Error> {
        if let Some(reply) = self.cached(query, dnssec) {
            return Ok(reply);
        }
        let mut servers = self.upstreams.lock().servers().to_vec();
        let preferred = *self.preferred.lock();
        servers.sort_by_key(|server| Some(*server) != preferred);
        let mut outcome = Err(Error::NoUpstream);
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match exchange(*server, query, dnssec).await {
                Ok(reply) => {
                    let failed = matches!(
                        reply.metadata.response_code,
                        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
                    );
                    outcome = Ok(reply);
                    if !failed {
                        *self.preferred.lock() = Some(*server);
                        break;
                    }
                }
                // An answer, even a refusal, says more than silence.
                Err(_) if outcome.is_ok() => {}
                Err(source) => {
                    let server = *server;
                    outcome = Err(Error::Unanswered { server, source });
                }
            }
        }
        if let Ok(reply) = &outcome {
            let now = self.start.elapsed();
            self.cache.lock().put(query, dnssec, reply, now);
        }
        outcome
    }
}

async fn exchange(server: SocketAddr, query: &Query, dnssec: bool) -> io::Result<Message> {
    let request = request(query, dnssec);
    let bytes = request.to_vec().map_err(io::Error::other)?;
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let reply = timeout(PATIENCE, by_udp(server, &request, &bytes))
        .await
        .map_err(late)??;
    if !reply.metadata.truncation {
        return Ok(reply);
    }
    timeout(PATIENCE, by_tcp(server, &request, &bytes))
        .await
        .map_err(late)?
}

/// A question of our own, under a random ID.
fn request(query: &Query, dnssec: bool) -> Message {
    let mut request = Message::query();
    request.metadata.recursion_desired = true;
    request.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES);
    edns.set_dnssec_ok(dnssec);
    request.set_edns(edns);
    request
}

/// From a socket of its own: its random port is half of the protection against forged answers.
async fn by_udp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; UDP_BYTES as usize];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..len]) {
            Ok(reply) if answers(&reply, request) => return Ok(reply),
            _ => tracing::debug!(%server, "a DNS message that answers nothing was ignored"),
        }
    }
}

async fn by_tcp(server: SocketAddr, request: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&len.to_be_bytes(), bytes].concat())
        .await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    let reply = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if !answers(&reply, request) {
        return Err(io::Error::other("it answered another question"));
    }
    Ok(reply)
}

fn answers(reply: &Message, request: &Message) -> bool {
    reply.metadata.id == request.metadata.id && reply.queries == request.queries
}
