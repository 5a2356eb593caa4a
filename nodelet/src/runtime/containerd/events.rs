//! containerd's events: the one subscription, and what each means for a container.
//!
//! A subscription does not answer before its first event, and events before it are lost. So a
//! marker is published until it comes back; what happened before is found by comparing the
//! containers with one list of tasks; from then on nothing is missed until the stream breaks. Peapod's shim tells
//! of its containers itself ([`super::shim_events`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use containerd_client::types::Envelope;
use prost::{Message, Name};
use prost_types::Any;
use tokio::task::JoinSet;
use tonic::Streaming;

use super::tasks::{Task, Tasks};
use super::{Shared, launch};
use crate::runtime::{ContainerId, Error, Result, RuntimeEvent};

/// Topic of the marker.
const MARKER: &str = "/peapod/subscribed";
/// Pause between markers, until one comes back.
const MARKER_PAUSE: Duration = Duration::from_millis(20);
/// Pauses between attempts to reach a containerd that is away.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Follows the events for ever, and starts a private containerd again when it has ended.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = RETRY_MIN;
    loop {
        let mut connected = false;
        let error = match follow(&shared, &mut connected).await {
            Ok(()) => Error::Unavailable("containerd ended the stream of events".to_owned()),
            Err(error) => error,
        };
        if connected {
            pause = RETRY_MIN;
            tracing::warn!(%error, "lost containerd; containers run on");
            shared.announce(RuntimeEvent::Disconnected);
        } else if let Error::Unavailable(_) = error {
            tracing::debug!(%error, "containerd is away");
        } else {
            tracing::warn!(%error, "cannot follow containerd's events");
        }
        if let Err(error) = launch::revive(shared.client.address()).await {
            tracing::warn!(%error, "cannot start containerd again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Returns when the stream ends.
async fn follow(shared: &Arc<Shared>, connected: &mut bool) -> Result<()> {
    let mut stream = subscribe(shared).await?;
    let mut settling = JoinSet::new();
    shared.look_at_all(&mut settling).await?;
    *connected = true;
    tracing::info!(socket = %shared.client.address().display(), "following containerd's events");
    shared.announce(RuntimeEvent::Connected);
    loop {
        tokio::select! {
            message = stream.message() => {
                let message = message.map_err(|s| shared.client.error("following events", &s))?;
                let Some(envelope) = message else { return Ok(()) };
                shared.handle(&envelope, &mut settling);
            }
            Some(_) = settling.join_next() => {}
        }
    }
}

async fn subscribe(shared: &Shared) -> Result<Streaming<Envelope>> {
    let namespace = shared.client.namespace();
    let filters = vec![
        format!("namespace==\"{namespace}\",topic~=\"^/tasks/(exit|oom)$\""),
        format!("namespace==\"{namespace}\",topic==\"{MARKER}\""),
    ];
    let mut events = shared.client.events();
    let subscription = events.subscribe(SubscribeRequest { filters });
    tokio::select! {
        reply = subscription => {
            reply.map(|r| r.into_inner()).map_err(|s| shared.client.error("subscribing", &s))
        }
        error = publish_markers(shared) => Err(error),
    }
}

/// Publishes until it is dropped; returns only an error.
async fn publish_markers(shared: &Shared) -> Error {
    let marker = TaskOom {
        container_id: String::new(),
    };
    let event = Any {
        type_url: TaskOom::full_name(),
        value: marker.encode_to_vec(),
    };
    loop {
        tokio::time::sleep(MARKER_PAUSE).await;
        let request = PublishRequest {
            topic: MARKER.to_owned(),
            event: Some(event.clone()),
        };
        if let Err(status) = shared.client.events().publish(request).await {
            return shared.client.error("publishing a marker", &status);
        }
    }
}

impl Shared {
    /// Settles what ended while nobody listened.
    async fn look_at_all(self: &Arc<Self>, settling: &mut JoinSet<()>) -> Result<()> {
        // Asked in any case: that containerd answers for tasks, not only for events.
        let tasks = self.by_containerd.list().await?;
        self.settle_unless_running(&tasks, false, settling)?;
        while settling.join_next().await.is_some() {}
        let shared = Arc::clone(self);
        settling.spawn(async move {
            if let Err(error) = shared.sweep().await {
                tracing::warn!(%error, "what a crash left is not swept up yet");
            }
        });
        Ok(())
    }

    fn handle(self: &Arc<Self>, envelope: &Envelope, settling: &mut JoinSet<()>) {
        let Some(event) = &envelope.event else { return };
        match envelope.topic.as_str() {
            "/tasks/exit" => match TaskExit::decode(event.value.as_slice()) {
                // The exit of a command run in it has another ID.
                Ok(exit) if exit.id == exit.container_id => {
                    self.settle_soon(ContainerId(exit.container_id), settling);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "an exit that cannot be read"),
            },
            "/tasks/oom" => match TaskOom::decode(event.value.as_slice()) {
                Ok(oom) => self.note_oom(ContainerId(oom.container_id)),
                Err(error) => tracing::warn!(%error, "an OOM that cannot be read"),
            },
            _ => {}
        }
    }

    pub(super) fn settle_soon(self: &Arc<Self>, id: ContainerId, settling: &mut JoinSet<()>) {
        let shared = Arc::clone(self);
        settling.spawn(async move {
            let mut pause = RETRY_MIN;
            // No other event tells of it again: it is tried until it is done, or until the
            // stream breaks, after which every container is looked at.
            while let Err(error) = shared.settle(&id).await {
                tracing::warn!(container.id = %id, %error, "its end is not settled yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        });
    }

    /// Settles the containers that the shim should have and does not.
    pub(super) async fn settle_unknown(self: &Arc<Self>, settling: &mut JoinSet<()>) -> Result<()> {
        let tasks = self.by_shim.list().await?;
        self.settle_unless_running(&tasks, true, settling)
    }

    /// Settles the containers of `shim`, Peapod's or containerd's, but for those that run by `tasks` and
    /// those that were settled and announced.
    fn settle_unless_running(
        self: &Arc<Self>,
        tasks: &[Task],
        shim: bool,
        settling: &mut JoinSet<()>,
    ) -> Result<()> {
        let known: HashMap<&str, &Task> = tasks.iter().map(|t| (t.id.as_str(), t)).collect();
        for id in self.states.ids() {
            let state = self.states.of(&id);
            if state.record()?.is_none_or(|record| record.shim != shim) {
                continue;
            }
            let over = match known.get(id.0.as_str()) {
                Some(task) => task.has_ended() || state.exit()?.is_some(),
                None => state.exit()?.is_none() || self.untold.lock().contains(&id),
            };
            if over {
                self.settle_soon(id, settling);
            }
        }
        Ok(())
    }

    fn note_oom(&self, id: ContainerId) {
        if let Ok(record) = self.record(&id) {
            self.oom.lock().insert(id.clone());
            self.announce(RuntimeEvent::Oom {
                id,
                pod_uid: record.spec.pod_uid.clone(),
            });
        }
    }
}
