//! One container of the pod: what is known of it, and what it needs to run.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use peapod_api::k8s_openapi;

use super::backoff::{Backoff, CrashBackoff};
use super::event::{Exit, Hook, ImageRef, Kind, ProbeKind};
use super::probe::ProbeState;
use super::spec::{self, View};
use super::stop::Stop;

/// Why a container waits, for its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `state.waiting.reason`
    pub reason: &'static str,
    /// `state.waiting.message`
    pub message: String,
}

/// How far its image is for the next start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageStage {
    /// Not asked for.
    #[default]
    Unknown,
    /// Being made ready.
    InFlight,
    /// Present.
    Ready(ImageRef),
}

/// A run of a container, from its start to its end.
#[derive(Clone, Debug)]
pub struct Run {
    /// The runtime's id.
    pub id: String,
    /// When its process started.
    pub started_at: Timestamp,
    /// `spec.image` that it was made from.
    pub spec_image: String,
    /// Whether the hook after the start has come to its end, or there is none.
    pub post_start_done: bool,
    /// Its probes; none while the hook runs.
    pub probes: Vec<ProbeState>,
    /// Its end, once that has begun.
    pub stop: Option<Stop>,
}

/// Where a container is.
#[derive(Clone, Debug)]
pub enum State {
    /// Never started, or to be started from the beginning in new namespaces.
    Idle,
    /// Being made and started; holds how it ended before.
    Starting(Option<Exit>),
    /// Runs.
    Running(Run),
    /// Ended.
    Exited(Exit),
}

/// One container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Name in the pod.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Where it is.
    pub state: State,
    /// How the run before ended (`lastState`).
    pub last: Option<Exit>,
    /// `restartCount`
    pub restarts: u32,
    /// The resources that its present run has.
    pub given: Option<ResourceRequirements>,
    /// The image it runs or ran last.
    pub image: Option<ImageRef>,
    /// The image for its next start.
    pub stage: ImageStage,
    /// Why it waits.
    pub waiting: Option<Waiting>,
    /// After failed pulls.
    pub pull: Backoff,
    /// After failed creations.
    pub create: Backoff,
    /// After exits.
    pub crash: CrashBackoff,
}

impl Container {
    /// A container that nothing is known of.
    pub fn new(view: &View) -> Self {
        Self {
            name: view.name.to_owned(),
            kind: view.kind,
            state: State::Idle,
            last: None,
            restarts: 0,
            given: None,
            image: None,
            stage: ImageStage::Unknown,
            waiting: None,
            pull: Backoff::default(),
            create: Backoff::default(),
            crash: CrashBackoff::default(),
        }
    }

    /// Its run, if it runs.
    pub fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    /// Its run, if it runs.
    pub fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Running(run) => Some(run),
            _ => None,
        }
    }

    /// How it ended, if it does not run.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            State::Exited(exit) | State::Starting(Some(exit)) => Some(exit),
            _ => None,
        }
    }

    /// Whether there is, or is about to be, a process.
    pub fn active(&self) -> bool {
        matches!(self.state, State::Running(_) | State::Starting(_))
    }

    /// Whether what comes after it may start: running, hook and startup probe behind it.
    pub fn started(&self) -> bool {
        self.run().is_some_and(|run| {
            run.post_start_done
                && run
                    .probes
                    .iter()
                    .all(|p| p.kind != ProbeKind::Startup || p.passing)
        })
    }

    /// Whether it may get traffic.
    pub fn ready(&self) -> bool {
        if self.kind == Kind::Init {
            return self.exit().is_some_and(|exit| exit.code == 0);
        }
        self.started()
            && self.run().is_some_and(|run| {
                run.probes
                    .iter()
                    .all(|p| p.kind != ProbeKind::Readiness || p.passing)
            })
    }

    /// Whether it is an init container that has done its work.
    pub fn completed(&self) -> bool {
        matches!(&self.state, State::Exited(exit) if exit.code == 0)
    }

    /// The restart count of the run that comes next, or is being started.
    pub fn next_attempt(&self) -> u32 {
        match self.exit().or(self.last.as_ref()) {
            Some(_) => self.restarts.saturating_add(1),
            None => self.restarts,
        }
    }

    /// The restart count of the run that stands or is being started. A restart counts for the
    /// API once it runs: until then the status is that of the run before.
    pub fn attempt(&self) -> u32 {
        match self.state {
            State::Starting(_) => self.next_attempt(),
            _ => self.restarts,
        }
    }

    /// Notes the start of a run; the id of the container that nobody needs any more, if there
    /// is one.
    pub fn begin(&mut self, pod: &Pod, id: String, at: Timestamp) -> Option<String> {
        self.restarts = self.attempt();
        let before = match std::mem::replace(&mut self.state, State::Idle) {
            State::Starting(exit) => exit,
            State::Exited(exit) => Some(exit),
            State::Idle | State::Running(_) => None,
        };
        let mut stale = None;
        if let Some(exit) = before {
            stale = self
                .last
                .replace(exit)
                .map(|exit| exit.id)
                .filter(|id| !id.is_empty());
        }
        if let ImageStage::Ready(image) = std::mem::take(&mut self.stage) {
            self.image = Some(image);
        }
        self.waiting = None;
        self.create.clear();
        self.pull.clear();
        let Some(view) = spec::find(pod, &self.name) else {
            return stale;
        };
        self.state = State::Running(Run {
            id,
            started_at: at,
            spec_image: view.image.to_owned(),
            post_start_done: !view.has_hook(Hook::PostStart),
            probes: Vec::new(),
            stop: None,
        });
        self.arm_probes(&view, at);
        stale
    }

    /// Starts the probes, once the hook after the start is done.
    pub fn arm_probes(&mut self, view: &View, from: Timestamp) {
        let Some(run) = self.run_mut() else { return };
        if !run.post_start_done || !run.probes.is_empty() {
            return;
        }
        let kinds = [
            ProbeKind::Startup,
            ProbeKind::Liveness,
            ProbeKind::Readiness,
        ];
        run.probes = kinds
            .into_iter()
            .filter_map(|kind| Some(ProbeState::new(kind, view.probe(kind)?, from)))
            .collect();
    }

    /// Notes an end.
    pub fn end(&mut self, exit: Exit) {
        self.crash.exited(exit.finished_at);
        self.waiting = None;
        self.stage = ImageStage::Unknown;
        self.state = State::Exited(exit);
    }

    /// Forgets that it ever ran, so that it starts from the beginning; the count goes on.
    pub fn reset(&mut self) {
        if let State::Exited(exit) = std::mem::replace(&mut self.state, State::Idle) {
            self.last = Some(exit);
        }
        self.stage = ImageStage::Unknown;
    }
}
