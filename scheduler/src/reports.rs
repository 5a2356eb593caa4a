//! What the scheduler says about pods: events and the `PodScheduled` condition.
//!
//! Events are a courtesy: when too many wait to be written, new ones are dropped and counted.
//! Conditions are state: they wait for room.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
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

/// An event that was written before.
#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    count: u32,
}

/// Writes the reports.
pub struct Writer {
    client: Client,
    component: String,
    queue: mpsc::Receiver<Report>,
    remembered: HashMap<(Arc<str>, String), Remembered>,
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
            remembered: HashMap::new(),
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
            let request = self.request(report);
            let client = self.client.clone();
            writing.spawn(async move { request.send(&client).await });
        }
    }

    fn request(&mut self, report: Report) -> Request {
        match report {
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
            Report::Failed(pod, message) => self.failed(&pod, message),
        }
    }

    fn failed(&mut self, pod: &Pending, message: String) -> Request {
        let key = (pod.uid.clone(), message);
        if let Some(known) = self.remembered.get_mut(&key) {
            known.count += 1;
            return repeated(pod, known);
        }
        if self.remembered.len() >= REMEMBERED {
            self.remembered.clear();
        }
        let name = event_name(&pod.key);
        let kind = ("Warning", "FailedScheduling", "Scheduling");
        let request = self.event(&pod.key, &pod.uid, &name, kind, &key.1);
        self.remembered.insert(key, Remembered { name, count: 1 });
        request
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

fn repeated(pod: &Pending, known: &Remembered) -> Request {
    let (namespace, _) = split(&pod.key);
    Request {
        what: format!("count an event of pod {}", pod.key),
        path: format!("/api/v1/namespaces/{namespace}/events/{}", known.name),
        patch: Some(Patch::Merge),
        body: json!({"count": known.count, "lastTimestamp": now()}),
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
