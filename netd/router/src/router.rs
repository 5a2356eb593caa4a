//! The router's task: it owns the speaker, tells it what happens, and does what it wants.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peapod_bgp::rib::{NextHops, PeerId};
use peapod_bgp::speaker::{Endpoint, Input, Notice, Output, Scope};
use peapod_bgp::types::Family;
use peapod_bgp::{Speaker, Time};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::control::{Cursor, Page, Question, Request, Server, ShownPeer, ShownRoute};
use crate::discovery::{self, Heard};
use crate::kernel::links::{Change, Links, Watch};
use crate::kernel::routes::{BATCH, Done, Hop, Installer, Job, KernelRoute, installed, needs_link};
use crate::transport::{Call, Event, Transport, Ttl, signed_ranges, socket_address};
use crate::{Error, RouterConfig, bfd};

/// Events that wait for the router, at most.
const EVENTS: usize = 64;
/// Routes in a page of an answer.
const PAGE: usize = 512;
/// Wait after a change of links or addresses before the kernel's routes are looked at.
const AUDIT_DELAY: Duration = Duration::from_millis(200);

/// A router at work.
struct Router {
    config: RouterConfig,
    speaker: Speaker,
    start: Instant,
    transport: Transport,
    links: Links,
    installer: Option<Installer>,
    /// Routes of a router before us that nothing was said of yet.
    leftover: BTreeSet<IpNet>,
    /// What the kernel refused, and why.
    refused: HashMap<IpNet, io::Error>,
    /// When the kernel's routes are to be compared with ours.
    audit_at: Option<Instant>,
    bfd: mpsc::UnboundedSender<bfd::Command>,
    bfd_states: HashMap<PeerId, peapod_bfd::State>,
    heard: mpsc::UnboundedSender<Heard>,
    /// Tasks that look for unnumbered neighbours, by interface.
    discoveries: HashMap<String, AbortHandle>,
    tasks: JoinSet<()>,
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
    let mut router = Router::start(config, senders)?;
    router
        .tasks
        .spawn(watch_neighbors(bfd_commands, report_sender));
    let path = router.config.control_socket.clone();
    let _control = path
        .map(|path| Server::start(&path, questions_sender.clone()))
        .transpose()?;
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
            () = until(deadline) => router.tick()?,
        }
    }
    // BFD first: its silence is to be no failure.
    let _ = router.bfd.send(bfd::Command::Leave);
    // The routes stay: what the speaker says from now on is not for the kernel.
    router.installer = None;
    router.handle(Input::Leave);
    router.transport.drain().await;
    Ok(())
}

