//! The router's task: it owns the speaker, tells it what happens, and does what it wants.

mod forwarding;
mod liveness;
mod sessions;
mod unnumbered;
mod view;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peapod_bgp::config::Neighbor;
use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::{Input, Notice, Output};
use peapod_bgp::{Speaker, Time};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use self::liveness::Watched;
pub use self::view::RouterView;
use crate::control::Server;
use crate::discovery::Heard;
use crate::kernel::fib::{Fib, Meter, NoMeter};
use crate::kernel::links::{Links, Watch};
use crate::kernel::news::{News, RouteWatch};
use crate::kernel::reach::WayWatch;
use crate::kernel::routes::Done;
use crate::transport::{Event, Transport, signed_ranges};
use crate::{Error, RouterConfig, bfd};

/// Events that wait for the router, at most.
const EVENTS: usize = 64;
/// How long after something happened the sessions are shown: what follows at once is seen too.
const SHOW_AFTER: Duration = Duration::from_millis(200);

/// A router at work.
struct Router {
    config: RouterConfig,
    speaker: Speaker,
    start: Instant,
    transport: Transport,
    links: Links,
    /// The kernel's routes, if they are ours to make.
    fib: Option<Fib>,
    bfd: mpsc::UnboundedSender<bfd::Command>,
    /// Neighbours that BFD watches.
    watched: HashMap<PeerId, Watched>,
    /// Next hops that the speaker wants to hear of.
    unresolved: Vec<IpAddr>,
    heard: mpsc::UnboundedSender<Heard>,
    /// Tasks that look for unnumbered neighbours, by interface.
    discoveries: HashMap<String, AbortHandle>,
    tasks: JoinSet<()>,
    /// Who wants to know how the router is, and when they are told next.
    shown: watch::Sender<RouterView>,
    show_at: Option<Instant>,
}

/// What another part of the process does to a router at work.
#[derive(Debug)]
pub struct Seat {
    /// The configuration as it should be. The AS, the BGP Identifier, `listen`, `install`,
    /// `sources` and `controlSocket` are those of the start.
    pub config: watch::Receiver<RouterConfig>,
    /// Gets how the router is, a moment after that changes.
    pub view: watch::Sender<RouterView>,
    /// Is told what can be measured.
    pub meter: Arc<dyn Meter>,
}

/// What the router's tasks tell it with.
struct Senders {
    events: mpsc::Sender<Event>,
    done: mpsc::UnboundedSender<Done>,
    bfd: mpsc::UnboundedSender<bfd::Command>,
    heard: mpsc::UnboundedSender<Heard>,
}

/// Runs a router until `shutdown`. Its routes stay in the kernel, as for a planned restart.
///
/// # Errors
/// If it cannot listen, make its control socket, or talk to the kernel.
pub async fn run(config: RouterConfig, shutdown: CancellationToken) -> Result<(), Error> {
    let (_keep, config) = watch::channel(config);
    let (view, _) = watch::channel(RouterView::default());
    let seat = Seat {
        config,
        view,
        meter: Arc::new(NoMeter),
    };
    run_seated(seat, shutdown).await
}

/// Runs a router whose configuration follows `seat`, until `shutdown`. Sessions that a change does
/// not concern go on.
///
/// # Errors
/// If it cannot listen, make its control socket, or talk to the kernel.
pub async fn run_seated(seat: Seat, shutdown: CancellationToken) -> Result<(), Error> {
    let Seat {
        mut config,
        view,
        meter,
    } = seat;
    let first = config.borrow_and_update().clone();
    let (events, mut happened) = mpsc::channel(EVENTS);
    let (done_sender, mut done) = mpsc::unbounded_channel();
    let (questions_sender, mut questions) = mpsc::channel(EVENTS);
    let (heard_sender, mut heard) = mpsc::unbounded_channel();
    let (bfd_sender, bfd_commands) = mpsc::unbounded_channel();
    let (report_sender, mut reports) = mpsc::unbounded_channel();
    let mut watch = Watch::open()?;
    let senders = Senders {
        events,
        done: done_sender,
        bfd: bfd_sender,
        heard: heard_sender,
    };
    let mut router = Router::start(first, senders, (view, meter))?;
    let _bfd = bfd::Watch::start(router.bfd.clone(), bfd_commands, report_sender)?;
    let path = router.config.control_socket.clone();
    let _control = path
        .map(|path| Server::start(&path, questions_sender.clone()))
        .transpose()?;
    let mut route_watch = router.route_watch()?;
    let mut way_watch = router.way_watch()?;
    router.handle(Input::Tick);
    loop {
        let deadline = router.deadline();
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(event) = happened.recv() => router.event(event),
            Some(done) = done.recv() => router.installed(done),
            Some(question) = questions.recv() => router.answer(question),
            Some(heard) = heard.recv() => router.heard(&heard),
            Some(report) = reports.recv() => router.reported(report),
            changes = watch.next(&mut router.links) => router.changed(changes?),
            news = touched(route_watch.as_mut()) => router.touched(news?),
            news = moved(way_watch.as_mut()) => {
                news?;
                router.doubt_ways();
            }
            () = until(deadline) => router.tick(),
            // Whoever ends the sender without a shutdown wants the last configuration.
            Ok(()) = config.changed() => {
                let wanted = config.borrow_and_update().clone();
                router.configure(wanted);
            }
        }
    }
    // BFD first: its silence is to be no failure.
    let _ = router.bfd.send(bfd::Command::Leave);
    // The routes stay: what the speaker says from now on is not for the kernel.
    router.fib = None;
    router.handle(Input::Leave);
    router.transport.drain().await;
    Ok(())
}

