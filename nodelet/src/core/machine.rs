//! The machine: what is known of the pod, and the way in and out.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use peapod_api::k8s_openapi;

use super::backoff::Backoff;
use super::container::{Container, ImageStage, State};
use super::event::{Action, Event, Exit, Note, Severity};
use super::resize::Resize;
use super::spec::{self, view};

/// Something the pod has once: its volumes, its namespaces, its release.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub busy: bool,
    pub ready: bool,
    pub retry: Backoff<1, 60>,
}

impl Part {
    /// Whether to begin now; notes that it has begun.
    pub fn begin(&mut self, now: Timestamp) -> bool {
        let waits = self.retry.until().is_some_and(|until| until > now);
        let begins = !self.busy && !self.ready && !waits;
        self.busy |= begins;
        begins
    }

    pub fn succeeded(&mut self) {
        *self = Self {
            ready: true,
            ..Self::default()
        };
    }

    pub fn failed(&mut self, now: Timestamp) {
        self.busy = false;
        self.retry.fail(now);
    }

    pub fn wake_at(&self) -> Option<Timestamp> {
        (!self.busy && !self.ready).then(|| self.retry.until())?
    }
}

/// Why the pod ends.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub deadline: Timestamp,
    /// The pod itself goes, not only what it runs.
    pub purge: bool,
}

/// A verdict on the pod that its containers do not give.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub reason: String,
    pub message: String,
}

/// One pod.
#[derive(Debug)]
pub struct Machine {
    /// As it is run: with what is allocated to it.
    pub(super) pod: Arc<Pod>,
    /// As the API has it.
    pub(super) desired: Arc<Pod>,
    pub(super) resize: Resize,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Part,
    pub(super) refresh_at: Option<Timestamp>,
    /// What the volumes show has changed since they were last begun with.
    pub(super) outdated: bool,
    pub(super) sandbox: Part,
    pub(super) release: Part,
    /// What the release that is done covered.
    pub(super) purged: bool,
    pub(super) finished: bool,
    pub(super) gone: bool,
    /// Whether the pod is known to be connected, by this agent or the one before.
    pub(super) connected: bool,
    pub(super) ips: Vec<IpAddr>,
    pub(super) start_time: Timestamp,
    pub(super) ending: Option<Ending>,
    pub(super) verdict: Option<Verdict>,
    pub(super) conditions: Vec<PodCondition>,
    /// Ends that were heard of before the start that they belong to.
    pub(super) early: Vec<Exit>,
    pub(super) wake: Option<Timestamp>,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// A pod that has never been on this node.
    pub fn new(pod: Arc<Pod>, now: Timestamp) -> Self {
        let mut machine = Self {
            containers: view(&pod).map(|view| Container::new(&view)).collect(),
            conditions: pod
                .status
                .as_ref()
                .and_then(|s| s.conditions.clone())
                .unwrap_or_default(),
            desired: pod.clone(),
            pod,
            resize: Resize::default(),
            volumes: Part::default(),
            refresh_at: None,
            outdated: false,
            sandbox: Part::default(),
            release: Part::default(),
            purged: false,
            finished: false,
            gone: false,
            connected: false,
            ips: Vec::new(),
            start_time: now,
            ending: None,
            verdict: None,
            early: Vec::new(),
            wake: None,
            actions: Vec::new(),
        };
        machine.update_conditions(now);
        machine
    }

    /// A pod that this node refuses: it fails without having started.
    pub fn rejected(pod: Arc<Pod>, reason: &str, message: &str, now: Timestamp) -> Self {
        let mut machine = Self::new(pod, now);
        machine.verdict = Some(Verdict {
            reason: reason.to_owned(),
            message: message.to_owned(),
        });
        machine.ending = Some(Ending {
            deadline: now,
            purge: false,
        });
        let reason = Cow::Owned(reason.to_owned());
        machine.record(Severity::Warning, reason, message.to_owned(), None);
        machine.update_conditions(now);
        machine
    }

