//! The machine itself: events change what is known, then one step compares it with what should
//! be.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use peapod_api::k8s_openapi;

use super::backoff::Backoff;
use super::container::{Container, ImageStage, Run, State, Waiting};
use super::event::{
    Action, Event, Exit, Hook, ImageFault, Kind, Note, Observed, ObservedState, Outcome, ProbeKind,
    Severity, StartFault,
};
use super::spec::{self, View, view};
use super::stop::{Stage, Stop, later};

/// Something the pod has once: its volumes, its namespaces, its release.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub busy: bool,
    pub ready: bool,
    retry: Backoff,
}

impl Part {
    /// Whether to begin now; notes that it has begun.
    fn begin(&mut self, now: Timestamp) -> bool {
        let waits = self.retry.until().is_some_and(|until| until > now);
        let begins = !self.busy && !self.ready && !waits;
        self.busy |= begins;
        begins
    }

    fn succeeded(&mut self) {
        *self = Self { ready: true, ..Self::default() };
    }

    fn failed(&mut self, now: Timestamp) {
        self.busy = false;
        self.retry.fail(now);
    }

    fn wake_at(&self) -> Option<Timestamp> {
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
    pub(super) pod: Arc<Pod>,
    pub(super) containers: Vec<Container>,
    pub(super) volumes: Part,
    pub(super) refresh_at: Option<Timestamp>,
    pub(super) sandbox: Part,
    pub(super) release: Part,
    /// What the release that is done covered.
    pub(super) purged: bool,
    pub(super) finished: bool,
    pub(super) gone: bool,
    pub(super) ips: Vec<IpAddr>,
    pub(super) start_time: Timestamp,
    pub(super) ending: Option<Ending>,
    pub(super) verdict: Option<Verdict>,
    pub(super) conditions: Vec<PodCondition>,
    pub(super) wake: Option<Timestamp>,
    pub(super) actions: Vec<Action>,
}

impl Machine {
    /// A pod that has never been on this node.
    pub fn new(pod: Arc<Pod>, now: Timestamp) -> Self {
        let mut machine = Self {
            containers: view(&pod).map(|view| Container::new(&view)).collect(),
            conditions: pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default(),
            pod,
            volumes: Part::default(),
            refresh_at: None,
            sandbox: Part::default(),
            release: Part::default(),
            purged: false,
            finished: false,
            gone: false,
            ips: Vec::new(),
            start_time: now,
            ending: None,
            verdict: None,
            wake: None,
            actions: Vec::new(),
        };
        machine.update_conditions(now);
        machine
    }

