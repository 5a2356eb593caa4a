//! The kernel's routes kept as the speaker wants them, whatever happens to them.
//!
//! What changes is written at once. What may have been lost is looked at: after a link changed,
//! after somebody else touched our routes, after the kernel refused some, and when an operator
//! asks. Nothing is believed to be installed because it was written once.

mod audit;
mod trouble;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use peapod_bgp::Speaker;
use peapod_bgp::rib::{Gateway, NextHops};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

pub use self::audit::Audit;
use self::trouble::{PATIENCE, Trouble};
use super::links::Links;
use super::reach::{Moved, Reach};
use super::routes::{BATCH, Done, Hop, Installer, Job, installed, needs_link};

/// How long routes of before stay after the speaker has made its choice.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Routes of which it is remembered that others touched them, or that the kernel refused them;
/// when there are more, everything is looked at.
const REMEMBERED: usize = 4096;
/// Refusals that are shown, at most.
const SHOWN: usize = 4;

/// Is told what can be measured of the kernel's routes.
pub trait Meter: std::fmt::Debug + Send + Sync {
    /// Routes are in the kernel that a neighbour's message has changed, so long after it came.
    fn converged(&self, took: Duration);
    /// The kernel's routes were compared with those that should be there.
    fn audited(&self, audit: &Audit);
}

/// Measures nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn converged(&self, _: Duration) {}
    fn audited(&self, _: &Audit) {}
}

/// What the kernel refused and is asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// So many routes, 4,096 at most.
    pub count: usize,
    /// Some of them, with why.
    pub some: Vec<(IpNet, String)>,
}

/// The kernel's routes.
#[derive(Debug)]
pub struct Fib {
    installer: Installer,
    /// The ways to next hops that are on no link.
    reach: Reach,
    /// Routes of a router before us that nothing was said of yet.
    leftover: BTreeSet<IpNet>,
    /// When what is still left over goes; known once everybody could have had their say.
    leftover_until: Option<Instant>,
    /// What the kernel refused, and why.
    refused: BTreeMap<IpNet, io::Error>,
    /// What it is asked for once more; refused until it says otherwise.
    retried: BTreeMap<IpNet, io::Error>,
    /// Since when a change is known of which the kernel was not told yet.
    heard_at: Option<Instant>,
    /// The same of each batch that is being written.
    batches: VecDeque<Option<Instant>>,
    meter: Arc<dyn Meter>,
    /// What others touched.
    touched: BTreeSet<IpNet>,
    /// Everything is to be looked at.
    audit_wanted: bool,
    /// When to see to what is wrong.
    due: Option<Instant>,
    trouble: Trouble,
    last: Option<Audit>,
    asked: Vec<oneshot::Sender<Audit>>,
}

// === impl Fib ===

impl Fib {
    /// Starts installing. What became of it comes back through `done`, to be
    /// [given here](Fib::done).
    ///
    /// # Errors
    /// If the kernel's routes cannot be read.
    pub fn start(
        sources: Vec<IpAddr>,
        done: UnboundedSender<Done>,
        meter: Arc<dyn Meter>,
    ) -> io::Result<Self> {
        Ok(Fib {
            retried: BTreeMap::new(),
            heard_at: None,
            batches: VecDeque::new(),
            meter,
            leftover: installed()?.into_iter().map(|route| route.prefix).collect(),
            leftover_until: None,
            installer: Installer::start(sources, done)?,
            reach: Reach::new()?,
            refused: BTreeMap::new(),
            touched: BTreeSet::new(),
            audit_wanted: false,
            due: None,
            trouble: Trouble::default(),
            last: None,
            asked: Vec::new(),
        })
    }

    /// How many routes a router before us has left.
    pub fn leftover(&self) -> usize {
        self.leftover.len()
    }

    /// The netlink port that routes are written from.
    pub fn port(&self) -> u32 {
        self.installer.port()
    }

    /// Why the kernel does not have a route.
    pub fn refusal(&self, prefix: &IpNet) -> Option<&io::Error> {
        self.refused
            .get(prefix)
            .or_else(|| self.retried.get(prefix))
    }

    /// What the kernel refuses.
    pub fn refusals(&self) -> Refusals {
        let all = self.refused.iter().chain(&self.retried);
        Refusals {
            count: self.refused.len() + self.retried.len(),
            some: all
                .take(SHOWN)
                .map(|(prefix, error)| (*prefix, error.to_string()))
                .collect(),
        }
    }

    /// A neighbour's message is about to be looked at.
    pub fn heard_something(&mut self) {
        self.heard_at.get_or_insert_with(Instant::now);
    }

