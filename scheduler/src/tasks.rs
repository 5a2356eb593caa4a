//! The scheduler's tasks and how they are wired.
//!
//! ```text
//!  watches (7) ──inputs──▶ ┌───────────┐ ──actions──▶ requests (at most max_binds)
//!                          │   loop    │                   │
//!   deadlines ───────────▶ │ (core)    │ ◀──Bound/NotBound─┘
//!                          └───────────┘ ──reports──▶ writer ──▶ events, conditions
//! ```
//!
//! The loop alone owns the core. It sleeps until an input, a binding's end or a deadline: an idle
//! cluster costs nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::core::input::Input;
use crate::core::preempt::Preemption;
use crate::core::queue::Pending;
use crate::core::scheduler::{Action, Novelty, Scheduler};
use crate::core::snapshot::PodKey;
use crate::core::volumes::{Bind, SELECTED_NODE};
use crate::error::Error;
use crate::metrics::{Metrics, Outcome};
use crate::reports::{Report, Reports};
use crate::requests::{self, Patch, split};
use crate::watches::{self, Message, WATCHES};

/// How many inputs may wait; watches stop reading beyond that.
const INBOX: usize = 4096;
/// How many inputs are taken note of between decisions.
const INPUTS_AT_ONCE: usize = 256;
/// How many decisions are made before inputs are looked at again.
const DECISIONS_AT_ONCE: usize = 32;

/// Schedules pods until told to stop.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let (sender, inbox) = mpsc::channel(INBOX);
    let mut tasks = JoinSet::new();
    watches::start(&client, &sender, &mut tasks);
    let (reports, writer) = Reports::new(
        client.clone(),
        &config.scheduler_name,
        config.metrics.clone(),
    );
    tasks.spawn(async move {
        writer.run().await;
        "writer"
    });
    let rng = StdRng::seed_from_u64(config.seed);
    let work = Loop {
        scheduler: Scheduler::new(&config.scheduler_name, rng),
        client,
        inbox,
        reports,
        metrics: config.metrics,
        requests: JoinSet::new(),
        max_binds: config.max_binds.max(1),
        unsynced: WATCHES,
        began: Instant::now(),
    };
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = tasks.join_next() => {
            Err(Error::TaskEnded(ended.unwrap_or("watch (it panicked)")))
        }
        () = work.run() => Err(Error::TaskEnded("inbox")),
    }
}

/// How a request ended.
struct Ended {
    outcome: Result<Done, Error>,
    /// What the core is told if it failed.
    otherwise: Option<Input>,
    took: Duration,
}

/// What succeeded.
enum Done {
    /// The pod is bound to the node.
    Bound(Arc<Pending>, Arc<str>),
    /// Something was written whose effect comes as an input.
    Noted,
}

struct Loop {
    scheduler: Scheduler<StdRng>,
    client: Client,
    inbox: mpsc::Receiver<Message>,
    reports: Reports,
    metrics: Metrics,
    requests: JoinSet<Ended>,
    max_binds: usize,
    /// How many watches have not yet said all; nothing is decided before.
    unsynced: usize,
    began: Instant,
}

impl Loop {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn may_decide(&self) -> bool {
        self.unsynced == 0 && self.requests.len() < self.max_binds
    }

    /// Runs until all watches are gone.
    async fn run(mut self) {
        let mut messages = Vec::with_capacity(INPUTS_AT_ONCE);
        loop {
            let more = self.decide();
            self.act().await;
            self.metrics.pending(self.scheduler.counts());
            if more {
                self.take_what_is_there();
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.deadline();
            tokio::select! {
                Some(ended) = self.requests.join_next() => self.ended(ended),
                count = self.inbox.recv_many(&mut messages, INPUTS_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    messages.drain(..).for_each(|message| self.take(message));
                }
                () = sleep_until(deadline) => {}
            }
            self.take_what_is_there();
        }
    }

    fn take_what_is_there(&mut self) {
        while let Some(ended) = self.requests.try_join_next() {
            self.ended(ended);
        }
        for _ in 0..INPUTS_AT_ONCE {
            match self.inbox.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => return,
            }
        }
    }

    /// When to go on if nothing happens. When no decision may be made, only something that happens
    /// can change that.
    fn deadline(&self) -> Option<Instant> {
        let deadline = self.scheduler.next_deadline()?;
        self.may_decide().then(|| self.began + deadline)
    }

