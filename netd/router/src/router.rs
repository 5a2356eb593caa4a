//! The router's task: it owns the speaker, tells it what happens, and does what it wants.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peapod_bgp::config::Neighbor;
use peapod_bgp::rib::PeerId;
use peapod_bgp::speaker::{Endpoint, Input, Notice, Output, Scope};
use peapod_bgp::types::Family;
use peapod_bgp::{Speaker, Time};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::control::{self, Cursor, Page, Question, Request, Server, ShownPeer, ShownRoute};
use crate::discovery::{self, Heard};
use crate::kernel::fib::{Fib, Meter, NoMeter, Refusals};
use crate::kernel::links::{Change, Links, Watch};
use crate::kernel::neighbors;
use crate::kernel::news::{News, RouteWatch};
use crate::kernel::routes::{BATCH, Done};
use crate::transport::{
    Call, Event, Transport, Ttl, demand_signature, signed_ranges, socket_address,
};
use crate::{Error, RouterConfig, bfd};

/// Events that wait for the router, at most.
const EVENTS: usize = 64;
/// How long after something happened the sessions are shown: what follows at once is seen too.
const SHOW_AFTER: Duration = Duration::from_millis(200);
/// Routes in a page of an answer.
const PAGE: usize = 512;

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
    bfd_states: HashMap<PeerId, peapod_bfd::State>,
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

