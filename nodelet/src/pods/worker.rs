//! The worker of one pod: one task that feeds the pod's machine, has its actions carried out,
//! and reports its status.
//!
//! ```text
//!   manager ──Message──► ┌────────┐ ──Action──► a task each ──Event──┐
//!   references change ─► │ worker │ ◄────────────────────────────────┘
//!   timer ─────────────► │(machine)│ ──status──► at most one request to the API at a time
//!                        └────────┘
//! ```
//!
//! Status writes coalesce: while one is on its way, newer states replace each other; and while the pod
//! is being started, for a moment, so that a quick start is told once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::k8s_openapi;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::last_words::last_words;
use super::report::{self, Reported};
use super::same_status::same;
use super::{Context, Entry, actions, observe};
use crate::core::{Action, Event, Eviction, Exit, Machine, Observed};
use crate::objects::Changes;
use crate::static_pods::manifest;

/// Messages that may wait for a worker; it never does anything long itself.
pub const INBOX_MAX: usize = 64;
/// First and longest wait after a failed request to the API.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long a status may wait for what is being started.
const HOLD: Duration = Duration::from_millis(100);

/// What the manager hands to a worker.
#[derive(Debug)]
pub enum Message {
    /// The pod has changed.
    Desired(Arc<Pod>),
    /// The API has the pod no longer.
    Gone,
    /// The API has the copy of this static pod no longer.
    MirrorGone,
    /// The manifest of this static pod is gone.
    Retired,
    /// The node cannot keep the pod.
    Evict(Eviction),
    /// A container ended.
    Exited(Exit),
    /// All containers of the pod as they were at a time, after a gap.
    Reconciled(Vec<Observed>, Timestamp),
}

/// What a task of the worker ends in.
enum Done {
    Event(Event),
    Nothing,
    Written(Box<PodStatus>, Reported),
    Deleted(Reported),
}

/// One worker.
pub struct Worker {
    context: Arc<Context>,
    entry: Arc<Entry>,
    inbox: mpsc::Receiver<Message>,
    tasks: JoinSet<Done>,
    changes: Changes,
    room: watch::Receiver<()>,
    written: Option<PodStatus>,
    writing: bool,
    deleted: bool,
    failures: u32,
    retry_at: Option<Instant>,
    /// Until when the status that differs from the one written waits.
    hold_until: Option<Instant>,
    gone: bool,
}

impl Worker {
    /// A worker for a pod.
    pub fn new(context: Arc<Context>, entry: Arc<Entry>, inbox: mpsc::Receiver<Message>) -> Self {
        let changes = entry.references.lock().changes();
        let written = entry.pod().status.clone();
        Self {
            room: context.room.subscribe(),
            context,
            entry,
            inbox,
            tasks: JoinSet::new(),
            changes,
            written,
            writing: false,
            deleted: false,
            failures: 0,
            retry_at: None,
            hold_until: None,
            gone: false,
        }
    }

