//! What the scheduler says about pods: events and the `PodScheduled` condition.
//!
//! Events are a courtesy: when too many wait to be written, new ones are dropped and counted.
//! Conditions are state: they wait for room.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use peapod_api::events::{Correlator, Occurrence};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use crate::core::queue::Pending;
use crate::core::snapshot::PodKey;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::requests::{self, Patch, now, split};

/// How many reports may wait: the pods of a large Deployment, bound faster than events are written.
const WAITING: usize = 16_384;
/// How many are written at once.
const AT_ONCE: usize = 32;
/// How many events are remembered so that a repetition counts up instead of adding another.
const REMEMBERED: usize = 4096;

/// Something said of a pod.
#[derive(Clone, Debug)]
pub enum Report {
    /// The pod was bound to this node.
    Scheduled(Arc<Pending>, Arc<str>),
    /// No node can take it.
    Failed(Arc<Pending>, String),
    /// The pod with this name and uid goes, for the sake of another, from this node.
    Preempted {
        /// Who goes.
        victim: (PodKey, Arc<str>),
        /// For whom.
        by: Arc<Pending>,
        /// From where.
        node: Arc<str>,
    },
    /// Its condition `PodScheduled` is false, for this reason and with this message.
    Condition(Arc<Pending>, &'static str, String),
}

/// Where reports go in.
#[derive(Clone, Debug)]
pub struct Reports {
    queue: mpsc::Sender<Report>,
    metrics: Metrics,
}

/// Writes the reports.
pub struct Writer {
    client: Client,
    component: String,
    queue: mpsc::Receiver<Report>,
    remembered: Correlator,
}

// === impl Reports ===

impl Reports {
    /// The way in, and the writer to be run.
    pub fn new(client: Client, component: &str, metrics: Metrics) -> (Self, Writer) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let writer = Writer {
            client,
            component: component.to_owned(),
            queue: receiver,
            remembered: Correlator::new(REMEMBERED),
        };
        let queue = sender;
        (Self { queue, metrics }, writer)
    }

    /// Writes an event when there is room.
    pub fn event(&self, report: Report) {
        if self.queue.try_send(report).is_err() {
            self.metrics.event_dropped();
        }
    }

    /// Writes a condition; waits for room.
    pub async fn condition(&self, pod: Arc<Pending>, reason: &'static str, message: String) {
        let report = Report::Condition(pod, reason, message);
        // The writer ends only together with the scheduler.
        let _ = self.queue.send(report).await;
    }
}

// === impl Writer ===

impl Writer {
    /// Runs until the last [`Reports`] is gone.
    pub async fn run(mut self) {
        let mut writing: JoinSet<Result<(), Error>> = JoinSet::new();
        while let Some(report) = self.queue.recv().await {
            if writing.len() >= AT_ONCE {
                log(writing.join_next().await);
            }
            let Some(request) = self.request(report) else {
                continue;
            };
            let client = self.client.clone();
            writing.spawn(async move { request.send(&client).await });
        }
    }

    /// What is to be sent; nothing when too much was said of a pod.
    fn request(&mut self, report: Report) -> Option<Request> {
        Some(match report {
            Report::Condition(pod, reason, message) => condition(&pod, reason, &message),
            Report::Scheduled(pod, node) => {
                let message = format!("Successfully assigned {} to {node}", pod.key);
                let kind = ("Normal", "Scheduled", "Binding");
                self.event(&pod.key, &pod.uid, &event_name(&pod.key), kind, &message)
            }
            Report::Preempted { victim, by, node } => {
                let message = format!("Preempted by pod {} on node {node}", by.uid);
                let kind = ("Normal", "Preempted", "Preempting");
                self.event(&victim.0, &victim.1, &event_name(&victim.0), kind, &message)
            }
            Report::Failed(pod, message) => return self.failed(&pod, &message),
        })
    }

    fn failed(&mut self, pod: &Pending, message: &str) -> Option<Request> {
        let kind = ("Warning", "FailedScheduling", "Scheduling");
        let occurrence = Occurrence {
            source: &self.component,
            about: &pod.uid,
            part: "",
            kind: kind.0,
            reason: kind.1,
            message,
        };
        let told = self.remembered.observe(&occurrence, Timestamp::now())?;
        if let Some(name) = &told.name {
            return Some(repeated(pod, name, told.count, &told.message));
        }
        let name = event_name(&pod.key);
        let request = self.event(&pod.key, &pod.uid, &name, kind, &told.message);
        self.remembered.written(&told, name);
        Some(request)
    }

    fn event(
        &self,
        pod: &str,
        uid: &str,
        name: &str,
        kind: (&str, &str, &str),
        message: &str,
    ) -> Request {
        let (namespace, pod_name) = split(pod);
        let now = now();
        let (kind, reason, action) = kind;
        Request {
            what: format!("write an event of pod {pod}"),
            path: format!("/api/v1/namespaces/{namespace}/events"),
            patch: None,
            body: json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"namespace": namespace, "name": name},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "namespace": namespace,
                    "name": pod_name,
                    "uid": uid,
                },
                "type": kind,
                "reason": reason,
                "action": action,
                "message": message,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": self.component},
                "reportingComponent": self.component,
                "reportingInstance": self.component,
            }),
        }
    }
}

fn event_name(pod: &str) -> String {
    let (_, name) = split(pod);
    let stamp = Timestamp::now().as_nanosecond() as u64;
    format!("{name}.{stamp:x}")
}

fn repeated(pod: &Pending, event: &str, count: i32, message: &str) -> Request {
    let (namespace, _) = split(&pod.key);
    Request {
        what: format!("count an event of pod {}", pod.key),
        path: format!("/api/v1/namespaces/{namespace}/events/{event}"),
        patch: Some(Patch::Merge),
        body: json!({"count": count, "lastTimestamp": now(), "message": message}),
    }
}

fn condition(pod: &Pending, reason: &str, message: &str) -> Request {
    let (namespace, name) = split(&pod.key);
    Request {
        what: format!("write the condition of pod {}", pod.key),
        path: format!("/api/v1/namespaces/{namespace}/pods/{name}/status"),
        patch: Some(Patch::Strategic),
        body: json!({
            "metadata": {"uid": &*pod.uid},
            "status": {"conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
                "lastTransitionTime": now(),
            }]},
        }),
    }
}

fn log(ended: Option<Result<Result<(), Error>, tokio::task::JoinError>>) {
    if let Some(Ok(Err(error))) = ended {
        warn!(%error, "a report was lost");
    }
}

/// A request that is ready to be sent.
struct Request {
    what: String,
    path: String,
    patch: Option<Patch>,
    body: Value,
}

impl Request {
    async fn send(self, client: &Client) -> Result<(), Error> {
        match self.patch {
            None => requests::post(client, &self.what, &self.path, &self.body).await,
            Some(kind) => requests::patch(client, &self.what, &self.path, kind, &self.body).await,
        }
    }
}