/// How a router is.
#[derive(Clone, Debug, Default)]
pub struct RouterView {
    /// Its sessions.
    pub peers: Vec<ShownPeer>,
    /// What the kernel refuses.
    pub refusals: Refusals,
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
            bfd_states: HashMap::new(),
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
            // Nobody may want to know.
            self.shown.send_replace(self.view());
        }
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
        }
        self.install();
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Connect { peer, address } => self.connect(peer, address),
            Output::Abandon { peer } => self.transport.abandon(peer),
            Output::Send { connection, bytes } => self.transport.send(connection, bytes),
            Output::Close { connection } => self.transport.close(connection),
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

    fn connect(&mut self, peer: PeerId, address: IpAddr) {
        let Some(options) = self.speaker.peer_options(peer) else {
            return;
        };
        let interface = self.speaker.peer_interface(peer);
        let index = interface.and_then(|name| self.links.index(name));
        let call = Call {
            peer,
            to: socket_address(address, options.port, index),
            source: options.source,
            password: options.password.clone(),
            ttl: Ttl::of(options, options.external(self.config.asn)),
        };
        self.transport.connect(call);
    }

    /// Has BFD watch a neighbour, if that is wanted.
    fn watch(&mut self, peer: PeerId) {
        let Some(settings) = self
            .speaker
            .peer_options(peer)
            .and_then(|options| options.bfd)
        else {
            return;
        };
        let Some(endpoint) = self.speaker.peer_endpoint(peer) else {
            return;
        };
        let index = endpoint
            .interface
            .as_deref()
            .and_then(|name| self.links.index(name));
        let remote = socket_address(endpoint.remote, peapod_bfd::CONTROL_PORT, index);
        let command = bfd::Command::Watch {
            peer,
            local: endpoint.local,
            remote,
            settings,
        };
        // If the task could not start, that was said.
        let _ = self.bfd.send(command);
    }

    /// BFD has news of a neighbour.
    fn reported(&mut self, report: bfd::Report) {
        self.bfd_states.insert(report.peer, report.state);
        self.show_soon();
        if report.failed {
            if let (Some(fib), Some(at)) = (&mut self.fib, self.speaker.peer_endpoint(report.peer))
            {
                fib.fail(at.remote, at.interface.as_deref(), &self.links);
            }
            self.handle(Input::BfdDown { peer: report.peer });
        }
    }

    /// Looks for unnumbered neighbours on interfaces that carry packets.
    fn discover(&mut self) {
        let wanted: Vec<String> = self
            .speaker
            .unnumbered()
            .map(|(_, interface)| interface.to_owned())
            .collect();
        for interface in wanted {
            let Some(index) = self
                .links
                .index(&interface)
                .filter(|_| self.links.is_up(&interface))
            else {
                continue;
            };
            let task = discovery::run(interface.clone(), index, self.heard.clone());
            if let Some(before) = self.discoveries.insert(interface, self.tasks.spawn(task)) {
                before.abort();
            }
        }
    }

    /// An unnumbered neighbour has made itself known.
    fn heard(&mut self, heard: &Heard) {
        let found = self
            .speaker
            .unnumbered()
            .find(|(_, on)| *on == heard.interface);
        if let Some(peer) = found.map(|(peer, _)| peer) {
            let options = self.speaker.peer_options(peer);
            let key = options.and_then(|options| options.password.as_deref());
            let name = self.speaker.peer_name(peer);
            self.transport.sign(name, heard.address.into(), key);
            self.handle(Input::Located {
                peer,
                address: Some(heard.address.into()),
            });
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Accepted(stream, from) => self.accepted(stream, from),
            Event::Connected(peer, stream) => self.connected(peer, stream),
            Event::ConnectFailed(peer, error) => {
                tracing::debug!(peer = self.speaker.peer_name(peer), %error, "cannot connect");
                self.handle(Input::ConnectFailed { peer });
            }
            Event::Received(connection, bytes) => {
                if let Some(fib) = &mut self.fib {
                    fib.heard_something();
                }
                self.handle(Input::Received { connection, bytes });
            }
            Event::Sent(connection, bytes) => self.handle(Input::Sent { connection, bytes }),
            Event::Closed(connection) => {
                self.transport.close(connection);
                self.handle(Input::Closed { connection });
            }
        }
    }

    fn accepted(&mut self, stream: TcpStream, from: SocketAddr) {
        let Ok(endpoint) = self.endpoint(&stream, from) else {
            return;
        };
        let Some(options) = self.speaker.options_at(&endpoint) else {
            return;
        };
        let ttl = Ttl::of(options, options.external(self.config.asn));
        if let Some(key) = &options.password
            && let Err(error) = demand_signature(&stream, from.ip(), key)
        {
            tracing::warn!(%from, %error, "refusing a connection that cannot be signed");
            return;
        }
        if let Ok(connection) = self.transport.open(stream, ttl) {
            self.handle(Input::Accepted {
                connection,
                endpoint,
            });
        }
    }

    fn connected(&mut self, peer: PeerId, stream: TcpStream) {
        let opened = stream.peer_addr().and_then(|to| self.endpoint(&stream, to));
        let Some(options) = self.speaker.peer_options(peer) else {
            return;
        };
        let ttl = Ttl::of(options, options.external(self.config.asn));
        let opened = opened.and_then(|endpoint| Ok((self.transport.open(stream, ttl)?, endpoint)));
        self.handle(match opened {
            Ok((connection, endpoint)) => Input::Connected {
                peer,
                connection,
                endpoint,
            },
            Err(_) => Input::ConnectFailed { peer },
        });
    }

    /// The ends of a connection, and our other addresses on its link.
    fn endpoint(&self, stream: &TcpStream, remote: SocketAddr) -> io::Result<Endpoint> {
        let local = stream.local_addr()?;
        let by_scope = match remote {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => self.links.get(v6.scope_id()),
            _ => self.links.with_address(local.ip()),
        };
        let plain = Endpoint::between(local.ip(), remote.ip());
        Ok(match by_scope {
            None => plain,
            Some(link) => Endpoint {
                // Not of a neighbour some hops away, whose way may be another.
                interface: Some(link.name.clone()).filter(|_| link.reaches(remote.ip())),
                ipv4: plain.ipv4.or(link.ipv4()),
                ipv6: plain.ipv6.or(link.ipv6()),
                link_local: plain.link_local.or(link.link_local()),
                ..plain
            },
        })
    }
}

// === impl Router: the kernel ===

impl Router {
    /// Hears what others do to our routes.
    fn route_watch(&self) -> Result<Option<RouteWatch>, Error> {
        let open = |fib: &Fib| RouteWatch::open(fib.port());
        Ok(self.fib.as_ref().map(open).transpose()?)
    }

    /// Gives the kernel what changed, as fast as it takes it.
    fn install(&mut self) {
        match &mut self.fib {
            Some(fib) => fib.install(&mut self.speaker, &self.links),
            // Nobody wants them.
            None => while !self.speaker.take_changes(BATCH).is_empty() {},
        }
    }

    fn installed(&mut self, done: Done) {
        let Some(fib) = &mut self.fib else {
            return;
        };
        let before = fib.refusals();
        fib.done(done, &mut self.speaker, &self.links);
        if fib.refusals() != before {
            self.show_soon();
        }
    }

