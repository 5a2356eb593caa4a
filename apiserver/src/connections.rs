//! Connections: accepted, their bounds, TLS and HTTP on them, and how they end.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::auth::x509;
use crate::front::{Front, Peer};
use crate::linger::Lingering;
use crate::seldom::Seldom;

/// How long a client may take to finish its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADERS: Duration = Duration::from_secs(30);
/// Most bytes of a request's headers.
const HEADERS_MAX: usize = 64 * 1024;
/// Most requests at once on one HTTP/2 connection, as upstream's.
const STREAMS_MAX: u32 = 1000;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 20_000;

/// The connections that are open.
pub struct Connections {
    /// Cancelled when they are to finish.
    stopping: CancellationToken,
    tasks: parking_lot::Mutex<JoinSet<()>>,
    places: Arc<tokio::sync::Semaphore>,
}

// === impl Connections ===

impl Connections {
    /// None yet.
    pub fn new() -> Self {
        Self {
            stopping: CancellationToken::new(),
            tasks: parking_lot::Mutex::new(JoinSet::new()),
            places: Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// Tells every connection to finish, waits for them, and ends what is left.
    pub async fn drain(&self, limit: Duration) {
        self.stopping.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let finishing = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, finishing).await.is_err() {
            let count = tasks.len();
            tracing::warn!(
                count,
                ?limit,
                "connections were cut that did not finish in time"
            );
        }
        tasks.shutdown().await;
    }
}

/// Accepts connections of a listener until `shutdown`; with [`CONNECTIONS_MAX`] of them the next
/// wait.
pub async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    front: Front,
    connections: Arc<Connections>,
    shutdown: CancellationToken,
) {
    loop {
        let Ok(place) = connections.places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, front) = (acceptor.clone(), front.clone());
                let served = serve_one(stream, peer, acceptor, front, connections.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(fault) => {
                // Out of file descriptors, most likely: give others the time to close some.
                tracing::warn!(%fault, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_one(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    front: Front,
    connections: Arc<Connections>,
) {
    let local =
        peer.ip().is_loopback() || stream.local_addr().is_ok_and(|own| own.ip() == peer.ip());
    // A failure shows again at the first read.
    let _ = stream.set_nodelay(true);
    let stopping = &connections.stopping;
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let stream = match stopping.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(fault))) => {
            tracing::debug!(%peer, %fault, "a TLS handshake failed");
            return;
        }
        Some(Err(_)) | None => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|chain| x509::user(chain.first()?));
    let service = TowerToHyperService::new(front.for_peer(Peer::Socket {
        user,
        local,
        address: Some(peer.ip()),
    }));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADERS_MAX * 8);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_MAX as u32)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20));
    let io = TokioIo::new(Lingering::new(stream));
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    // It is woken for each event of each watch: the end that all connections have in common is
    // asked about only when it has come.
    let mut stop = Seldom::new(Box::pin(stopping.cancelled()));
    let mut is_told = false;
    let served = poll_fn(|context| {
        if !is_told && Pin::new(&mut stop).poll(context).is_ready() {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    });
    if let Err(fault) = served.await {
        tracing::debug!(%peer, %fault, "a connection ended");
    }
}