async fn watch_neighbors(
    commands: mpsc::UnboundedReceiver<bfd::Command>,
    reports: mpsc::UnboundedSender<bfd::Report>,
) {
    if let Err(error) = bfd::run(commands, reports).await {
        tracing::error!(%error, port = peapod_bfd::CONTROL_PORT, "no BFD: cannot use its port");
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

// === impl Router ===

impl Router {
    fn start(config: RouterConfig, senders: Senders) -> Result<Self, Error> {
        let links = Links::read()?;
        let (mut leftover, mut installer) = (BTreeSet::new(), None);
        if config.install {
            leftover.extend(installed()?.into_iter().map(|route| route.prefix));
            installer = Some(Installer::start(senders.done)?);
        }
        let mut settings = config.speaker();
        // Routes of a router before us: it was restarted, and forwarding went on.
        settings.graceful_restart.restarting |= !leftover.is_empty();
        let mut transport = Transport::new(senders.events);
        let mut signed = signed_ranges(&config.ranges);
        let with_key = config.neighbors.iter().filter_map(|neighbor| {
            Some((
                IpNet::from(neighbor.address?),
                neighbor.options.password.clone()?,
            ))
        });
        signed.extend(with_key);
        for at in &config.listen {
            transport.listen(*at, &signed)?;
        }
        tracing::info!(
            asn = config.asn,
            router_id = %config.router_id,
            listen = ?transport.listeners(),
            leftover = leftover.len(),
            "router started"
        );
        let mut router = Router {
            speaker: Speaker::new(settings, rand::random(), Time(0)),
            start: Instant::now(),
            config,
            transport,
            links,
            installer,
            leftover,
            refused: HashMap::new(),
            audit_at: None,
            bfd: senders.bfd,
            bfd_states: HashMap::new(),
            heard: senders.heard,
            discoveries: HashMap::new(),
            tasks: JoinSet::new(),
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

    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When [`Router::tick`] is due.
    fn deadline(&self) -> Option<Instant> {
        let speaker = self
            .speaker
            .deadline()
            .map(|at| self.start + Duration::from_millis(at.0));
        speaker.into_iter().chain(self.audit_at).min()
    }

    fn tick(&mut self) -> Result<(), Error> {
        if self.audit_at.is_some_and(|at| at <= Instant::now()) {
            self.audit_at = None;
            self.audit()?;
        }
        self.handle(Input::Tick);
        Ok(())
    }

    /// Tells the speaker, and does what it wants.
    fn handle(&mut self, input: Input) {
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
        if report.failed {
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
                interface: Some(link.name.clone()),
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
    /// Gives the kernel what changed, as fast as it takes it.
    fn install(&mut self) {
        while self.installer.as_ref().is_some_and(Installer::ready) && self.speaker.has_changes() {
            let changes = self.speaker.take_changes(BATCH);
            let mut jobs = Vec::with_capacity(changes.len());
            for change in changes {
                self.leftover.remove(&change.prefix);
                self.refused.remove(&change.prefix);
                let hops = change
                    .next_hops
                    .as_deref()
                    .map(|next_hops| self.hops(next_hops));
                jobs.push(Job {
                    prefix: change.prefix,
                    hops: hops.filter(|hops| !hops.is_empty()),
                });
            }
            if let Some(installer) = &mut self.installer {
                installer.install(jobs);
            }
        }
        if self.installer.is_none() {
            // Nobody wants them.
            while !self.speaker.take_changes(BATCH).is_empty() {}
        }
        self.remove_leftover();
    }

    /// Next hops as the kernel knows them; those over links that are gone are left out.
    fn hops(&self, next_hops: &NextHops) -> Vec<Hop> {
        let hop = |gateway: &peapod_bgp::rib::Gateway| {
            let link = gateway
                .interface
                .as_deref()
                .and_then(|name| self.links.index(name));
            (link.is_some() || !needs_link(gateway.address)).then_some(Hop {
                gateway: gateway.address,
                link,
            })
        };
        next_hops.iter().filter_map(hop).collect()
    }

    /// After a restart: what nobody announces any more goes, once all have had their say.
    fn remove_leftover(&mut self) {
        let Some(installer) = &mut self.installer else {
            return;
        };
        let ready = installer.ready() && !self.speaker.has_changes() && !self.speaker.deferring();
        if self.leftover.is_empty() || !ready {
            return;
        }
        let gone = std::mem::take(&mut self.leftover);
        tracing::info!(
            routes = gone.len(),
            "removing routes of before that nobody announces"
        );
        installer.install(
            gone.into_iter()
                .map(|prefix| Job { prefix, hops: None })
                .collect(),
        );
    }

    fn installed(&mut self, done: Done) {
        if let Some(installer) = &mut self.installer {
            installer.finished();
        }
        for (prefix, error) in done.refused {
            tracing::warn!(%prefix, %error, "the kernel refused a route");
            self.refused.insert(prefix, error);
        }
        self.install();
    }

    /// Links or addresses are others now.
    fn changed(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.audit_at.get_or_insert(Instant::now() + AUDIT_DELAY);
        for change in changes {
            if let Change::Carrier { name, up } = change {
                tracing::info!(interface = name, up, "carrier");
                if up {
                    self.discover();
                }
                self.handle(Input::Link {
                    interface: name,
                    up,
                });
            }
        }
    }

    /// Compares the kernel's routes with ours: with a link go the routes over it, whoever wants
    /// them, and what was refused may be possible now.
    fn audit(&mut self) -> Result<(), Error> {
        if !self.installer.as_ref().is_some_and(Installer::idle) || self.speaker.has_changes() {
            self.audit_at = Some(Instant::now() + AUDIT_DELAY);
            return Ok(());
        }
        let kernel: HashMap<IpNet, Vec<Hop>> = installed()?
            .into_iter()
            .map(|KernelRoute { prefix, hops }| (prefix, hops))
            .collect();
        let mut wrong = Vec::new();
        for family in Family::SUPPORTED {
            for (prefix, next_hops) in self.speaker.forwarding(family) {
                let same = kernel
                    .get(&prefix)
                    .is_some_and(|have| self.agree(have, next_hops));
                if !same {
                    wrong.push(prefix);
                }
            }
        }
        if !wrong.is_empty() {
            tracing::info!(
                routes = wrong.len(),
                "writing routes again that the kernel has not"
            );
        }
        for prefix in wrong {
            self.speaker.change_again(&prefix);
        }
        self.install();
        Ok(())
    }

    fn agree(&self, have: &[Hop], want: &NextHops) -> bool {
        let mut gateways: Vec<IpAddr> = have.iter().map(|hop| hop.gateway).collect();
        let mut wanted: Vec<IpAddr> = self.hops(want).iter().map(|hop| hop.gateway).collect();
        gateways.sort_unstable();
        wanted.sort_unstable();
        gateways == wanted
    }
}

// === impl Router: who looks in ===

impl Router {
    fn answer(&mut self, question: Question) {
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
            let kernel_error = self.refused.get(&route.prefix).map(ToString::to_string);
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
        let shown = self.speaker.peers().into_iter().map(|peer| {
            let bfd = self.bfd_states.get(&peer.id).map(ToString::to_string);
            serde_json::to_string(&ShownPeer { peer, bfd })
        });
        shown
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    fn peer(&self, name: &str) -> Result<PeerId, String> {
        self.speaker
            .peer_named(name)
            .ok_or_else(|| format!("there is no neighbour {name}"))
    }
}