    /// When [`Fib::tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let leftover = self.leftover_until.filter(|_| !self.leftover.is_empty());
        let times = [self.due, leftover, self.reach.deadline()];
        times.into_iter().flatten().min()
    }

    /// Follows the way to a next hop; what it costs.
    pub fn follow(&mut self, address: IpAddr) -> Option<u32> {
        self.reach.follow(address)
    }

    /// The ways to next hops that are on no link may be others now.
    pub fn doubt_ways(&mut self) {
        self.reach.doubt();
    }

    /// Those that are others, if it is time to look; routes over them are to be written again.
    pub fn moved(&mut self, speaker: &Speaker) -> Vec<Moved> {
        let moved = self.reach.look_again(|| speaker.resolved().collect());
        if !moved.is_empty() {
            self.look_soon();
        }
        moved
    }

    /// Gives the kernel what changed, as fast as it takes it.
    pub fn install(&mut self, speaker: &mut Speaker, links: &Links) {
        while self.installer.ready() && speaker.has_changes() {
            let changes = speaker.take_changes(BATCH);
            let mut jobs = Vec::with_capacity(changes.len());
            for change in changes {
                if !self.leftover.is_empty() {
                    self.leftover.remove(&change.prefix);
                }
                if let Some(error) = self.refused.remove(&change.prefix) {
                    self.retried.insert(change.prefix, error);
                }
                let hops = change
                    .next_hops
                    .as_deref()
                    .map(|wanted| hops(wanted, links, &self.reach));
                jobs.push(Job {
                    prefix: change.prefix,
                    hops: hops.filter(|hops| !hops.is_empty()),
                });
            }
            self.installer.install(jobs);
            self.batches.push_back(self.heard_at);
        }
        if !speaker.has_changes() {
            self.heard_at = None;
        }
        self.remove_leftover(speaker);
    }

    /// After a restart: what nobody announces any more goes, once all have had their say.
    fn remove_leftover(&mut self, speaker: &Speaker) {
        let ready = self.installer.ready() && !speaker.has_changes() && !speaker.deferring();
        if self.leftover.is_empty() || !ready {
            return;
        }
        let now = Instant::now();
        // A neighbour that takes no part in graceful restart is not waited for by the speaker, and
        // may still be about to say the same as before.
        if now < *self.leftover_until.get_or_insert(now + LEFTOVER_PATIENCE) {
            return;
        }
        let gone = std::mem::take(&mut self.leftover);
        tracing::info!(
            routes = gone.len(),
            "removing routes of before that nobody announces"
        );
        let jobs = gone.into_iter().map(|prefix| Job { prefix, hops: None });
        self.installer.install(jobs.collect());
        self.batches.push_back(None);
        self.look_soon();
    }

    /// Something was done.
    pub fn done(&mut self, done: Done, speaker: &mut Speaker, links: &Links) {
        self.installer.finished();
        match done {
            Done::Written { refused } => {
                if let Some(heard_at) = self.batches.pop_front().flatten() {
                    self.meter.converged(heard_at.elapsed());
                }
                if self.batches.is_empty() {
                    self.retried.clear();
                }
                self.note_refused(refused);
            }
            Done::Read(Ok(kernel)) => self.compare(&kernel, speaker, links),
            Done::Read(Err(error)) => {
                tracing::warn!(%error, "cannot read the kernel's routes");
                self.audit_wanted = true;
                self.due = Some(Instant::now() + PATIENCE[1]);
            }
        }
        self.install(speaker, links);
    }

    fn note_refused(&mut self, refused: Vec<(IpNet, io::Error)>) {
        if let Some((prefix, error)) = refused.first() {
            let routes = refused.len();
            tracing::warn!(routes, %prefix, %error, "the kernel refused routes, this one first");
            let now = Instant::now();
            let again = now + self.trouble.next(now);
            self.due.get_or_insert(again);
        }
        for (prefix, error) in refused {
            if self.refused.len() < REMEMBERED {
                self.refused.insert(prefix, error);
            } else {
                self.audit_wanted = true;
            }
        }
    }

    /// A link changed: with it go the routes over it, whoever wants them, and what was refused
    /// may be possible now.
    pub fn link_changed(&mut self, index: Option<u32>) {
        index
            .into_iter()
            .for_each(|index| self.installer.link_changed(index));
        self.look_soon();
    }

    /// A next hop cannot be reached any more: all routes over it are led around it before the
    /// speaker has gone through them one by one.
    pub fn fail(&mut self, gateway: IpAddr, interface: Option<&str>, links: &Links) {
        let link = interface.and_then(|name| links.index(name));
        self.installer.fail(Hop { gateway, link });
        // Others may be wanted over it still.
        self.look_soon();
    }
}

/// Next hops as the kernel knows them, in order, each once; those over links that are gone are left
/// out. Of one that is on no link it is the router on the way to it.
fn hops(next_hops: &NextHops, links: &Links, reach: &Reach) -> Vec<Hop> {
    let hop = |gateway: &Gateway| {
        if gateway.interface.is_none()
            && let Some(hop) = reach.hop(gateway.address)
        {
            return Some(hop);
        }
        let link = gateway
            .interface
            .as_deref()
            .and_then(|name| links.index(name));
        (link.is_some() || !needs_link(gateway.address)).then_some(Hop {
            gateway: gateway.address,
            link,
        })
    };
    let mut hops: Vec<Hop> = next_hops.iter().filter_map(hop).collect();
    hops.sort_unstable();
    hops.dedup();
    hops
}