/// Has the kernel demand the signatures of these neighbours, and no others any more.
fn sign(transport: &mut Transport, neighbors: &[Neighbor]) {
    for (address, name) in transport.signed() {
        let neighbor = neighbors.iter().find(|neighbor| neighbor.name() == name);
        let key = neighbor.and_then(|neighbor| neighbor.options.password.as_deref());
        transport.sign(&name, address, key);
    }
    for neighbor in neighbors {
        if let (Some(address), Some(key)) = (neighbor.address, &neighbor.options.password) {
            transport.sign(&neighbor.name(), address, Some(key));
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn touched(watch: Option<&mut RouteWatch>) -> io::Result<Vec<News>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

async fn moved(watch: Option<&mut WayWatch>) -> io::Result<()> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

// === impl Router ===

impl Router {
    fn start(
        config: RouterConfig,
        senders: Senders,
        (shown, meter): (watch::Sender<RouterView>, Arc<dyn Meter>),
    ) -> Result<Self, Error> {
        let links = Links::read()?;
        let fib = match config.install {
            true => Some(Fib::start(config.sources.clone(), senders.done, meter)?),
            false => None,
        };
        let leftover = fib.as_ref().map_or(0, Fib::leftover);
        let mut settings = config.speaker();
        // Routes of a router before us: it was restarted, and forwarding went on.
        settings.graceful_restart.restarting |= leftover > 0;
        let mut transport = Transport::new(senders.events);
        let signed = signed_ranges(&config.ranges);
        for at in &config.listen {
            transport.listen(*at, &signed)?;
        }
        sign(&mut transport, &config.neighbors);
        tracing::info!(
            asn = config.asn,
            router_id = %config.router_id,
            listen = ?transport.listeners(),
            leftover,
            "router started"
        );
        let mut router = Router {
            speaker: Speaker::new(settings, rand::random(), Time(0)),
            start: Instant::now(),
            config,
            transport,
            links,
            fib,
            bfd: senders.bfd,
            watched: HashMap::new(),
            unresolved: Vec::new(),
            heard: senders.heard,
            discoveries: HashMap::new(),
            tasks: JoinSet::new(),
            shown,
            // A neighbour of which nothing is heard is shown too.
            show_at: Some(Instant::now()),
        };
        let names: Vec<String> = router.links.names().map(str::to_owned).collect();
        for name in names
            .into_iter()
            .filter(|name| !router.links.is_up(name))
            .collect::<Vec<_>>()
        {
            router.handle(Input::Link {
                interface: name,
                up: false,
            });
        }
        router.guard();
        router.discover();
        Ok(router)
    }

    /// Makes the configuration so. What it does not change goes on undisturbed.
    fn configure(&mut self, wanted: RouterConfig) {
        let wanted = RouterConfig {
            asn: self.config.asn,
            router_id: self.config.router_id,
            ..wanted
        };
        sign(&mut self.transport, &wanted.neighbors);
        let mut settings = wanted.speaker();
        // A restart is not over because the configuration changes.
        settings.graceful_restart.restarting |= self.speaker.config().graceful_restart.restarting;
        self.config = wanted;
        self.handle(Input::Configure(Box::new(settings)));
        self.guard();
        self.watch_as_configured();
        let unnumbered: Vec<&str> = self.speaker.unnumbered().map(|(_, on)| on).collect();
        self.discoveries.retain(|interface, task| {
            let wanted = unnumbered.contains(&interface.as_str());
            if !wanted {
                task.abort();
            }
            wanted
        });
        self.discover();
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When [`Router::tick`] is due.
    fn deadline(&self) -> Option<Instant> {
        let speaker = self
            .speaker
            .deadline()
            .map(|at| self.start + Duration::from_millis(at.0));
        let kernel = self.fib.as_ref().and_then(Fib::deadline);
        speaker.into_iter().chain(kernel).chain(self.show_at).min()
    }

    fn tick(&mut self) {
        if self.show_at.is_some_and(|at| at <= Instant::now()) {
            self.show_at = None;
            // Neighbours of a range come and go by themselves.
            self.watch_as_configured();
            // Nobody may want to know.
            self.shown.send_replace(self.view());
        }
        self.tell_of_ways();
        if let Some(fib) = &mut self.fib {
            fib.tick(&mut self.speaker, &self.links);
        }
        self.handle(Input::Tick);
    }

    /// Something of the router may look otherwise now.
    fn show_soon(&mut self) {
        if self.shown.receiver_count() > 0 && self.show_at.is_none() {
            self.show_at = Some(Instant::now() + SHOW_AFTER);
        }
    }

    /// Tells the speaker, and does what it wants.
    fn handle(&mut self, input: Input) {
        if input != Input::Tick {
            self.show_soon();
        }
        self.speaker.handle(input, self.now());
        loop {
            let outputs: Vec<Output> = self.speaker.take_outputs().collect();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.act(output);
            }
            self.resolve();
        }
        self.install();
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Connect { peer, address } => self.connect(peer, address),
            Output::Abandon { peer } => self.transport.abandon(peer),
            Output::Send { connection, bytes } => self.transport.send(connection, bytes),
            Output::Close { connection } => self.transport.close(connection),
            Output::Resolve { address } => self.unresolved.push(address),
            Output::Notice { peer, name, notice } => match notice {
                Notice::Up => {
                    tracing::info!(peer = name, "{notice}");
                    self.watch(peer);
                }
                Notice::Problem(_) | Notice::TooManyPrefixes(..) | Notice::Unsendable(_) => {
                    tracing::warn!(peer = name, "{notice}");
                }
                _ => tracing::info!(peer = name, "{notice}"),
            },
        }
    }
}
