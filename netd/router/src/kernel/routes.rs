//! Installing routes: batches are written to the kernel by a thread of their own, which answers
//! with what the kernel refused.

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::mpsc::UnboundedSender;

use super::message::{self, NLMSG_DONE, RTM_GETROUTE, RTM_NEWROUTE};
pub use super::message::{Hop, KernelRoute};
use crate::sys;

/// Routes in a batch, at most: such a batch is smaller than the socket's buffer.
pub const BATCH: usize = 2048;
/// Batches that wait for the thread, at most.
const QUEUE: usize = 2;
const BUFFER: usize = 4 * 1024 * 1024;

/// A route to make as it should be: to these next hops, or gone.
#[derive(Clone, Debug)]
pub struct Job {
    /// The prefix.
    pub prefix: IpNet,
    /// Its next hops.
    pub hops: Option<Vec<Hop>>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Done {
    /// How many routes were in it.
    pub count: usize,
    /// Those that the kernel refused.
    pub refused: Vec<(IpNet, io::Error)>,
}

/// The thread that installs routes. It ends when this is dropped.
#[derive(Debug)]
pub struct Installer {
    jobs: Option<SyncSender<Vec<Job>>>,
    thread: Option<JoinHandle<()>>,
    waiting: usize,
}

// === impl Installer ===

impl Installer {
    /// Starts the thread, in the network namespace of the caller's; it sends what became of each
    /// batch to `done`.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn start(done: UnboundedSender<Done>) -> io::Result<Self> {
        let socket = open()?;
        let (jobs, queue) = sync_channel(QUEUE);
        let work = move || work(&socket, &queue, &done);
        let thread = std::thread::Builder::new()
            .name("bgp-routes".to_owned())
            .spawn(work)?;
        Ok(Installer {
            jobs: Some(jobs),
            thread: Some(thread),
            waiting: 0,
        })
    }

    /// Whether a batch may be given.
    pub fn ready(&self) -> bool {
        self.waiting < QUEUE
    }

    /// Whether nothing is being written.
    pub fn idle(&self) -> bool {
        self.waiting == 0
    }

    /// Has routes written. To be called when [ready](Installer::ready).
    pub fn install(&mut self, jobs: Vec<Job>) {
        if let Some(queue) = &self.jobs
            && queue.send(jobs).is_ok()
        {
            self.waiting += 1;
        }
    }

    /// A batch is done.
    pub fn finished(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is of no use to anybody who drops this.
            let _ = thread.join();
        }
    }
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

fn work(socket: &Socket, queue: &Receiver<Vec<Job>>, done: &UnboundedSender<Done>) {
    while let Ok(jobs) = queue.recv() {
        let mut refused = Vec::new();
        for batch in jobs.chunks(BATCH) {
            if let Err(error) = write(socket, batch, &mut refused) {
                tracing::warn!(%error, routes = batch.len(), "cannot write routes to the kernel");
            }
        }
        if done
            .send(Done {
                count: jobs.len(),
                refused,
            })
            .is_err()
        {
            return;
        }
    }
}

/// Writes a batch, of which only the last is acknowledged: the kernel answers what it refuses.
fn write(socket: &Socket, jobs: &[Job], refused: &mut Vec<(IpNet, io::Error)>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(jobs.len() * 64);
    let mut last = 0;
    for (sequence, job) in (0u32..).zip(jobs) {
        last = bytes.len();
        message::put_route(&mut bytes, sequence, &job.prefix, job.hops.as_deref());
    }
    if bytes.is_empty() {
        return Ok(());
    }
    message::acknowledge(&mut bytes, last);
    socket.send(&bytes, 0)?;
    let final_sequence = u32::try_from(jobs.len() - 1).unwrap_or(u32::MAX);
    loop {
        let (answer, _) = socket.recv_from_full()?;
        for message in message::messages(&answer) {
            let Some(code) = message::error_number(&message) else {
                continue;
            };
            if let Some(job) = jobs.get(message.sequence as usize) {
                let gone = job.hops.is_none() && code == libc::ESRCH;
                if code != 0 && !gone {
                    refused.push((job.prefix, io::Error::from_raw_os_error(code)));
                }
            }
            if message.sequence == final_sequence {
                return Ok(());
            }
        }
    }
}

/// The routes of ours that are in the kernel.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn installed() -> io::Result<Vec<KernelRoute>> {
    let socket = open()?;
    let mut routes = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = message::dump(RTM_GETROUTE, family as u8, 12);
        each(&socket, &request, |message| {
            if message.kind == RTM_NEWROUTE {
                routes.extend(message::route(message.body));
            }
        })?;
    }
    Ok(routes)
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