    /// Runs until nothing of the pod is left, here and in the API.
    pub async fn run(mut self, first: Vec<Action>) {
        self.perform(first);
        while !self.over() {
            self.report();
            let wake = self.next_wake();
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.receive(message),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => self.done(done).await,
                () = self.changes.next() => self.feed(Event::DependencyChanged),
                Ok(()) = self.room.changed() => {
                    if self.entry.machine.lock().awaits_room() {
                        self.feed(Event::RoomChanged);
                    }
                }
                () = sleep_until(wake) => self.feed(Event::Tick),
            }
        }
    }

    fn over(&self) -> bool {
        self.gone && self.entry.machine.lock().finished() && self.tasks.is_empty()
    }

    /// When to look again, by the machine's clock or for a failed request.
    fn next_wake(&self) -> Option<Instant> {
        let machine = self.entry.machine.lock().wake_at().map(instant);
        let all = [machine, self.retry_at, self.hold_until];
        all.into_iter().flatten().min()
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Desired(pod) => {
                let relabelled = self.relabelled(&pod);
                self.follow_references(&pod);
                self.feed(Event::Desired(pod));
                if relabelled {
                    self.feed(Event::DependencyChanged);
                }
            }
            Message::Gone => {
                self.gone = true;
                self.feed(Event::Gone);
            }
            Message::MirrorGone => self.written = None,
            Message::Retired => self.retire(),
            Message::Evict(eviction) => self.feed(Event::Evicted(eviction)),
            Message::Exited(exit) => self.ended(exit),
            Message::Reconciled(observed, as_of) => {
                self.feed(Event::Reconciled { observed, as_of });
            }
        }
    }

    /// Ends a static pod as the API's deletion ends another.
    fn retire(&mut self) {
        let mut pod = Pod::clone(&self.entry.pod());
        if pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
        self.feed(Event::Desired(Arc::new(pod)));
    }

    /// Whether what the downward API shows has changed.
    fn relabelled(&self, pod: &Pod) -> bool {
        let before = self.entry.pod();
        let (old, new) = (&before.metadata, &pod.metadata);
        old.labels != new.labels || old.annotations != new.annotations
    }

    /// A changed spec may refer to more (an ephemeral container, for example).
    fn follow_references(&mut self, pod: &Pod) {
        if self.entry.pod().spec == pod.spec {
            return;
        }
        let references = Arc::new(self.context.objects.references(pod));
        self.changes = references.changes();
        *self.entry.references.lock() = references;
    }

    fn feed(&mut self, event: Event) {
        tracing::trace!(pod = %self.entry.uid, ?event, "event");
        let resized = matches!(event, Event::Resized { settled: true, .. });
        let (actions, left) = {
            let mut machine = self.entry.machine.lock();
            let held = machine.occupies();
            let actions = machine.handle(event, Timestamp::now());
            (actions, held && !machine.occupies())
        };
        if resized || left {
            self.context.room.send_replace(());
        }
        self.entry.stepped.send_replace(());
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            tracing::trace!(pod = %self.entry.uid, ?action, "action");
            match action {
                Action::Record(note) => self.context.notes.about_pod(&self.entry.pod(), note),
                // Reported like a status, once there is no newer one.
                Action::Finish => {}
                action => {
                    let (context, entry) = (self.context.clone(), self.entry.clone());
                    self.tasks.spawn(async move {
                        let event = actions::carry_out(context, entry, action).await;
                        event.map_or(Done::Nothing, Done::Event)
                    });
                }
            }
        }
    }

    async fn done(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Event(event)) => self.feed(event),
            Ok(Done::Nothing) => {}
            Ok(Done::Written(status, reported)) => {
                self.writing = false;
                match reported {
                    Reported::Failed(error) => self.retry("write the status", &error),
                    Reported::Done | Reported::PodGone => {
                        self.written = Some(*status);
                        self.failures = 0;
                    }
                }
            }
            Ok(Done::Deleted(reported)) => {
                self.writing = false;
                match reported {
                    Reported::Failed(error) => self.retry("remove the pod", &error),
                    Reported::Done | Reported::PodGone => {
                        self.deleted = true;
                        // Nobody tells of the end of what the API never had.
                        self.gone |= manifest::is_static(&self.entry.pod());
                    }
                }
            }
            Err(error) => {
                tracing::error!(pod = %self.entry.uid, %error, "an action broke off; starting over");
                self.rebuild().await;
            }
        }
    }

    /// Builds the machine again from what is, as after a restart of the agent.
    async fn rebuild(&mut self) {
        let containers = self.context.runtime.containers().await.unwrap_or_default();
        let observed = observe::by_pod(&containers)
            .remove(&self.entry.uid)
            .unwrap_or_default();
        let mut pod = Pod::clone(&self.entry.pod());
        pod.status = Some(
            self.entry
                .machine
                .lock()
                .status(&self.context.config.node_ips),
        );
        let (machine, actions) = Machine::recover(Arc::new(pod), &observed, Timestamp::now());
        *self.entry.machine.lock() = machine;
        self.perform(actions);
    }

    /// A container ended: what it left to say is read before the machine hears of it.
    fn ended(&mut self, exit: Exit) {
        let (context, entry) = (self.context.clone(), self.entry.clone());
        self.tasks.spawn(async move {
            Done::Event(Event::Exited(last_words(context, entry, exit).await))
        });
    }

    // === reports ===

    /// Brings the API up to date, if it is not and no request is on its way.
    fn report(&mut self) {
        let held = self.hold_until.take();
        if self.writing || self.gone || self.deleted {
            return;
        }
        if self.retry_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.retry_at = None;
        let (status, finished, starting) = {
            let machine = self.entry.machine.lock();
            (
                machine.status(&self.context.config.node_ips),
                machine.finished(),
                machine.starting(),
            )
        };
        let (context, pod) = (self.context.clone(), self.entry.pod());
        let entry = self.entry.clone();
        let known = self.written.as_ref();
        let news = known.is_none_or(|written| !same(written, &status));
        if news {
            let until = held.unwrap_or_else(|| Instant::now() + HOLD);
            if starting && Instant::now() < until {
                self.hold_until = Some(until);
                return;
            }
            self.writing = true;
            let old = self.written.clone();
            self.tasks.spawn(async move {
                let _permit = context.limits.reports.acquire().await;
                let report = report::status(&context.client, &pod, old.as_ref(), &status);
                let reported = entry.timing.of("report", "", report).await;
                Done::Written(Box::new(status), reported)
            });
        } else if finished {
            self.writing = true;
            self.tasks.spawn(async move {
                let _permit = context.limits.reports.acquire().await;
                Done::Deleted(report::delete(&context.client, &pod).await)
            });
        }
    }

    fn retry(&mut self, what: &str, error: &kube::Error) {
        let wait = RETRY.0 * 2_u32.pow(self.failures.min(6));
        self.failures += 1;
        self.retry_at = Some(Instant::now() + wait.min(RETRY.1));
        tracing::debug!(pod = %self.entry.uid, %error, "cannot {what}; trying again");
    }
}

fn instant(at: Timestamp) -> Instant {
    let left = at.duration_since(Timestamp::now());
    Instant::now() + Duration::try_from(left).unwrap_or_default()
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