    /// A pod that this node refuses: it fails without having started.
    pub fn rejected(pod: Arc<Pod>, reason: &str, message: &str, now: Timestamp) -> Self {
        let mut machine = Self::new(pod, now);
        machine.verdict =
            Some(Verdict { reason: reason.to_owned(), message: message.to_owned() });
        machine.ending = Some(Ending { deadline: now, purge: false });
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

    /// The pod as it was last desired.
    pub fn pod(&self) -> &Arc<Pod> {
        &self.pod
    }

    /// The pod's addresses, the preferred family first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Whether nothing of the pod is left on the node and it is to leave the API.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Whether the pod holds resources of the node: not yet ended.
    pub fn occupies(&self) -> bool {
        !self.release.ready && self.verdict.is_none()
    }

    /// The container that the runtime knows by this id.
    pub fn container_of(&self, id: &str) -> Option<&str> {
        let found = self.containers.iter().find(|c| {
            c.run().is_some_and(|run| run.id == id) || c.exit().is_some_and(|exit| exit.id == id)
        });
        found.map(|c| c.name.as_str())
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

    /// Whether a container runs now.
    pub fn runs(&self, name: &str) -> bool {
        self.containers.iter().any(|c| c.name == name && c.run().is_some())
    }

    // === events ===

    fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Desired(pod) => self.desire(pod, now),
            Event::Gone => {
                self.gone = true;
                self.end(1, true, now);
            }
            Event::VolumesReady { refresh_at } => {
                self.volumes.succeeded();
                self.refresh_at = refresh_at;
            }
            Event::VolumesFailed(message) => {
                self.volumes.failed(now);
                self.warn("FailedMount", message, None);
            }
            Event::SandboxReady { ips, fresh } => self.sandbox_ready(ips, fresh),
            Event::SandboxFailed(message) => {
                self.sandbox.failed(now);
                let text = format!("Failed to create pod sandbox: {message}");
                self.warn("FailedCreatePodSandBox", text, None);
            }
            Event::ImageReady { container, image, pulled } => {
                self.image_ready(&container, image, pulled);
            }
            Event::ImageFailed { container, fault } => self.image_failed(&container, fault, now),
            Event::Started { container, id, at } => self.started(&container, id, at),
            Event::StartFailed { container, fault } => self.start_failed(&container, fault, now),
            Event::HookDone { id, hook, result } => self.hook_done(&id, hook, result, now),
            Event::Probed { id, kind, outcome } => self.probed(&id, kind, &outcome, now),
            Event::Exited(exit) => self.exited(exit),
            Event::Reconciled(observed) => self.reconcile(&observed, now),
            Event::DependencyChanged => self.dependency_changed(),
            Event::TornDown => self.release.succeeded(),
            Event::TearDownFailed(message) => {
                self.release.failed(now);
                self.warn("FailedKillPod", format!("error killing pod: {message}"), None);
            }
            Event::Tick => {}
        }
    }

    fn desire(&mut self, pod: Arc<Pod>, now: Timestamp) {
        self.pod = pod;
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

    fn image_ready(
        &mut self,
        name: &str,
        image: super::event::ImageRef,
        pulled: Option<String>,
    ) {
        let Some(container) = self.container(name) else { return };
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
        let Some(container) = self.container(name) else { return };
        container.stage = ImageStage::Unknown;
        container.pull.fail(now);
        container.waiting =
            Some(Waiting { reason: fault.reason, message: fault.message.clone() });
        self.warn("Failed", fault.message, Some(name));
        self.warn("Failed", format!("Error: {}", fault.reason), Some(name));
    }

    fn started(&mut self, name: &str, id: String, at: Timestamp) {
        let pod = self.pod.clone();
        let Some(container) = self.container(name) else { return };
        if !matches!(container.state, State::Starting(_)) {
            return;
        }
        let hook = spec::find(&pod, name).is_some_and(|view| view.has_hook(Hook::PostStart));
        if let Some(stale) = container.begin(&pod, id.clone(), at) {
            self.actions.push(Action::RemoveContainer { id: stale });
        }
        self.note("Started", "Container started".to_owned(), Some(name));
        if hook {
            let container = name.to_owned();
            self.actions.push(Action::RunHook { container, id, hook: Hook::PostStart });
        }
    }

    fn start_failed(&mut self, name: &str, fault: StartFault, now: Timestamp) {
        let Some(container) = self.container(name) else { return };
        let State::Starting(before) = std::mem::replace(&mut container.state, State::Idle) else {
            return;
        };
        container.stage = ImageStage::Unknown;
        let (reason, message) = match fault {
            StartFault::Config(message) => ("CreateContainerConfigError", message),
            StartFault::Create(message) => ("CreateContainerError", message),
            StartFault::Run { id, message } => {
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
                container.waiting =
                    Some(Waiting { reason: "RunContainerError", message: message.clone() });
                self.warn("Failed", format!("Error: {message}"), Some(name));
                return;
            }
        };
        if let Some(exit) = before {
            container.state = State::Exited(exit);
            // The count belongs to the run that did not come about.
            container.restarts = container.restarts.saturating_sub(1);
        }
        container.create.fail(now);
        container.waiting = Some(Waiting { reason, message: message.clone() });
        self.warn("Failed", format!("Error: {message}"), Some(name));
    }

    fn hook_done(&mut self, id: &str, hook: Hook, result: Result<(), String>, now: Timestamp) {
        let pod = self.pod.clone();
        let grace = self.grace_s();
        let Some(container) = self.running(id) else { return };
        let name = container.name.clone();
        let Some(run) = container.run_mut() else { return };
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
                run.post_start_done = true;
                if let Some(view) = spec::find(&pod, &name) {
                    container.arm_probes(&view, now);
                }
                if let Err(message) = result {
                    self.warn("FailedPostStartHook", message, Some(&name));
                    let why = "FailedPostStartHook";
                    self.stop(&name, grace, why, now);
                }
            }
        }
    }