    fn touched(&mut self, news: Vec<News>) {
        if let Some(fib) = self.fib.as_mut().filter(|_| !news.is_empty()) {
            fib.heard(news);
        }
    }

    /// Has the link-layer addresses of the neighbours on a link asked for that has come up.
    fn ask_neighbors(&self, name: &str) {
        let Some(index) = self.links.index(name) else {
            return;
        };
        let reaches = |address| {
            self.links
                .get(index)
                .is_some_and(|link| link.reaches(address))
        };
        for peer in self.speaker.locations() {
            let here = peer
                .interface
                .map_or_else(|| reaches(peer.address), |on| on == name);
            if here && let Err(error) = neighbors::forget(index, peer.address) {
                tracing::debug!(interface = name, %error, "cannot have a neighbour asked for");
            }
        }
    }

    /// Links or addresses are others now.
    fn changed(&mut self, changes: Vec<Change>) {
        for change in changes {
            let (Change::Carrier { name, .. } | Change::Addresses { name }) = &change;
            let index = self.links.index(name);
            if let Some(fib) = &mut self.fib {
                fib.link_changed(index);
            }
            if let Change::Carrier { name, up } = change {
                tracing::info!(interface = name, up, "carrier");
                if up {
                    self.discover();
                    self.ask_neighbors(&name);
                }
                self.handle(Input::Link {
                    interface: name,
                    up,
                });
            }
        }
    }
}

// === impl Router: who looks in ===

impl Router {
    fn answer(&mut self, question: Question) {
        if let (Request::Audit, Some(fib)) = (&question.request, &mut self.fib) {
            let (answer, audited) = oneshot::channel();
            fib.ask_audit(answer);
            self.tasks
                .spawn(control::answer_audit(audited, question.answer));
            return;
        }
        let page = match self.page(&question.request, question.from) {
            Ok((lines, next)) => Page {
                lines: Ok(lines),
                next,
            },
            Err(error) => Page {
                lines: Err(error),
                next: None,
            },
        };
        // Who asked may be gone.
        let _ = question.answer.send(page);
    }

    fn page(
        &self,
        request: &Request,
        from: Cursor,
    ) -> Result<(Vec<String>, Option<Cursor>), String> {
        let scope = match request {
            Request::Peers => return self.peers().map(|lines| (lines, None)),
            Request::Audit => {
                return Err("this router installs nothing (install: false)".to_owned());
            }
            Request::Routes {
                received: Some(name),
                ..
            } => Scope::Received(self.peer(name)?),
            Request::Routes {
                advertised: Some(name),
                ..
            } => Scope::Advertised(self.peer(name)?),
            Request::Routes { .. } => Scope::All,
        };
        let Some(family) = Family::SUPPORTED.get(from.0) else {
            return Ok((Vec::new(), None));
        };
        let (views, next) = self.speaker.routes_page(*family, scope, from.1, PAGE);
        let lines = views.into_iter().map(|route| {
            let refusal = self.fib.as_ref().and_then(|fib| fib.refusal(&route.prefix));
            let kernel_error = refusal.map(ToString::to_string);
            serde_json::to_string(&ShownRoute {
                route,
                kernel_error,
            })
        });
        let lines = lines
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        Ok((
            lines,
            Some(next.map_or((from.0 + 1, 0), |slot| (from.0, slot))),
        ))
    }

    fn peers(&self) -> Result<Vec<String>, String> {
        let lines = self.sessions().into_iter();
        lines
            .map(|shown| serde_json::to_string(&shown).map_err(|error| error.to_string()))
            .collect()
    }

    fn view(&self) -> RouterView {
        RouterView {
            peers: self.sessions(),
            refusals: self.fib.as_ref().map(Fib::refusals).unwrap_or_default(),
        }
    }

    /// The neighbours, with what BFD says of them.
    fn sessions(&self) -> Vec<ShownPeer> {
        let peers = self.speaker.peers().into_iter();
        peers
            .map(|peer| ShownPeer {
                bfd: self.bfd_states.get(&peer.id).map(ToString::to_string),
                peer,
            })
            .collect()
    }

    fn peer(&self, name: &str) -> Result<PeerId, String> {
        self.speaker
            .peer_named(name)
            .ok_or_else(|| format!("there is no neighbour {name}"))
    }
}
