//! Installing routes: a thread of its own writes batches to the kernel, keeps the book of nexthop
//! objects, and reads back what the kernel has; it answers with what the kernel refused.
//!
//! Orders are done one after the other, so that what is read back is what was written before.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::mpsc::UnboundedSender;

use super::message::{
    self, NLMSG_DONE, RTM_GETNEXTHOP, RTM_GETROUTE, RTM_NEWNEXTHOP, RTM_NEWROUTE, Way,
};
pub use super::message::{Hop, KernelRoute};
use super::nexthops::{Command, Objects, is_ours};
use crate::sys;

/// Routes in a batch, at most: such a batch is smaller than the socket's buffer.
pub const BATCH: usize = 2048;
/// Batches that wait for the thread, at most.
const QUEUE: usize = 2;
const BUFFER: usize = 4 * 1024 * 1024;
/// Sequence numbers from here on are those of messages about objects.
const OBJECTS_FROM: u32 = 0x8000_0000;

/// A route to make as it should be: to these next hops, or gone.
#[derive(Clone, Debug)]
pub struct Job {
    /// The prefix.
    pub prefix: IpNet,
    /// Its next hops, in ascending order.
    pub hops: Option<Vec<Hop>>,
}

/// What the thread is to do.
#[derive(Debug)]
enum Order {
    Write(Vec<Job>),
    Fail(Hop),
    LinkChanged(u32),
    DoubtAll,
    Read,
}

/// What became of an order.
#[derive(Debug)]
pub enum Done {
    /// A batch was written.
    Written {
        /// Those that the kernel refused.
        refused: Vec<(IpNet, io::Error)>,
    },
    /// The kernel's routes were read.
    Read(io::Result<Vec<Installed>>),
}

/// A route that the kernel has, in short: half a million of them are held for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The prefix.
    pub prefix: IpNet,
    /// What [`fingerprint`] says of its next hops.
    pub hops: u32,
}

/// The thread that installs routes. It ends when this is dropped.
#[derive(Debug)]
pub struct Installer {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    waiting: usize,
    port: u32,
}

/// The kernel, as the thread speaks with it.
struct Kernel {
    socket: Socket,
    /// None if it has no nexthop objects.
    objects: Option<Objects>,
    /// What packets of this machine over our routes come from, one of each family at most.
    sources: Vec<IpAddr>,
}

// === impl Installer ===

impl Installer {
    /// Starts the thread, in the network namespace of the caller's; it sends what became of each
    /// order to `done`.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn start(sources: Vec<IpAddr>, done: UnboundedSender<Done>) -> io::Result<Self> {
        let socket = open()?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        let objects = known_objects(&socket);
        if let Err(error) = &objects {
            tracing::info!(%error, "this kernel has no nexthop objects");
        }
        let kernel = Kernel {
            socket,
            sources,
            objects: objects.ok().map(|known| {
                let ours = known
                    .into_iter()
                    .map(|(id, _)| id)
                    .filter(|id| is_ours(*id));
                Objects::new(ours.collect::<BTreeSet<u32>>())
            }),
        };
        let (orders, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("bgp-routes".to_owned())
            .spawn(move || kernel.work(&queue, &done))?;
        Ok(Installer {
            orders: Some(orders),
            thread: Some(thread),
            waiting: 0,
            port: address.port_number(),
        })
    }

    /// The netlink port that routes are written from.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Whether a batch may be given.
    pub fn ready(&self) -> bool {
        self.waiting < QUEUE
    }

    /// Whether nothing is being written or read.
    pub fn idle(&self) -> bool {
        self.waiting == 0
    }

    /// Has routes written. To be called when [ready](Installer::ready).
    pub fn install(&mut self, jobs: Vec<Job>) {
        self.waiting += 1;
        self.order(Order::Write(jobs));
    }

    /// Has the kernel's routes of ours read, and objects removed that none of them uses.
    pub fn read(&mut self) {
        self.waiting += 1;
        self.order(Order::Read);
    }

    /// A next hop cannot be reached any more: all routes over it are led around it at once, where
    /// they have another; those that have none are removed.
    pub fn fail(&mut self, hop: Hop) {
        self.order(Order::Fail(hop));
    }

    /// A link came up or went down.
    pub fn link_changed(&mut self, link: u32) {
        self.order(Order::LinkChanged(link));
    }

    /// Somebody else removed nexthop objects of ours.
    pub fn objects_touched(&mut self) {
        self.order(Order::DoubtAll);
    }