    fn probed(&mut self, id: &str, kind: ProbeKind, outcome: &Outcome, now: Timestamp) {
        let pod = self.pod.clone();
        let pod_grace = self.grace_s();
        let Some(container) = self.running(id) else { return };
        let name = container.name.clone();
        let view = spec::find(&pod, &name);
        let Some(probe) = view.and_then(|view| view.probe(kind)) else { return };
        let Some(run) = container.run_mut() else { return };
        let Some(state) = run.probes.iter_mut().find(|state| state.kind == kind) else { return };
        let changed = state.record(probe, outcome);
        if let Outcome::Failure(why) = outcome {
            self.warn("Unhealthy", format!("{kind:?} probe failed: {why}"), Some(&name));
            if changed && kind != ProbeKind::Readiness {
                let grace = probe.termination_grace_period_seconds.unwrap_or(pod_grace);
                let what = format!("{kind:?}").to_lowercase();
                let message =
                    format!("Container {name} failed {what} probe, will be restarted");
                self.stop(&name, grace, &message, now);
            }
        }
    }

    fn exited(&mut self, exit: Exit) {
        if let Some(container) = self.running(&exit.id) {
            container.end(exit);
        }
    }

    /// Applies what the runtime has to what is believed to run.
    fn reconcile(&mut self, observed: &[Observed], now: Timestamp) {
        for container in &mut self.containers {
            let Some(run) = container.run() else { continue };
            let seen = observed.iter().find(|seen| seen.id == run.id);
            match seen.map(|seen| &seen.state) {
                Some(ObservedState::Running(_)) => {}
                Some(ObservedState::Exited(exit)) => container.end(exit.clone()),
                Some(ObservedState::Created) | None => {
                    let exit = super::recover::lost(&run.id, Some(run.started_at), now);
                    container.end(exit);
                }
            }
        }
    }

    /// What waited for something that may have appeared tries again at once.
    fn dependency_changed(&mut self) {
        if self.ending.is_some() {
            return;
        }
        self.volumes.retry.clear();
        if self.volumes.ready && !self.volumes.busy {
            self.volumes.busy = true;
            self.actions.push(Action::SyncVolumes);
        }
        for container in &mut self.containers {
            container.create.clear();
        }
    }

    // === the step ===

    fn step(&mut self, now: Timestamp) {
        if self.ending.is_none() {
            self.check_deadline(now);
        }
        if self.ending.is_none() && self.done() {
            self.end(self.grace_s(), false, now);
        }
        if self.ending.is_some() {
            self.step_end(now);
        } else {
            self.step_run(now);
        }
    }

    /// `activeDeadlineSeconds`
    fn check_deadline(&mut self, now: Timestamp) {
        let Some(limit) = spec::of(&self.pod).active_deadline_seconds else { return };
        let at = later(self.start_time, limit);
        if now < at {
            return self.wait_until(at);
        }
        self.verdict = Some(Verdict {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
        });
        self.end(self.grace_s(), false, now);
    }

    /// Whether the containers have nothing more to do.
    fn done(&self) -> bool {
        let ended = |c: &Container| match &c.state {
            State::Exited(exit) => !c.wants_restart(&self.pod, exit),
            _ => false,
        };
        let mut apps = self.containers.iter().filter(|c| c.kind == Kind::App).peekable();
        let init_failed = self
            .containers
            .iter()
            .any(|c| c.kind == Kind::Init && ended(c) && !c.completed());
        init_failed || (apps.peek().is_some() && apps.all(ended))
    }

