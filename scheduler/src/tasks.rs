//! The scheduler's tasks and how they are wired.
//!
//! ```text
//!  watches (6) ──inputs──▶ ┌───────────┐ ──actions──▶ bindings (at most max_binds)
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
        bindings: JoinSet::new(),
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

/// How a binding ended.
struct Ended {
    key: PodKey,
    outcome: Result<Done, Error>,
    took: Duration,
}

/// What succeeded.
enum Done {
    Pod(Arc<Pending>, Arc<str>),
    ClaimsAsked,
}

struct Loop {
    scheduler: Scheduler<StdRng>,
    client: Client,
    inbox: mpsc::Receiver<Message>,
    reports: Reports,
    metrics: Metrics,
    bindings: JoinSet<Ended>,
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
        self.unsynced == 0 && self.bindings.len() < self.max_binds
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
                Some(ended) = self.bindings.join_next() => self.ended(ended),
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
        while let Some(ended) = self.bindings.try_join_next() {
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
        let (client, began) = (self.client.clone(), Instant::now());
        self.bindings.spawn(async move {
            let bound = requests::bind(&client, &pod, &node).await;
            Ended {
                key: pod.key.clone(),
                outcome: bound.map(|()| Done::Pod(pod, node)),
                took: began.elapsed(),
            }
        });
    }

    fn bind_claims(&mut self, pod: Arc<Pending>, node: Arc<str>, binds: Vec<Bind>) {
        let (client, began) = (self.client.clone(), Instant::now());
        self.bindings.spawn(async move {
            let mut outcome = Ok(Done::ClaimsAsked);
            for bind in &binds {
                if let Err(error) = ask_for(&client, bind, &node).await {
                    outcome = Err(error);
                    break;
                }
            }
            Ended {
                key: pod.key.clone(),
                outcome,
                took: began.elapsed(),
            }
        });
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        // Bindings are never aborted; one that panicked has said so on stderr, and its pod is
        // taken up again when its watch or the scheduler restarts.
        let Ok(ended) = ended else {
            return;
        };
        let now = self.now();
        match ended.outcome {
            Ok(Done::Pod(pod, node)) => {
                debug!(pod = %pod.key, %node, "bound");
                self.metrics.attempt(Outcome::Scheduled, ended.took);
                self.scheduler.handle(Input::Bound(ended.key), now);
                self.reports.event(Report::Scheduled(pod, node));
            }
            Ok(Done::ClaimsAsked) => {}
            Err(error) => {
                warn!(pod = %ended.key, %error, "the pod is tried again");
                self.metrics.attempt(Outcome::Error, ended.took);
                self.scheduler.handle(Input::NotBound(ended.key), now);
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