    /// An order that was to be answered is done.
    pub fn finished(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    fn order(&mut self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that is gone has panicked: nothing can be installed any more.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is of no use to anybody who drops this.
            let _ = thread.join();
        }
    }
}

// === impl Kernel ===

impl Kernel {
    fn work(mut self, queue: &Receiver<Order>, done: &UnboundedSender<Done>) {
        while let Ok(order) = queue.recv() {
            let answer = match order {
                Order::Write(jobs) => Done::Written {
                    refused: self.install(&jobs),
                },
                Order::Read => Done::Read(self.read()),
                order => {
                    self.note(order);
                    continue;
                }
            };
            if done.send(answer).is_err() {
                return;
            }
        }
    }

    fn source(&self, prefix: &IpNet) -> Option<IpAddr> {
        let mut sources = self.sources.iter().copied();
        sources.find(|source| source.is_ipv4() == prefix.addr().is_ipv4())
    }

    /// Takes note of what happened to objects.
    fn note(&mut self, order: Order) {
        let Some(objects) = &mut self.objects else {
            return;
        };
        let mut commands = Vec::new();
        match order {
            Order::Fail(hop) => objects.fail(&hop, &mut commands),
            Order::LinkChanged(link) => objects.link_changed(link),
            Order::DoubtAll => objects.doubt_all(),
            Order::Write(_) | Order::Read => {}
        }
        self.say(&commands);
    }

    fn install(&mut self, jobs: &[Job]) -> Vec<(IpNet, io::Error)> {
        let mut refused = Vec::new();
        for batch in jobs.chunks(BATCH) {
            match self.write(batch) {
                Ok(some) => refused.extend(some),
                Err(error) => {
                    tracing::warn!(%error, routes = batch.len(), "cannot write routes to the kernel");
                    let all = batch.iter();
                    refused.extend(all.map(|job| (job.prefix, copy(&error))));
                }
            }
        }
        refused
    }

    /// Writes a batch, with objects where they can be. An object may be gone, with its link: then
    /// the routes that needed it are written once more, with next hops of their own.
    fn write(&mut self, jobs: &[Job]) -> io::Result<Vec<(IpNet, io::Error)>> {
        let mut bytes = Vec::with_capacity(jobs.len() * 64);
        let (mut commands, mut with_object) = (Vec::new(), HashSet::new());
        let mut last = 0;
        for (sequence, job) in (0u32..).zip(jobs) {
            let hops = job.hops.as_deref();
            let object = hops.and_then(|hops| self.objects.as_mut()?.of(hops, &mut commands));
            put_commands(&mut bytes, &mut commands);
            let way = match (object, hops) {
                (Some(id), _) => {
                    with_object.insert(sequence);
                    Way::Object(id)
                }
                (None, Some(hops)) => Way::Hops(hops),
                (None, None) => Way::Gone,
            };
            last = bytes.len();
            message::put_route(
                &mut bytes,
                sequence,
                &job.prefix,
                way,
                self.source(&job.prefix),
            );
        }
        let refused = send(&self.socket, &mut bytes, last, jobs)?;
        let (again, refused): (Vec<_>, Vec<_>) = refused
            .into_iter()
            .partition(|(sequence, _)| with_object.contains(sequence));
        let mut all: Vec<(u32, i32)> = refused;
        if !again.is_empty() {
            if let Some(objects) = &mut self.objects {
                objects.doubt_all();
            }
            all.extend(self.write_plainly(jobs, &again)?);
        }
        let named = all.into_iter().filter_map(|(sequence, code)| {
            let job = jobs.get(sequence as usize)?;
            Some((job.prefix, io::Error::from_raw_os_error(code)))
        });
        Ok(named.collect())
    }

    /// Writes some of a batch without objects; those that are refused even so.
    fn write_plainly(&self, jobs: &[Job], some: &[(u32, i32)]) -> io::Result<Vec<(u32, i32)>> {
        let (mut bytes, mut last) = (Vec::new(), 0);
        for (sequence, _) in some {
            let Some(Job { prefix, hops }) = jobs.get(*sequence as usize) else {
                continue;
            };
            last = bytes.len();
            let way = hops.as_deref().map_or(Way::Gone, Way::Hops);
            message::put_route(&mut bytes, *sequence, prefix, way, self.source(prefix));
        }
        send(&self.socket, &mut bytes, last, jobs)
    }