    /// Makes some decisions. Returns whether there may be more to make.
    fn decide(&mut self) -> bool {
        self.scheduler.tick(self.now());
        for _ in 0..DECISIONS_AT_ONCE {
            if !self.may_decide() {
                return false;
            }
            let before = Instant::now();
            if !self.scheduler.step(self.now()) {
                return false;
            }
            self.metrics.decided(before.elapsed());
        }
        true
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Input(input) => self.scheduler.handle(input, self.now()),
            Message::Synced => {
                self.unsynced = self.unsynced.saturating_sub(1);
                if self.unsynced == 0 {
                    info!("the scheduler has seen the cluster and starts to decide");
                }
            }
        }
    }

    async fn act(&mut self) {
        for action in self.scheduler.take_actions() {
            match action {
                Action::BindPod(pod, node) => self.bind_pod(pod, node),
                Action::BindClaims(pod, node, binds) => self.bind_claims(pod, node, binds),
                Action::Unschedulable(pod, message, novelty) => {
                    debug!(pod = %pod.key, %message, "no node can take the pod");
                    self.metrics.attempt(Outcome::Unschedulable, Duration::ZERO);
                    self.reports
                        .event(Report::Failed(pod.clone(), message.clone()));
                    if novelty == Novelty::New {
                        let reports = &self.reports;
                        reports.condition(pod, "Unschedulable", message).await;
                    }
                }
                Action::Preempt(pod, preemption, disappointed) => {
                    self.preempt(pod, preemption, disappointed);
                }
                Action::Unnominate(pod) => self.write_nomination(pod.key.clone(), None),
                Action::Gated(pod) => {
                    let message = "Scheduling is blocked due to non-empty scheduling gates";
                    let reports = &self.reports;
                    reports
                        .condition(pod, "SchedulingGated", message.to_owned())
                        .await;
                }
            }
        }
    }

    fn bind_pod(&mut self, pod: Arc<Pending>, node: Arc<str>) {
        let client = self.client.clone();
        let otherwise = Some(Input::NotBound(pod.clone()));
        self.spawn(otherwise, async move {
            requests::bind(&client, &pod, &node).await?;
            Ok(Done::Bound(pod, node))
        });
    }

    fn bind_claims(&mut self, pod: Arc<Pending>, node: Arc<str>, binds: Vec<Bind>) {
        let client = self.client.clone();
        let otherwise = Some(Input::NotBound(pod.clone()));
        self.spawn(otherwise, async move {
            for bind in &binds {
                ask_for(&client, bind, &node).await?;
            }
            Ok(Done::Noted)
        });
    }

    /// Has the victims deleted, each apart, and writes the nominations down.
    fn preempt(&mut self, pod: Arc<Pending>, preemption: Preemption, disappointed: Vec<PodKey>) {
        let (node, victims) = (preemption.node, preemption.victims);
        info!(pod = %pod.key, %node, victims = victims.len(), "pods of lower priority make room");
        self.metrics.preempted(victims.len());
        for victim in victims {
            self.reports.event(Report::Preempted {
                victim: victim.clone(),
                by: pod.clone(),
                node: node.clone(),
            });
            let client = self.client.clone();
            let otherwise = Some(Input::NotPreempted(victim.0.clone()));
            let preemptor = pod.clone();
            self.spawn(otherwise, async move {
                requests::preempt(&client, &victim.0, &victim.1, &preemptor).await?;
                Ok(Done::Noted)
            });
        }
        for key in disappointed {
            self.write_nomination(key, None);
        }
        self.write_nomination(pod.key.clone(), Some(node));
    }

    fn write_nomination(&mut self, pod: PodKey, node: Option<Arc<str>>) {
        let client = self.client.clone();
        self.spawn(None, async move {
            let status = json!({"nominatedNodeName": node.as_deref()});
            requests::patch_status(&client, &pod, status).await?;
            Ok(Done::Noted)
        });
    }

    /// Starts a request; `otherwise` is what the core is told if it fails.
    fn spawn(
        &mut self,
        otherwise: Option<Input>,
        request: impl Future<Output = Result<Done, Error>> + Send + 'static,
    ) {
        let began = Instant::now();
        self.requests.spawn(async move {
            Ended {
                outcome: request.await,
                otherwise,
                took: began.elapsed(),
            }
        });
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        // Requests are never aborted; one that panicked has said so on stderr, and its pod is
        // taken up again when its watch or the scheduler restarts.
        let Ok(ended) = ended else {
            return;
        };
        let now = self.now();
        match (ended.outcome, ended.otherwise) {
            (Ok(Done::Bound(pod, node)), _) => {
                debug!(pod = %pod.key, %node, "bound");
                self.metrics.attempt(Outcome::Scheduled, ended.took);
                self.scheduler.handle(Input::Bound(pod.clone()), now);
                self.reports.event(Report::Scheduled(pod, node));
            }
            (Ok(Done::Noted), _) => {}
            (Err(error), otherwise) => {
                warn!(%error, "a request failed; what it was for is tried again");
                self.metrics.attempt(Outcome::Error, ended.took);
                if let Some(input) = otherwise {
                    self.scheduler.handle(input, now);
                }
            }
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Asks the binder to bind a claim: to this volume, or to one to be made on this node.
async fn ask_for(client: &Client, bind: &Bind, node: &str) -> Result<(), Error> {
    match bind {
        Bind::To { claim, volume } => {
            let (namespace, name) = split(claim);
            let path = format!("/api/v1/persistentvolumes/{volume}");
            let what = format!("give volume {volume} to claim {claim}");
            let body = json!({"spec": {"claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": name,
            }}});
            requests::patch(client, &what, &path, Patch::Merge, &body).await
        }
        Bind::Provision { claim } => {
            let (namespace, name) = split(claim);
            let path = format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}");
            let what = format!("ask for a volume of claim {claim} on {node}");
            let body = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            requests::patch(client, &what, &path, Patch::Merge, &body).await
        }
    }
}
