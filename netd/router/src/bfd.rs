//! BFD sockets around [`peapod_bfd`]: one thread owns all sessions.
//!
//! The thread is its own because a neighbour takes 300 ms of silence for our death, and whoever
//! goes through half a million routes may be busy for as long.
//!
//! A session starts when BGP comes up with a neighbour that is to be watched, and stays, so that
//! it can come up again before BGP does, until the neighbour is no more configured or BFD with it
//! is not. Its failure is all that the router is told.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peapod_bfd::{CONTROL_PORT, Outcome, Packet, Received, SOURCE_PORTS, Session, State, TTL};
use peapod_bgp::config::Bfd as Settings;
use peapod_bgp::rib::PeerId;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::sys;

/// What the task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Watch a neighbour.
    Watch {
        peer: PeerId,
        local: IpAddr,
        /// With the interface's number for link-local addresses.
        remote: SocketAddr,
        settings: Settings,
    },
    /// Watch a neighbour no more, and tell it that the silence is no failure.
    Forget { peer: PeerId },
    /// Tell all neighbours that the coming silence is no failure, and end.
    Leave,
}

/// A session has changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub peer: PeerId,
    pub state: State,
    /// The neighbour is not reached any more.
    pub failed: bool,
}

/// All sessions.
struct Watcher {
    start: Instant,
    sessions: HashMap<PeerId, Watched>,
    reports: mpsc::UnboundedSender<Report>,
    /// The last discriminator that was given out. Where they begin is left to chance: neighbours
    /// go on for a while with those of the process before this one, which must not be another
    /// session's now.
    last: u32,
}

/// A session and its socket.
struct Watched {
    session: Session,
    socket: UdpSocket,
    remote: SocketAddr,
}

/// The thread. When this is dropped it tells all neighbours that we leave, and ends.
#[derive(Debug)]
pub(crate) struct Watch {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

const PACKET_BYTES: usize = 256;

// === impl Watch ===

impl Watch {
    /// Starts the thread, in the network namespace of the caller's.
    ///
    /// # Errors
    /// If there can be no thread. A port that cannot be had is logged: BGP goes on without BFD.
    pub fn start(
        sender: mpsc::UnboundedSender<Command>,
        commands: mpsc::UnboundedReceiver<Command>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let work = move || {
            if let Err(error) = runtime.block_on(run(commands, reports)) {
                tracing::error!(%error, port = CONTROL_PORT, "no BFD: cannot use its port");
            }
        };
        let thread = std::thread::Builder::new().name("bfd".to_owned());
        Ok(Watch {
            commands: sender,
            thread: Some(thread.spawn(work)?),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A thread that is gone already has nothing to leave.
        let _ = self.commands.send(Command::Leave);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is of no use to anybody who drops this.
            let _ = thread.join();
        }
    }
}

/// Runs all sessions until told to leave.
///
/// # Errors
/// If the BFD port cannot be had.
async fn run(
    mut commands: mpsc::UnboundedReceiver<Command>,
    reports: mpsc::UnboundedSender<Report>,
) -> io::Result<()> {
    let v4 = listen(Ipv4Addr::UNSPECIFIED.into())?;
    let v6 = listen(Ipv6Addr::UNSPECIFIED.into())?;
    let mut watcher = Watcher {
        start: Instant::now(),
        sessions: HashMap::new(),
        reports,
        last: rand::random(),
    };
    loop {
        let deadline = watcher.deadline();
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Watch { peer, local, remote, settings }) => {
                    if let Err(error) = watcher.watch(peer, local, remote, settings) {
                        tracing::warn!(%remote, %error, "cannot watch a neighbour by BFD");
                    }
                }
                Some(Command::Forget { peer }) => watcher.forget(peer),
                Some(Command::Leave) | None => {
                    watcher.leave();
                    return Ok(());
                }
            },
            received = receive(&v4) => watcher.received(received?),
            received = receive(&v6) => watcher.received(received?),
            () = sleep_until(deadline) => watcher.tick(),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn listen(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = sys::udp(SocketAddr::new(address, CONTROL_PORT))?;
    sys::receive_ttl(&socket, address.is_ipv6())?;
    UdpSocket::from_std(socket)
}

async fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr, u8)> {
    let read = || {
        let mut buffer = [0; PACKET_BYTES];
        let (length, from, ttl) = sys::receive_with_ttl(socket, &mut buffer)?;
        Ok((buffer[..length].to_vec(), from, ttl))
    };
    socket.async_io(Interest::READABLE, read).await
}

// === impl Watcher ===

impl Watcher {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = self
            .sessions
            .values()
            .filter_map(|watched| watched.session.deadline());
        deadlines.min().map(|at| self.start + at)
    }

