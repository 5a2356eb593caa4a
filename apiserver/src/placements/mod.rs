//! Placements: where each pod has been, recorded from the store's events, kept in a log of their
//! own, served as `net.peapod.dev/v1 placements`.
//!
//! The objects of the store are what is; placements are what was. So they do not lie among the
//! objects: they outlive them, they are many, and nobody changes them. With one API server, it
//! records. Where several serve one store, each records what it sees, from its start on.
//!
//! - [`facts`]: what counts of an object. [`recorder`]: the pure core.
//! - [`segment`], [`index`], [`log`]: files, memory, and both together.
//! - [`serve`], [`follow`]: the API.

pub mod facts;
mod follow;
pub mod index;
pub mod log;
pub mod recorder;
pub mod segment;
pub mod serve;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use peapod_store::{EventKind, Interest, Resource as Range, Revision, Scope, Watch};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::storage::{Entry, Meta, Store};
use facts::{NodeFacts, Owner, PodFacts};
use log::{Limits, Log, LogError};
use recorder::{Event, Kept, Recorder};

/// Most events that are taken in before what they lead to is written.
const BATCH: usize = 1000;
/// How often what is too old is forgotten.
const RETIRE_EVERY: Duration = Duration::from_secs(600);
/// How long after a failed write the next is tried.
const RETRY: Duration = Duration::from_secs(5);

/// The placements of a cluster.
#[derive(Clone)]
pub struct Placements {
    log: Arc<Mutex<Log>>,
    /// The newest change that is on disk.
    newest: watch::Receiver<u32>,
    _recording: Arc<AbortOnDropHandle<()>>,
}

/// The three kinds that tell where pods are.
struct Ranges {
    pods: Range,
    nodes: Range,
    bgp_nodes: Range,
}

/// What follows the store.
struct Watches {
    pods: Watch<Meta>,
    nodes: Watch<Meta>,
    bgp_nodes: Watch<Meta>,
}

/// The recording task.
struct Recording {
    store: Store,
    ranges: Ranges,
    recorder: Recorder,
    log: Arc<Mutex<Log>>,
    newest: watch::Sender<u32>,
    /// Changes that are not on disk yet, with the revision that led to each.
    unwritten: Vec<(Kept, u64)>,
}

// === impl Placements ===

impl Placements {
    /// Opens the log in a directory, and records from the store's events.
    pub async fn start(store: Store, dir: &Path) -> Result<Self, LogError> {
        let dir = dir.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let mut log = Log::open(&dir, Limits::default())?;
            log.retire(now_seconds())?;
            let open = log.open_placements()?;
            Ok::<_, LogError>((log, open))
        });
        let opened = opening.await;
        let (log, open) =
            opened.unwrap_or_else(|fault| std::panic::resume_unwind(fault.into_panic()))?;
        let recorder = Recorder::restore(open, log.last_id());
        tracing::info!(
            placements = log.index().len(),
            open = recorder.open(),
            bytes = log.bytes(),
            "the log of placements is open"
        );
        let (sender, newest) = watch::channel(log.seq());
        let log = Arc::new(Mutex::new(log));
        let recording = Recording {
            store,
            ranges: Ranges::new(),
            recorder,
            log: log.clone(),
            newest: sender,
            unwritten: Vec::new(),
        };
        Ok(Self {
            log,
            newest,
            _recording: Arc::new(AbortOnDropHandle::new(tokio::spawn(recording.run()))),
        })
    }
}

// === impl Ranges ===

impl Ranges {
    fn new() -> Self {
        let range = |group, plural| {
            Range::new(group, plural).expect("the names are not empty and have no slash")
        };
        Self {
            pods: range("core", "pods"),
            nodes: range("core", "nodes"),
            bgp_nodes: range(peapod_api::net::GROUP, "bgpnodes"),
        }
    }
}

// === impl Recording ===

