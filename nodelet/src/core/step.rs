//! The step of a pod that is to run: what should be, compared with what is.

use jiff::Timestamp;

use super::container::{Container, ImageStage, Run, State, Waiting};
use super::event::{Action, Hook, Kind, ProbeKind};
use super::machine::{Machine, Verdict};
use super::resize::resources_of;
use super::spec::{self, View};
use super::stop::later;

impl Machine {
    pub(super) fn step(&mut self, now: Timestamp) {
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
        let Some(limit) = spec::of(&self.pod).active_deadline_seconds else {
            return;
        };
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
        let mut apps = self
            .containers
            .iter()
            .filter(|c| c.kind == Kind::App)
            .peekable();
        let init_failed = self
            .containers
            .iter()
            .any(|c| c.kind == Kind::Init && ended(c) && !c.completed());
        init_failed || (apps.peek().is_some() && apps.all(ended))
    }

    fn step_run(&mut self, now: Timestamp) {
        if self.restart_all(now) {
            return self.tend(now);
        }
        if self.volumes.begin(now) {
            self.outdated = false;
            self.actions.push(Action::SyncVolumes);
        }
        if self.sandbox.begin(now) {
            self.actions.push(Action::CreateSandbox);
        }
        if let Some(at) = self.refresh_at.filter(|_| self.volumes.ready) {
            if now >= at && !self.volumes.busy {
                self.refresh_at = None;
                self.outdated = false;
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
        self.step_resize(now);
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
            && self
                .containers
                .iter()
                .all(|c| c.kind != Kind::Init || c.completed());
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
        let Some(view) = spec::find(&pod, &container.name) else {
            return;
        };
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
        let crash = container
            .crash
            .until()
            .filter(|_| container.exit().is_some());
        let waits = [crash, container.create.until(), container.pull.until()];
        let Some(until) = waits
            .into_iter()
            .flatten()
            .filter(|&until| until > now)
            .max()
        else {
            return false;
        };
        self.wait_until(until);
        let container = &mut self.containers[index];
        let shown = container.waiting.as_ref().map(|waiting| waiting.reason);
        let failed_pull = matches!(shown, Some("ErrImagePull" | "RegistryUnavailable"));
        if crash.is_some_and(|at| at > now) && shown != Some("CrashLoopBackOff") {
            let wait = go_seconds(container.crash.wait_s());
            let message =
                format!("back-off {wait} restarting failed container={name} pod={full_name}");
            container.waiting = Some(Waiting {
                reason: "CrashLoopBackOff",
                message,
            });
            let text = format!("Back-off restarting failed container {name} in pod {full_name}");
            self.warn("BackOff", text, Some(&name));
        } else if failed_pull && now > started_waiting(container) {
            let cause = container
                .waiting
                .take()
                .map(|w| w.message)
                .unwrap_or_default();
            let text = format!("Back-off pulling image \"{}\"", view.image);
            let message = format!("{text}: {}: {cause}", shown.unwrap_or_default());
            container.waiting = Some(Waiting {
                reason: "ImagePullBackOff",
                message,
            });
            self.note("BackOff", text, Some(&name));
        } else if failed_pull {
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
        let resources = resources_of(&self.pod, view.name).cloned();
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
                container.given = resources;
                container.image = Some(image.clone());
                if container
                    .waiting
                    .as_ref()
                    .is_some_and(|w| w.reason == "CrashLoopBackOff")
                {
                    container.waiting = None;
                }
                container.state = State::Starting(before);
                self.actions.push(Action::StartContainer {
                    container: name,
                    attempt,
                    image,
                });
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
    pub(super) fn tend(&mut self, now: Timestamp) {
        let pod = self.pod.clone();
        let ending = self.ending.is_some();
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            let name = container.name.clone();
            let Some(view) = spec::find(&pod, &name) else {
                continue;
            };
            let Some(run) = container.run_mut() else {
                continue;
            };
            let mut wakes = Vec::new();
            if let Some(stop) = &mut run.stop {
                if let Some(signal) = stop.advance(now) {
                    let (container, id) = (name.clone(), run.id.clone());
                    self.actions.push(Action::Signal {
                        container,
                        id,
                        signal,
                    });
                }
                wakes.push(stop.wake_at());
            }
            let held = ending || run.stop.is_some();
            for &kind in probes_in_turn(run, held) {
                let Some(state) = run.probes.iter_mut().find(|p| p.kind == kind) else {
                    continue;
                };
                let (Some(probe), Some(due)) = (view.probe(kind), state.due()) else {
                    continue;
                };
                if due > now {
                    wakes.push(due);
                    continue;
                }
                state.launched(probe, now);
                let (container, id) = (name.clone(), run.id.clone());
                self.actions.push(Action::Probe {
                    container,
                    id,
                    kind,
                });
            }
            wakes.into_iter().for_each(|at| self.wait_until(at));
        }
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
    let starting = run
        .probes
        .iter()
        .any(|p| p.kind == ProbeKind::Startup && !p.passing);
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