    fn step_run(&mut self, now: Timestamp) {
        if self.volumes.begin(now) {
            self.actions.push(Action::SyncVolumes);
        }
        if self.sandbox.begin(now) {
            self.actions.push(Action::CreateSandbox);
        }
        if let Some(at) = self.refresh_at.filter(|_| self.volumes.ready) {
            if now >= at && !self.volumes.busy {
                self.refresh_at = None;
                self.volumes.busy = true;
                self.actions.push(Action::SyncVolumes);
            } else {
                self.wait_until(at);
            }
        }
        for part in [self.volumes.wake_at(), self.sandbox.wake_at()] {
            part.into_iter().for_each(|at| self.wait_until(at));
        }
        for index in self.wanted() {
            self.ensure(index, now);
        }
        self.tend(now);
    }

    /// The containers that should run now.
    fn wanted(&self) -> Vec<usize> {
        let mut wanted = Vec::new();
        let mut initialized = true;
        // Init containers are over once an app container has run in these namespaces.
        let past = self
            .containers
            .iter()
            .any(|c| c.kind == Kind::App && (c.active() || c.exit().is_some()))
            && self.containers.iter().all(|c| c.kind != Kind::Init || c.completed());
        for (index, container) in self.containers.iter().enumerate() {
            match container.kind {
                Kind::Init if initialized && !container.completed() => {
                    wanted.push(index);
                    initialized = false;
                }
                Kind::Init => {}
                Kind::Sidecar if initialized => {
                    wanted.push(index);
                    initialized = past || container.started();
                }
                Kind::App if initialized => wanted.push(index),
                Kind::Ephemeral if !matches!(container.state, State::Exited(_)) => {
                    wanted.push(index);
                }
                Kind::Sidecar | Kind::App | Kind::Ephemeral => {}
            }
        }
        wanted
    }

    /// Brings one container closer to running.
    fn ensure(&mut self, index: usize, now: Timestamp) {
        let pod = self.pod.clone();
        let container = &self.containers[index];
        let Some(view) = spec::find(&pod, &container.name) else { return };
        match &container.state {
            State::Starting(_) => return,
            State::Running(run) => {
                let changed = run.spec_image != view.image && run.stop.is_none();
                if changed {
                    let name = container.name.clone();
                    let message = format!("Container {name} definition changed, will be restarted");
                    self.stop(&name, self.grace_s(), &message, now);
                }
                return;
            }
            State::Exited(exit) if !container.wants_restart(&pod, exit) => return,
            State::Exited(_) | State::Idle => {}
        }
        if !self.held_back(index, &view, now) {
            self.launch(index, &view);
        }
    }

    /// Whether a back-off holds the container back; says so in its status.
    fn held_back(&mut self, index: usize, view: &View, now: Timestamp) -> bool {
        let full_name = spec::full_name(&self.pod);
        let container = &mut self.containers[index];
        let name = container.name.clone();
        let crash = container.crash.until().filter(|_| container.exit().is_some());
        let waits = [crash, container.create.until(), container.pull.until()];
        let Some(until) = waits.into_iter().flatten().filter(|&until| until > now).max() else {
            return false;
        };
        self.wait_until(until);
        let container = &mut self.containers[index];
        let shown = container.waiting.as_ref().map(|waiting| waiting.reason);
        if crash.is_some_and(|at| at > now) && shown != Some("CrashLoopBackOff") {
            let wait = go_seconds(container.crash.wait_s());
            let message =
                format!("back-off {wait} restarting failed container={name} pod={full_name}");
            container.waiting = Some(Waiting { reason: "CrashLoopBackOff", message });
            let text =
                format!("Back-off restarting failed container {name} in pod {full_name}");
            self.warn("BackOff", text, Some(&name));
        } else if shown == Some("ErrImagePull") && now > started_waiting(container) {
            let cause = container.waiting.take().map(|w| w.message).unwrap_or_default();
            let text = format!("Back-off pulling image \"{}\"", view.image);
            let message = format!("{text}: ErrImagePull: {cause}");
            container.waiting = Some(Waiting { reason: "ImagePullBackOff", message });
            self.note("BackOff", text, Some(&name));
        } else if shown == Some("ErrImagePull") {
            // The error itself is shown for a moment before the back-off.
            let soon = later(started_waiting(container), 1);
            self.wait_until(soon);
        }
        true
    }