impl Recording {
    async fn run(mut self) {
        let mut retire = tokio::time::interval(RETIRE_EVERY);
        retire.reset();
        let mut resume = Some(self.log.lock().revision());
        loop {
            let Some(mut watches) = self.begin(resume.take()).await else {
                return;
            };
            self.recorder.caught_up();
            while self.follow(&mut watches, &mut retire).await.is_some() {}
            if self.store_is_closed() {
                return;
            }
            tracing::warn!("the recorder of placements fell behind; it compares anew");
        }
    }

    fn store_is_closed(&self) -> bool {
        let interest = Interest::new(self.ranges.pods.clone());
        self.store.watch(interest, self.store.revision()).is_err()
    }

    /// Catches up with the store: by its events since a revision where it still has them, else by
    /// what is there now. `None` when the store is closed.
    async fn begin(&mut self, resume: Option<u64>) -> Option<Watches> {
        let now = Timestamp::now();
        let nodes = self.store.snapshot(&self.ranges.nodes);
        let bgp_nodes = self.store.snapshot(&self.ranges.bgp_nodes);
        let pods = self.store.snapshot(&self.ranges.pods);
        for entry in nodes.range(Scope::All, None) {
            self.node(entry, EventKind::Put, now, 0);
        }
        for entry in bgp_nodes.range(Scope::All, None) {
            self.bgp_node(entry, EventKind::Put, now, 0);
        }
        let watch = |range: &Range, from| self.store.watch(Interest::new(range.clone()), from);
        // Events of the revision that was written last may be missing.
        let last = resume.filter(|revision| *revision > 0 && *revision <= self.store.revision().0);
        let since = last.map(|revision| Revision(revision - 1));
        let resumed = since.and_then(|since| watch(&self.ranges.pods, since).ok());
        let watches = Watches {
            nodes: watch(&self.ranges.nodes, nodes.revision()).ok()?,
            bgp_nodes: watch(&self.ranges.bgp_nodes, bgp_nodes.revision()).ok()?,
            pods: match resumed {
                Some(watch) => watch,
                None => {
                    let follows = watch(&self.ranges.pods, pods.revision()).ok()?;
                    self.compare(pods.range(Scope::All, None), now, pods.revision().0);
                    follows
                }
            },
        };
        self.write().await;
        Some(watches)
    }