    /// Says something of objects, whatever the kernel thinks of it: what is not there need not be
    /// removed.
    fn say(&mut self, commands: &[Command]) {
        for command in commands {
            let mut bytes = Vec::new();
            message::put_nexthop(&mut bytes, OBJECTS_FROM, command);
            if let Err(error) = send(&self.socket, &mut bytes, 0, &[]) {
                tracing::warn!(%error, ?command, "cannot write a nexthop object");
            }
        }
    }

    fn read(&mut self) -> io::Result<Vec<Installed>> {
        let (mut routes, mut used) = (Vec::new(), HashSet::new());
        each_route(&self.socket, |route| {
            used.extend(route.object);
            routes.push(Installed {
                prefix: route.prefix,
                hops: fingerprint(&route.hops),
            });
        })?;
        if let Some(objects) = &mut self.objects {
            let mut commands = Vec::new();
            objects.sweep(&known_objects(&self.socket)?, &used, &mut commands);
            self.say(&commands);
        }
        Ok(routes)
    }
}

/// Appends messages about objects, which come before the route that needs them.
fn put_commands(bytes: &mut Vec<u8>, commands: &mut Vec<Command>) {
    for command in commands.drain(..) {
        message::put_nexthop(bytes, OBJECTS_FROM, &command);
    }
}

/// The same error again, as far as it is one of the system's.
fn copy(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // What was asked need not be repeated in the answer to it.
    socket.set_cap_ack(true)?;
    sys::set_buffers(&socket, BUFFER)?;
    Ok(socket)
}

/// Sends messages, of which only the one at `last` is acknowledged: the kernel answers what it
/// refuses, by sequence number and error. What is gone already need not be removed.
fn send(
    socket: &Socket,
    bytes: &mut [u8],
    last: usize,
    jobs: &[Job],
) -> io::Result<Vec<(u32, i32)>> {
    let mut refused = Vec::new();
    if bytes.is_empty() {
        return Ok(refused);
    }
    message::acknowledge(bytes, last);
    let final_sequence = message::sequence(bytes, last);
    socket.send(bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            let Some(code) = message::error_number(&message) else {
                continue;
            };
            if let Some(job) = jobs.get(message.sequence as usize) {
                let gone = job.hops.is_none() && code == libc::ESRCH;
                if code != 0 && !gone {
                    refused.push((message.sequence, code));
                }
            }
            // Of several messages about objects any answers; routes have numbers of their own.
            if message.sequence == final_sequence {
                return Ok(refused);
            }
        }
    }
}

/// The nexthop objects that the kernel has, and the members of groups.
fn known_objects(socket: &Socket) -> io::Result<Vec<(u32, Vec<u32>)>> {
    let mut objects = Vec::new();
    each(socket, &message::dump(RTM_GETNEXTHOP, 0, 8), |message| {
        if message.kind == RTM_NEWNEXTHOP {
            objects.extend(message::nexthop(message.body));
        }
    })?;
    Ok(objects)
}

/// What next hops amount to, in short: the same for equal ones. Interfaces count where addresses
/// mean nothing without.
pub fn fingerprint(hops: &[Hop]) -> u32 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let link = |hop: &Hop| hop.link.filter(|_| needs_link(hop.gateway));
    let mut all: Vec<_> = hops.iter().map(|hop| (hop.gateway, link(hop))).collect();
    all.sort_unstable();
    let mut hasher = DefaultHasher::new();
    all.hash(&mut hasher);
    hasher.finish() as u32
}

/// The routes of ours that are in the kernel.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn installed() -> io::Result<Vec<KernelRoute>> {
    let mut routes = Vec::new();
    each_route(&open()?, |route| routes.push(route))?;
    Ok(routes)
}

fn each_route(socket: &Socket, mut take: impl FnMut(KernelRoute)) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = message::dump(RTM_GETROUTE, family as u8, 12);
        each(socket, &request, |message| {
            if message.kind == RTM_NEWROUTE
                && let Some(route) = message::route(message.body)
            {
                take(route);
            }
        })?;
    }
    Ok(())
}

/// Asks for all of something.
pub(super) fn each(
    socket: &Socket,
    request: &[u8],
    mut take: impl FnMut(&message::Message<'_>),
) -> io::Result<()> {
    socket.send(request, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            if message.kind == NLMSG_DONE {
                return Ok(());
            }
            if let Some(code) = message::error_number(&message).filter(|code| *code != 0) {
                return Err(io::Error::from_raw_os_error(code));
            }
            take(&message);
        }
    }
}

/// Whether the kernel would have to look for the interface itself.
pub fn needs_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