    /// Asks for the image, then for the start.
    fn launch(&mut self, index: usize, view: &View) {
        let waits_for_hook = self.containers[..index]
            .iter()
            .any(|earlier| self.starts_with_hook(earlier));
        let ready = self.sandbox.ready && self.volumes.ready && !waits_for_hook;
        let container = &mut self.containers[index];
        let name = container.name.clone();
        match &container.stage {
            ImageStage::InFlight => {}
            ImageStage::Unknown => {
                container.stage = ImageStage::InFlight;
                self.actions.push(Action::EnsureImage { container: name });
            }
            ImageStage::Ready(image) if ready => {
                let image = image.clone();
                let attempt = container.next_attempt();
                let before = match std::mem::replace(&mut container.state, State::Idle) {
                    State::Exited(exit) => Some(exit),
                    _ => None,
                };
                container.restarts = attempt;
                container.image = Some(image.clone());
                if container.waiting.as_ref().is_some_and(|w| w.reason == "CrashLoopBackOff") {
                    container.waiting = None;
                }
                container.state = State::Starting(before);
                self.actions.push(Action::StartContainer { container: name, attempt, image });
            }
            ImageStage::Ready(_) => tracing::trace!(container = view.name, "waits for the pod"),
        }
    }

    /// Whether a container of the same kind is on its way to the end of its start hook: what is
    /// declared after it relies on that.
    fn starts_with_hook(&self, container: &Container) -> bool {
        let hook = spec::find(&self.pod, &container.name)
            .is_some_and(|view| view.has_hook(Hook::PostStart));
        let underway = match &container.state {
            State::Idle => container.waiting.is_none(),
            State::Starting(_) => true,
            State::Running(run) => !run.post_start_done,
            State::Exited(_) => false,
        };
        container.kind == Kind::App && hook && underway
    }