    fn compare<'a>(
        &mut self,
        pods: impl Iterator<Item = &'a Entry>,
        now: Timestamp,
        revision: u64,
    ) {
        let mut present = BTreeSet::new();
        for entry in pods {
            present.insert(entry.meta.uid.to_string());
            self.pod(entry, EventKind::Put, now, revision);
        }
        self.take(Event::Present(present), now, revision);
    }

    /// Takes in what is ready, at least one event, and writes what it leads to. `None` when the
    /// watches have to begin anew.
    async fn follow(
        &mut self,
        watches: &mut Watches,
        retire: &mut tokio::time::Interval,
    ) -> Option<()> {
        let deadline = self.recorder.deadline().map(|at| {
            let left = at.duration_since(Timestamp::now());
            left.try_into().unwrap_or(Duration::ZERO)
        });
        let due = deadline.unwrap_or(RETIRE_EVERY);
        tokio::select! {
            // Nodes first: pods refer to them.
            biased;
            event = watches.nodes.next() => self.event(event.ok()?, Self::node),
            event = watches.bgp_nodes.next() => self.event(event.ok()?, Self::bgp_node),
            event = watches.pods.next() => self.event(event.ok()?, Self::pod),
            () = tokio::time::sleep(due), if deadline.is_some() => {
                self.take(Event::Tick, Timestamp::now(), 0);
            }
            _ = retire.tick() => self.retire().await,
        }
        for _ in 0..BATCH {
            if let Some(event) = watches.nodes.next().now_or_never() {
                self.event(event.ok()?, Self::node);
            } else if let Some(event) = watches.pods.next().now_or_never() {
                self.event(event.ok()?, Self::pod);
            } else {
                break;
            }
        }
        self.write().await;
        Some(())
    }

    fn event(
        &mut self,
        event: Arc<peapod_store::Event<Meta>>,
        take: impl FnOnce(&mut Self, &Entry, EventKind, Timestamp, u64),
    ) {
        let at = Timestamp::try_from(event.time).unwrap_or_else(|_| Timestamp::now());
        take(self, &event.entry, event.kind, at, event.revision.0);
    }

    fn pod(&mut self, entry: &Entry, kind: EventKind, at: Timestamp, revision: u64) {
        let store = &self.store;
        // The recorder knows the workload of who is there already.
        let known = self.recorder.has(&entry.meta.uid);
        let owner_of = |namespace: &str, owner: &Owner| {
            if known {
                return None;
            }
            let (group, plural) = match owner.kind.as_str() {
                "Job" => ("batch", "jobs"),
                _ => ("apps", "replicasets"),
            };
            let key = Range::new(group, plural)
                .ok()?
                .key(namespace, &owner.name)
                .ok()?;
            facts::owner(&store.get(&key)?.value)
        };
        match PodFacts::read(&entry.value, owner_of) {
            Ok(pod) if kind == EventKind::Delete => self.take(Event::PodGone(pod), at, revision),
            Ok(pod) => self.take(Event::Pod(pod), at, revision),
            Err(fault) => unreadable(entry, &fault),
        }
    }

    fn node(&mut self, entry: &Entry, kind: EventKind, at: Timestamp, revision: u64) {
        let event = match kind {
            EventKind::Delete => Ok(Event::NodeGone(entry.key.name().to_owned())),
            EventKind::Put => NodeFacts::read(&entry.value).map(Event::Node),
        };
        match event {
            Ok(event) => self.take(event, at, revision),
            Err(fault) => unreadable(entry, &fault),
        }
    }

    fn bgp_node(&mut self, entry: &Entry, kind: EventKind, at: Timestamp, revision: u64) {
        let leaves = match kind {
            EventKind::Delete => Ok((entry.key.name().to_owned(), Vec::new())),
            EventKind::Put => facts::leaves(&entry.value),
        };
        match leaves {
            Ok((node, leaves)) => self.take(Event::Leaves(node, leaves), at, revision),
            Err(fault) => unreadable(entry, &fault),
        }
    }

    fn take(&mut self, event: Event, at: Timestamp, revision: u64) {
        let changes = self.recorder.take(event, at);
        let changes = changes.into_iter().map(|kept| (kept, revision));
        self.unwritten.extend(changes);
    }

    /// Writes what is unwritten, and tries again until it is: what was acknowledged to nobody may
    /// wait, and the store's events wait with it.
    async fn write(&mut self) {
        while !self.unwritten.is_empty() {
            let log = self.log.clone();
            let changes = self.unwritten.clone();
            let written = tokio::task::spawn_blocking(move || {
                let mut log = log.lock();
                log.append(changes)?;
                Ok::<_, LogError>(log.seq())
            });
            match written.await {
                Ok(Ok(seq)) => {
                    self.unwritten.clear();
                    self.newest.send_replace(seq);
                }
                Ok(Err(fault)) => {
                    tracing::warn!(%fault, "placements wait to be written");
                    tokio::time::sleep(RETRY).await;
                }
                // The runtime stops.
                Err(_) => return,
            }
        }
    }

    async fn retire(&self) {
        let log = self.log.clone();
        let retired = tokio::task::spawn_blocking(move || log.lock().retire(now_seconds())).await;
        if let Ok(Err(fault)) = retired {
            tracing::warn!(%fault, "old placements stay for now");
        }
    }
}

fn unreadable(entry: &Entry, fault: &serde_json::Error) {
    tracing::warn!(key = %entry.key, %fault, "an object has no readable place");
}

fn now_seconds() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| {
        u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
    })
}
