//! A runtime without containers, for scale tests and simulation.
//!
//! Everything that is created exists only in memory. A container runs until it is signalled or
//! until the test ends it ([`Hollow::exit`]); every image can be pulled in no time unless the test
//! says otherwise ([`Hollow::fail_pull`]).

mod images;
mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{
    Container, ContainerId, ContainerState, Error, Exit, ExitReason, Image, ImageError, Result,
    RuntimeEvent, Sandbox,
};

/// Events that a slow listener may fall behind by before it has to list again.
const EVENTS_MAX: usize = 4096;

/// The runtime that pretends.
#[derive(Clone)]
pub struct Hollow {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<RuntimeEvent>,
    clock: fn() -> Timestamp,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<ContainerId, Container>,
    images: BTreeMap<String, Image>,
    failing_pulls: BTreeMap<String, ImageError>,
    failing_starts: BTreeMap<String, String>,
}

// === impl Hollow ===

impl Default for Hollow {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl Hollow {
    /// An empty node that takes its times from `clock`.
    pub fn new(clock: fn() -> Timestamp) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        Self {
            state: Arc::default(),
            events,
            clock,
        }
    }

    /// Ends a running container with this code, as if its process had exited.
    pub fn exit(&self, id: &ContainerId, code: i32) -> Result<()> {
        self.end(id, code, ExitReason::Exited)
    }

    /// Ends a running container as the kernel does when memory runs out.
    pub fn oom(&self, id: &ContainerId) -> Result<()> {
        self.end(id, 137, ExitReason::OomKilled)
    }

    /// Makes pulls of this reference fail from now on; with `None`, succeed again.
    pub fn fail_pull(&self, reference: &str, error: Option<ImageError>) {
        let mut state = self.state.lock();
        match error {
            Some(error) => state.failing_pulls.insert(reference.to_owned(), error),
            None => state.failing_pulls.remove(reference),
        };
    }

    /// Makes containers of this name fail to start, with this reason.
    pub fn fail_start(&self, container_name: &str, reason: &str) {
        self.state
            .lock()
            .failing_starts
            .insert(container_name.to_owned(), reason.to_owned());
    }

    /// Puts an image on the node.
    pub fn add_image(&self, reference: &str, image: Image) {
        self.state.lock().images.insert(reference.to_owned(), image);
    }

    fn end(&self, id: &ContainerId, code: i32, reason: ExitReason) -> Result<()> {
        let finished_at = (self.clock)();
        let mut state = self.state.lock();
        let container = find(&mut state, id)?;
        let ContainerState::Running { started_at, .. } = container.state else {
            return Ok(());
        };
        let exit = Exit {
            code,
            started_at: Some(started_at),
            finished_at,
            reason,
            message: String::new(),
        };
        container.state = ContainerState::Exited(exit.clone());
        let pod_uid = container.pod_uid.clone();
        drop(state);
        self.announce(RuntimeEvent::Exited {
            id: id.clone(),
            pod_uid,
            exit,
        });
        Ok(())
    }

    /// That nobody listens is no error.
    fn announce(&self, event: RuntimeEvent) {
        let _ = self.events.send(event);
    }

    fn require_running(&self, id: &ContainerId, what: &'static str) -> Result<()> {
        let mut state = self.state.lock();
        match &find(&mut state, id)?.state {
            ContainerState::Running { .. } => Ok(()),
            other => Err(Error::NotRunning {
                id: id.clone(),
                state: describe(other).into(),
                what,
            }),
        }
    }
}

fn find<'a>(state: &'a mut State, id: &ContainerId) -> Result<&'a mut Container> {
    state.containers.get_mut(id).ok_or_else(|| Error::NotFound {
        kind: "container",
        id: id.to_string(),
    })
}

/// The state in a word, for messages.
fn describe(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited(_) => "exited",
    }
}

#[cfg(test)]
mod tests;