    /// Stops that are underway and probes that are due, of every running container.
    fn tend(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        let ending = self.ending.is_some();
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            let name = container.name.clone();
            let Some(view) = spec::find(&pod, &name) else { continue };
            let Some(run) = container.run_mut() else { continue };
            let mut wakes = Vec::new();
            if let Some(stop) = &mut run.stop {
                if let Some(signal) = stop.advance(now) {
                    let (container, id) = (name.clone(), run.id.clone());
                    self.actions.push(Action::Signal { container, id, signal });
                }
                wakes.push(stop.wake_at());
            }
            let held = ending || run.stop.is_some();
            for kind in probes_in_turn(run, held) {
                let Some(state) = run.probes.iter_mut().find(|p| p.kind == kind) else { continue };
                let (Some(probe), Some(due)) = (view.probe(kind), state.due()) else { continue };
                if due > now {
                    wakes.push(due);
                    continue;
                }
                state.launched(probe, now);
                let (container, id) = (name.clone(), run.id.clone());
                self.actions.push(Action::Probe { container, id, kind });
            }
            wakes.into_iter().for_each(|at| self.wait_until(at));
        }
    }

    // === the end ===

    /// Begins the pod's end, or hurries it.
    fn end(&mut self, grace_s: i64, purge: bool, now: Timestamp) {
        let deadline = later(now, grace_s.max(0));
        match &mut self.ending {
            None => self.ending = Some(Ending { deadline, purge }),
            Some(ending) => {
                ending.deadline = ending.deadline.min(deadline);
                ending.purge |= purge;
            }
        }
    }

    fn step_end(&mut self, now: Timestamp) {
        let Some(ending) = self.ending.clone() else { return };
        self.stop_in_order(&ending, now);
        self.tend(now);
        if self.containers.iter().any(Container::active) {
            return;
        }
        if self.release.ready && ending.purge && !self.purged {
            self.release = Part::default();
        }
        if self.release.begin(now) {
            self.purged = ending.purge;
            self.actions.push(Action::TearDown { purge: ending.purge });
        }
        if let Some(at) = self.release.wake_at() {
            self.wait_until(at);
        }
        if self.release.ready && self.purged && !self.finished {
            self.finished = true;
            self.actions.push(Action::Finish);
        }
    }

    /// Sidecars outlive what they serve, and go in the reverse order of their start; nothing
    /// outlives the pod's deadline.
    fn stop_in_order(&mut self, ending: &Ending, now: Timestamp) {
        let left = ending.deadline.duration_since(now).as_secs().max(0);
        let main = |c: &Container| c.kind != Kind::Sidecar && c.active();
        let waits_for_main = self.containers.iter().any(main);
        let last_sidecar = self.containers.iter().rposition(Container::active);
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            let turn = container.kind != Kind::Sidecar
                || left == 0
                || (!waits_for_main && Some(index) == last_sidecar);
            let Some(run) = container.run_mut() else { continue };
            match &mut run.stop {
                Some(stop) => stop.hurry(ending.deadline.max(later(now, 0))),
                None if turn => {
                    let name = container.name.clone();
                    let message = format!("Stopping container {name}");
                    self.stop(&name, left, &message, now);
                }
                None => {}
            }
        }
        let pending = self.containers.iter().any(Container::active) && left > 0;
        if pending {
            self.wait_until(ending.deadline);
        }
    }

    /// Begins the end of one container.
    fn stop(&mut self, name: &str, grace_s: i64, message: &str, now: Timestamp) {
        let pod = self.pod.clone();
        let Some(view) = spec::find(&pod, name) else { return };
        let Some(run) = self.container(name).and_then(Container::run_mut) else { return };
        if run.stop.is_some() {
            return;
        }
        let stop = Stop::begin(now, grace_s, view.has_hook(Hook::PreStop));
        let hook = stop.stage == Stage::PreStop;
        let id = run.id.clone();
        run.stop = Some(stop);
        self.note("Killing", message.to_owned(), Some(name));
        if hook {
            let container = name.to_owned();
            self.actions.push(Action::RunHook { container, id, hook: Hook::PreStop });
        }
    }

    // === small things ===

    fn grace_s(&self) -> i64 {
        spec::of(&self.pod).termination_grace_period_seconds.unwrap_or(30)
    }

    fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    fn running(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.run().is_some_and(|run| run.id == id))
    }

    fn wait_until(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn record(&mut self, severity: Severity, reason: &'static str, text: String, of: Option<&str>) {
        let container = of.map(str::to_owned);
        self.actions.push(Action::Record(Note { severity, reason, message: text, container }));
    }

    fn note(&mut self, reason: &'static str, message: String, container: Option<&str>) {
        self.record(Severity::Normal, reason, message, container);
    }

    fn warn(&mut self, reason: &'static str, message: String, container: Option<&str>) {
        self.record(Severity::Warning, reason, message, container);
    }
}

/// When the present pull back-off began.
fn started_waiting(container: &Container) -> Timestamp {
    let until = container.pull.until().unwrap_or(Timestamp::MIN);
    later(until, -container.pull.wait_s())
}

/// The probes whose turn it is: startup alone, then the others; readiness alone once the end
/// has begun.
fn probes_in_turn(run: &Run, ending: bool) -> &'static [ProbeKind] {
    let starting = run.probes.iter().any(|p| p.kind == ProbeKind::Startup && !p.passing);
    match (ending, starting) {
        (true, true) => &[],
        (true, false) => &[ProbeKind::Readiness],
        (false, true) => &[ProbeKind::Startup],
        (false, false) => &[ProbeKind::Liveness, ProbeKind::Readiness],
    }
}

/// Seconds as Go prints a duration: `10s`, `2m40s`, `5m0s`.
fn go_seconds(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}