    /// Takes in what happened and says what to do.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        self.apply(event, now);
        self.wake = None;
        self.step(now);
        self.update_conditions(now);
        std::mem::take(&mut self.actions)
    }

    /// When a [`Event::Tick`] is due, if nothing happens before.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake
    }

    /// The pod as it was last desired, with the resources that are allocated to it.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's addresses, the preferred family first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// When the node took the pod.
    pub fn start_time(&self) -> Timestamp {
        self.start_time
    }

    /// Whether nothing of the pod is left on the node and it is to leave the API.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Whether the pod holds resources of the node, as the scheduler sees it too: until its phase
    /// says that it has ended.
    pub fn occupies(&self) -> bool {
        !matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// The runtime's id of the present or last run of a container, and of the run before
    /// (`previous`).
    pub fn container_id(&self, name: &str, previous: bool) -> Option<&str> {
        let container = self.containers.iter().find(|c| c.name == name)?;
        let current = container.run().map(|run| run.id.as_str());
        let ended = container.exit().map(|exit| exit.id.as_str());
        let last = container.last.as_ref().map(|exit| exit.id.as_str());
        let found = match (previous, current) {
            (false, _) => current.or(ended).or(last),
            (true, _) => last,
        };
        found.filter(|id| !id.is_empty())
    }

    /// The restart count of a container's run that stands or is being started.
    pub fn attempt_of(&self, name: &str) -> u32 {
        let container = self.containers.iter().find(|c| c.name == name);
        container.map_or(0, Container::attempt)
    }

    /// The restart count that the next run of a container will have.
    pub fn next_attempt_of(&self, name: &str) -> u32 {
        let container = self.containers.iter().find(|c| c.name == name);
        container.map_or(0, Container::next_attempt)
    }

    /// Whether containers can be started as far as the pod is concerned: it is connected and its volumes
    /// are in place.
    pub fn is_prepared(&self) -> bool {
        self.sandbox.ready && self.volumes.ready
    }

    /// Whether the pod ends.
    pub fn ends(&self) -> bool {
        self.ending.is_some()
    }

    /// The restart count of the run whose log is meant, or why there is none.
    pub fn log_attempt(&self, name: &str, previous: bool) -> Result<u32, String> {
        let pod = self.pod.metadata.name.as_deref().unwrap_or_default();
        let container = self
            .containers
            .iter()
            .find(|c| c.name == name)
            .ok_or_else(|| format!("container \"{name}\" in pod \"{pod}\" is not available"))?;
        let restarts = container.restarts;
        let before = restarts.saturating_sub(1);
        match (&container.state, previous) {
            (_, true) if container.last.is_some() => Ok(before),
            (_, true) => Err(format!(
                "previous terminated container \"{name}\" in pod \"{pod}\" not found"
            )),
            (State::Running(_) | State::Exited(_) | State::Starting(Some(_)), false) => {
                Ok(restarts)
            }
            (State::Idle | State::Starting(None), false) if container.last.is_some() => {
                Ok(restarts)
            }
            (State::Idle | State::Starting(None), false) => {
                let reason = container
                    .waiting
                    .as_ref()
                    .map_or("ContainerCreating", |w| w.reason);
                Err(format!(
                    "container \"{name}\" in pod \"{pod}\" is waiting to start: {reason}"
                ))
            }
        }
    }

    /// Whether a container runs now.
    pub fn runs(&self, name: &str) -> bool {
        self.containers
            .iter()
            .any(|c| c.name == name && c.run().is_some())
    }

    /// Whether the pod is being started, by something that ends in an event: its status will change
    /// again.
    pub fn starting(&self) -> bool {
        let underway = |c: &Container| {
            matches!(c.state, State::Starting(_)) || matches!(c.stage, ImageStage::InFlight)
        };
        let parts = self.volumes.busy || self.sandbox.busy;
        self.ending.is_none()
            && self.phase() == "Pending"
            && (parts || self.containers.iter().any(underway))
    }

    pub(super) fn grace_s(&self) -> i64 {
        spec::of(&self.pod)
            .termination_grace_period_seconds
            .unwrap_or(30)
    }

    pub(super) fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    pub(super) fn running(&mut self, id: &str) -> Option<&mut Container> {
        self.containers
            .iter_mut()
            .find(|c| c.run().is_some_and(|run| run.id == id))
    }

    pub(super) fn wait_until(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn record(
        &mut self,
        severity: Severity,
        reason: Cow<'static, str>,
        text: String,
        of: Option<&str>,
    ) {
        let container = of.map(str::to_owned);
        self.actions.push(Action::Record(Note {
            severity,
            reason,
            message: text,
            container,
        }));
    }

    pub(super) fn note(&mut self, reason: &'static str, message: String, container: Option<&str>) {
        self.record(Severity::Normal, reason.into(), message, container);
    }

    pub(super) fn warn(&mut self, reason: &'static str, message: String, container: Option<&str>) {
        self.record(Severity::Warning, reason.into(), message, container);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pod_is_told_of_by_an_event() {
        let pod = serde_json::json!({
            "metadata": {"name": "a", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        let mut machine =
            Machine::rejected(pod.clone(), "SysctlForbidden", "why", Timestamp::UNIX_EPOCH);
        let actions = machine.handle(Event::Desired(pod), Timestamp::UNIX_EPOCH);
        let told = actions.iter().any(|action| match action {
            Action::Record(note) => {
                note.severity == Severity::Warning
                    && note.reason == "SysctlForbidden"
                    && note.message == "why"
            }
            _ => false,
        });
        assert!(told, "{actions:?}");
    }
}
