//! What each event changes in what is known. Nothing is decided here but what follows from the
//! event alone; the step that comes after it decides the rest.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use peapod_api::k8s_openapi;

use super::container::{Container, ImageStage, State, Waiting};
use super::event::{
    Action, Event, Exit, Hook, ImageFault, ImageRef, Kind, Observed, ObservedState, Outcome,
    ProbeKind, StartFault,
};
use super::machine::Machine;
use super::spec::{self, view};
use super::stop::later;

/// After contents of volumes could not be brought up to date, seconds.
const REFRESH_AGAIN_S: i64 = 30;

impl Machine {
    pub(super) fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Desired(pod) => self.desire(pod, now),
            Event::Gone => {
                self.gone = true;
                self.end(1, true, now);
            }
            Event::VolumesReady { refresh_at } => {
                self.volumes.succeeded();
                self.refresh_at = refresh_at;
                self.sync_again();
            }
            Event::VolumesFailed(message) => {
                self.volumes.failed(now);
                if self.volumes.ready {
                    // What is in place stays usable; what must be renewed is tried again.
                    self.refresh_at = Some(later(now, REFRESH_AGAIN_S));
                    self.sync_again();
                }
                self.warn("FailedMount", message, None);
            }
            Event::SandboxReady { ips, fresh } => self.sandbox_ready(ips, fresh),
            Event::SandboxFailed(message) => {
                self.sandbox.failed(now);
                let text = format!("Failed to create pod sandbox: {message}");
                self.warn("FailedCreatePodSandBox", text, None);
            }
            Event::ImageReady {
                container,
                image,
                pulled,
            } => {
                self.image_ready(&container, image, pulled);
            }
            Event::ImageFailed { container, fault } => self.image_failed(&container, fault, now),
            Event::Started { container, id, at } => self.started(&container, id, at),
            Event::StartFailed { container, fault } => self.start_failed(&container, fault, now),
            Event::HookDone { id, hook, result } => self.hook_done(&id, hook, result, now),
            Event::Probed { id, kind, outcome } => self.probed(&id, kind, &outcome, now),
            Event::Exited(exit) => self.exited(exit),
            Event::Reconciled { observed, as_of } => self.reconcile(&observed, as_of),
            Event::Evicted(eviction) => self.evict(eviction, now),
            Event::ResizeJudged(judgement) => self.resize_judged(judgement),
            Event::Resized {
                given,
                settled,
                error,
            } => self.resized(given, settled, error, now),
            Event::RoomChanged => self.room_changed(),
            Event::DependencyChanged => self.dependency_changed(),
            Event::TornDown => self.release.succeeded(),
            Event::TearDownFailed(message) => {
                self.release.failed(now);
                self.warn(
                    "FailedKillPod",
                    format!("error killing pod: {message}"),
                    None,
                );
            }
            Event::Tick => {}
        }
    }

    fn desire(&mut self, pod: Arc<Pod>, now: Timestamp) {
        self.desire_resources(pod);
        let pod = self.pod.clone();
        for view in view(&pod) {
            if !self.containers.iter().any(|c| c.name == view.name) {
                self.containers.push(Container::new(&view));
            }
        }
        self.keep_foreign_conditions();
        if self.pod.metadata.deletion_timestamp.is_some() {
            let grace = self.pod.metadata.deletion_grace_period_seconds;
            self.end(grace.unwrap_or_else(|| self.grace_s()), true, now);
        }
    }

    fn sandbox_ready(&mut self, ips: Vec<IpAddr>, fresh: bool) {
        self.sandbox.succeeded();
        self.connected = true;
        self.ips = ips;
        if !fresh || self.containers.iter().all(|c| c.exit().is_none()) {
            return;
        }
        // Whatever an init container prepared may have gone with the old namespaces.
        for container in &mut self.containers {
            if container.kind == Kind::Init && !container.active() {
                container.reset();
            }
        }
    }

    fn image_ready(&mut self, name: &str, image: ImageRef, pulled: Option<String>) {
        let Some(container) = self.container(name) else {
            return;
        };
        if container.stage != ImageStage::InFlight {
            return;
        }
        container.stage = ImageStage::Ready(image);
        container.waiting = None;
        container.pull.clear();
        if let Some(message) = pulled {
            self.note("Pulled", message, Some(name));
        }
    }

    fn image_failed(&mut self, name: &str, fault: ImageFault, now: Timestamp) {
        let Some(container) = self.container(name) else {
            return;
        };
        container.stage = ImageStage::Unknown;
        container.pull.fail(now);
        container.waiting = Some(Waiting {
            reason: fault.reason,
            message: fault.message.clone(),
        });
        self.warn("Failed", fault.message, Some(name));
        self.warn("Failed", format!("Error: {}", fault.reason), Some(name));
    }

    fn started(&mut self, name: &str, id: String, at: Timestamp) {
        let pod = self.pod.clone();
        let Some(container) = self.container(name) else {
            return;
        };
        if !matches!(container.state, State::Starting(_)) {
            return;
        }
        let hook = spec::find(&pod, name).is_some_and(|view| view.has_hook(Hook::PostStart));
        if let Some(stale) = container.begin(&pod, id.clone(), at) {
            self.actions.push(Action::RemoveContainer { id: stale });
        }
        self.note("Created", "Container created".to_owned(), Some(name));
        self.note("Started", "Container started".to_owned(), Some(name));
        if hook {
            let container = name.to_owned();
            self.actions.push(Action::RunHook {
                container,
                id,
                hook: Hook::PostStart,
            });
        }
        for exit in std::mem::take(&mut self.early) {
            self.exited(exit);
        }
    }

    fn start_failed(&mut self, name: &str, fault: StartFault, now: Timestamp) {
        let Some(container) = self.container(name) else {
            return;
        };
        let attempt = container.attempt();
        let State::Starting(before) = std::mem::replace(&mut container.state, State::Idle) else {
            return;
        };
        container.stage = ImageStage::Unknown;
        let (reason, message) = match fault {
            StartFault::Config(message) => ("CreateContainerConfigError", message),
            StartFault::Create(message) => ("CreateContainerError", message),
            StartFault::Run { id, message } => {
                self.early.retain(|exit| exit.id != id);
                let Some(container) = self.container(name) else {
                    return;
                };
                container.restarts = attempt;
                container.last = before.or(container.last.take());
                container.end(Exit {
                    id,
                    code: 128,
                    reason: Some("StartError".to_owned()),
                    oom: false,
                    message: Some(message.clone()),
                    started_at: None,
                    finished_at: now,
                });
                container.waiting = Some(Waiting {
                    reason: "RunContainerError",
                    message: message.clone(),
                });
                self.note("Created", "Container created".to_owned(), Some(name));
                self.warn("Failed", format!("Error: {message}"), Some(name));
                return;
            }
        };
        if let Some(exit) = before {
            container.state = State::Exited(exit);
        }
        container.create.fail(now);
        container.waiting = Some(Waiting {
            reason,
            message: message.clone(),
        });
        self.warn("Failed", format!("Error: {message}"), Some(name));
    }

    fn hook_done(&mut self, id: &str, hook: Hook, result: Result<(), String>, now: Timestamp) {
        let pod = self.pod.clone();
        let grace = self.grace_s();
        let Some(container) = self.running(id) else {
            return;
        };
        let name = container.name.clone();
        let Some(run) = container.run_mut() else {
            return;
        };
        match hook {
            Hook::PreStop => {
                if let Some(stop) = &mut run.stop {
                    stop.hook_done(now);
                }
                if let Err(message) = result {
                    self.warn("FailedPreStopHook", message, Some(&name));
                }
            }
            Hook::PostStart => {
                if let Err(message) = result {
                    self.warn("FailedPostStartHook", message, Some(&name));
                    self.stop(&name, grace, "FailedPostStartHook", now);
                    return;
                }
                run.post_start_done = true;
                if let Some(view) = spec::find(&pod, &name) {
                    container.arm_probes(&view, now);
                }
            }
        }
    }

    fn probed(&mut self, id: &str, kind: ProbeKind, outcome: &Outcome, now: Timestamp) {
        let pod = self.pod.clone();
        let pod_grace = self.grace_s();
        let Some(container) = self.running(id) else {
            return;
        };
        let name = container.name.clone();
        let view = spec::find(&pod, &name);
        let Some(probe) = view.and_then(|view| view.probe(kind)) else {
            return;
        };
        let Some(run) = container.run_mut() else {
            return;
        };
        let Some(state) = run.probes.iter_mut().find(|state| state.kind == kind) else {
            return;
        };
        let changed = state.record(probe, outcome);
        if let Outcome::Warning(what) = outcome {
            let text = format!("{kind:?} probe warning: {what}");
            self.warn("ProbeWarning", text, Some(&name));
        }
        if let Outcome::Unknown(why) = outcome {
            let text = format!("{kind:?} probe errored and resulted in unknown state: {why}");
            self.warn("Unhealthy", text, Some(&name));
        }
        if let Outcome::Failure(why) = outcome {
            self.warn(
                "Unhealthy",
                format!("{kind:?} probe failed: {why}"),
                Some(&name),
            );
            if changed && kind != ProbeKind::Readiness {
                let grace = probe.termination_grace_period_seconds.unwrap_or(pod_grace);
                let what = format!("{kind:?}").to_lowercase();
                let message = format!("Container {name} failed {what} probe, will be restarted");
                self.stop(&name, grace, &message, now);
            }
        }
    }

    /// A process may end before it is known that it started.
    fn exited(&mut self, exit: Exit) {
        if let Some(container) = self.running(&exit.id) {
            return container.end(exit);
        }
        let starting = |c: &Container| matches!(c.state, State::Starting(_));
        if self.containers.iter().any(starting) && self.early.len() < self.containers.len() {
            self.early.push(exit);
        }
    }

    /// Applies what the runtime has to what is believed to run.
    fn reconcile(&mut self, observed: &[Observed], as_of: Timestamp) {
        for container in &mut self.containers {
            let Some(run) = container.run() else { continue };
            let seen = observed.iter().find(|seen| seen.id == run.id);
            match seen.map(|seen| &seen.state) {
                Some(ObservedState::Running(_)) => {}
                Some(ObservedState::Exited(exit)) => container.end(exit.clone()),
                Some(ObservedState::Created) | None if run.started_at >= as_of => {}
                Some(ObservedState::Created) | None => {
                    let exit = super::recover::lost(&run.id, Some(run.started_at), as_of);
                    container.end(exit);
                }
            }
        }
    }

    /// What waited for something that may have appeared tries again at once.
    /// Brings the volumes up to date if something has changed since they were last begun with;
    /// what changes meanwhile may have come too late for them.
    fn sync_again(&mut self) {
        if std::mem::take(&mut self.outdated) {
            self.volumes.busy = true;
            self.actions.push(Action::SyncVolumes);
        }
    }

    fn dependency_changed(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.volumes.retry.clear();
        self.outdated = true;
        if self.volumes.ready && !self.volumes.busy {
            self.sync_again();
        }
        for container in &mut self.containers {
            container.create.clear();
        }
    }
}