    fn watch(
        &mut self,
        peer: PeerId,
        local: IpAddr,
        remote: SocketAddr,
        settings: Settings,
    ) -> io::Result<()> {
        if self
            .sessions
            .get(&peer)
            .is_some_and(|watched| watched.remote == remote)
        {
            return Ok(());
        }
        let socket = self.sending_socket(local, remote)?;
        let discriminator = self.free_discriminator();
        let interval = Duration::from_millis(settings.interval_ms.into());
        let config = peapod_bfd::Config {
            desired_min_tx: interval,
            required_min_rx: interval,
            detect_multiplier: NonZeroU8::new(settings.multiplier).unwrap_or(NonZeroU8::MIN),
            ..peapod_bfd::Config::new(discriminator)
        };
        let session = Session::new(config);
        self.sessions.insert(
            peer,
            Watched {
                session,
                socket,
                remote,
            },
        );
        Ok(())
    }

    fn free_discriminator(&mut self) -> NonZeroU32 {
        loop {
            self.last = self.last.wrapping_add(1);
            let taken = |one: NonZeroU32| {
                let mut all = self.sessions.values();
                all.any(|watched| watched.session.discriminator() == one)
            };
            if let Some(free) = NonZeroU32::new(self.last).filter(|one| !taken(*one)) {
                return free;
            }
        }
    }

    /// A socket with a source port of the range that BFD wants.
    fn sending_socket(&self, local: IpAddr, remote: SocketAddr) -> io::Result<UdpSocket> {
        let ports = SOURCE_PORTS.end() - SOURCE_PORTS.start();
        let first = rand::random::<u16>() % ports;
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for offset in 0..64 {
            let port = SOURCE_PORTS.start() + (first + offset) % ports;
            let mut at = remote;
            at.set_ip(local);
            at.set_port(port);
            match sys::udp(at) {
                Ok(socket) => {
                    sys::set_ttl(&socket, local.is_ipv6(), TTL)?;
                    return UdpSocket::from_std(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn received(&mut self, (bytes, from, ttl): (Vec<u8>, SocketAddr, u8)) {
        let Ok(packet) = Packet::decode(&bytes) else {
            return;
        };
        let (now, random) = (self.now(), rand::random());
        // Whatever number it names: a session is of one neighbour, and nobody else speaks for it.
        let meant = |watched: &Watched| {
            let ours = watched.session.discriminator();
            packet.your_discriminator.is_none_or(|named| named == ours)
                && same_host(watched.remote, from)
        };
        let mut sessions = self.sessions.iter_mut();
        let found = sessions.find(|(_, watched)| meant(watched));
        let Some((peer, watched)) = found else { return };
        let outcome = watched
            .session
            .receive(&Received { packet, ttl }, now, random);
        let peer = *peer;
        self.outcome(peer, outcome);
    }

    fn tick(&mut self) {
        let peers: Vec<PeerId> = self.sessions.keys().copied().collect();
        let now = self.now();
        for peer in peers {
            let Some(watched) = self.sessions.get_mut(&peer) else {
                continue;
            };
            if watched.session.deadline().is_some_and(|at| at <= now) {
                let outcome = watched.session.tick(now, rand::random());
                self.outcome(peer, outcome);
            }
        }
    }

    fn leave(&mut self) {
        for peer in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.forget(peer);
        }
    }

    fn forget(&mut self, peer: PeerId) {
        let now = self.now();
        if let Some(mut watched) = self.sessions.remove(&peer) {
            let outcome = watched.session.set_admin_down(true, now, rand::random());
            watched.send(&outcome);
            tracing::info!(neighbor = %watched.remote.ip(), "BFD ends");
        }
    }

    fn outcome(&mut self, peer: PeerId, outcome: Outcome) {
        let Some(watched) = self.sessions.get(&peer) else {
            return;
        };
        watched.send(&outcome);
        if let Some(change) = outcome.change {
            tracing::info!(neighbor = %watched.remote.ip(), from = %change.from, to = %change.to, "BFD");
            // A router that is gone needs no news.
            let report = Report {
                peer,
                state: change.to,
                failed: change.is_failure(),
            };
            let _ = self.reports.send(report);
        }
    }
}

// === impl Watched ===

impl Watched {
    fn send(&self, outcome: &Outcome) {
        if let Some(packet) = outcome.send {
            // What is lost here is as good as lost on the way: the next one comes soon.
            let _ = self.socket.try_send_to(&packet.encode(), self.remote);
        }
    }
}

/// Whether two addresses are those of one host, on one link if they are link-local.
fn same_host(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => v6.scope_id(),
        _ => 0,
    };
    a.ip() == b.ip() && scope(a) == scope(b)
}
