//! What goes into the machine and what comes out.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use peapod_api::k8s_openapi;

use super::end::Eviction;
use super::resize::Judgement;

/// What kind of container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside what comes after it.
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// Added for debugging; starts once.
    Ephemeral,
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Holds the two others back until it succeeded once.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of its services when it fails.
    Readiness,
}

/// Which lifecycle hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Right after the start.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

/// How a container is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// The container's own stop signal: `lifecycle.stopSignal`, the image's, or SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
}

/// The image a container runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef {
    /// `status.image`: the normalised reference.
    pub name: String,
    /// `status.imageID`: by digest.
    pub id: String,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The runtime's id; empty if there never was a container.
    pub id: String,
    /// 0-255; 128 + signal number when a signal ended it.
    pub code: i32,
    /// The reason when it is none of `Completed`, `Error` and `OOMKilled`.
    pub reason: Option<String>,
    /// Whether the kernel killed it for want of memory.
    pub oom: bool,
    /// Its termination message, already bounded.
    pub message: Option<String>,
    /// When it had started, if it had.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Exit {
    /// `state.terminated.reason`
    pub fn reason(&self) -> &str {
        match &self.reason {
            Some(reason) => reason,
            None if self.oom => "OOMKilled",
            None if self.code == 0 => "Completed",
            None => "Error",
        }
    }
}

/// A container that the runtime has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Name in the pod.
    pub container: String,
    /// The runtime's id.
    pub id: String,
    /// Its `restartCount`, kept as a label.
    pub attempt: u32,
    /// `spec.image` that it was made from, kept as a label.
    pub spec_image: String,
    /// What it runs.
    pub image: ImageRef,
    /// Whether it runs.
    pub state: ObservedState,
}

/// What the runtime says of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObservedState {
    /// Made and never started: the agent died in between.
    Created,
    /// Runs since then.
    Running(Timestamp),
    /// Ended.
    Exited(Exit),
}

/// Why an image is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFault {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, ...
    pub reason: &'static str,
    /// The sentence for status and event.
    pub message: String,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// Something that it needs is missing (`CreateContainerConfigError`).
    Config(String),
    /// The runtime could not make it (`CreateContainerError`).
    Create(String),
    /// It was made but its process did not start (`RunContainerError`, then a back-off).
    Run {
        /// The runtime's id of what was made.
        id: String,
        /// The runtime's sentence.
        message: String,
    },
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as asked.
    Success,
    /// It did, and there is something to be told of it.
    Warning(String),
    /// It did not, and why.
    Failure(String),
    /// It could not be asked, and why. That says nothing about the container.
    Unknown(String),
}

/// What a running container has been given.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    /// The runtime's id.
    pub id: String,
    /// Its requests and limits.
    pub resources: ResourceRequirements,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The pod as the API has it now.
    Desired(Arc<Pod>),
    /// The API has the pod no longer (deleted by force).
    Gone,
    /// Volumes are in place and current; `refresh_at` is when a token in them must be renewed.
    VolumesReady {
        /// When to render them again, if time alone makes them stale.
        refresh_at: Option<Timestamp>,
    },
    /// Volumes could not be put in place.
    VolumesFailed(String),
    /// The pod's namespaces exist and are connected.
    SandboxReady {
        /// The pod's addresses, the preferred family first.
        ips: Vec<IpAddr>,
        /// Whether it was made now, so that nothing that ran before can be in it.
        fresh: bool,
    },
    /// The namespaces could not be made or connected.
    SandboxFailed(String),
    /// A container's image is present.
    ImageReady {
        /// Whose.
        container: String,
        /// What.
        image: ImageRef,
        /// The sentence of a pull, when there was one.
        pulled: Option<String>,
    },
    /// A container's image is not present.
    ImageFailed {
        /// Whose.
        container: String,
        /// Why.
        fault: ImageFault,
    },
    /// A container runs.
    Started {
        /// Name in the pod.
        container: String,
        /// The runtime's id.
        id: String,
        /// When its process started.
        at: Timestamp,
    },
    /// A container does not run.
    StartFailed {
        /// Name in the pod.
        container: String,
        /// Why.
        fault: StartFault,
    },
    /// A hook came to its end.
    HookDone {
        /// The runtime's id of the container it ran for.
        id: String,
        /// Which.
        hook: Hook,
        /// The sentence of its failure.
        result: Result<(), String>,
    },
    /// A probe came to its end.
    Probed {
        /// The runtime's id of the container it asked.
        id: String,
        /// Which.
        kind: ProbeKind,
        /// What it found.
        outcome: Outcome,
    },
    /// A container ended.
    Exited(Exit),
    /// Every container of the pod that the runtime has, after a gap in its events.
    Reconciled {
        /// The containers.
        observed: Vec<Observed>,
        /// When they were listed: what started later is not among them.
        as_of: Timestamp,
    },
    /// The node cannot keep the pod.
    Evicted(Eviction),
    /// Whether the node can give what is desired; when it can, it is allocated already.
    ResizeJudged(Judgement),
    /// What is allocated was given, as far as it could be.
    Resized {
        /// The containers that have it.
        given: Vec<Given>,
        /// Whether the pod's cgroup has its final limits.
        settled: bool,
        /// Why it was not given to all.
        error: Option<String>,
    },
    /// Another pod of the node takes less than before.
    RoomChanged,
    /// Something the pod refers to (a ConfigMap, a Secret, a claim) has changed or appeared.
    DependencyChanged,
    /// Everything on the node is released.
    TornDown,
    /// Something on the node could not be released.
    TearDownFailed(String),
    /// The time of [`Machine::wake_at`](super::Machine::wake_at) has come.
    Tick,
}

/// Something to do. What takes its time is answered by an event; `Signal` by the exit that it
/// causes. `RemoveContainer`, `Finish` and `Record` have no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Put the volumes in place, or bring their contents up to date.
    SyncVolumes,
    /// Make the pod's namespaces, or find them again, and connect them.
    CreateSandbox,
    /// Have the image of a container.
    EnsureImage {
        /// Name in the pod.
        container: String,
    },
    /// Make and start a container.
    StartContainer {
        /// Name in the pod.
        container: String,
        /// Its restart count.
        attempt: u32,
        /// The image that was made ready.
        image: ImageRef,
    },
    /// Run a lifecycle hook.
    RunHook {
        /// Name in the pod.
        container: String,
        /// The runtime's id.
        id: String,
        /// Which.
        hook: Hook,
    },
    /// Run a probe once.
    Probe {
        /// Name in the pod.
        container: String,
        /// The runtime's id.
        id: String,
        /// Which.
        kind: ProbeKind,
    },
    /// Tell a container to end; answered by `Exited`.
    Signal {
        /// Name in the pod.
        container: String,
        /// The runtime's id.
        id: String,
        /// How.
        signal: StopSignal,
    },
    /// Judge whether the node can give what is desired, and allocate it if so.
    JudgeResize,
    /// Give what is allocated to the pod's cgroup and to these containers.
    Resize {
        /// Names in the pod and the runtime's ids.
        containers: Vec<(String, String)>,
        /// Whether all containers have what they should afterwards, so that the pod's cgroup may
        /// shrink.
        settle: bool,
    },
    /// Remove an ended container that a newer one has replaced.
    RemoveContainer {
        /// The runtime's id.
        id: String,
    },
    /// Release what the pod has on the node: network, namespaces, volumes.
    TearDown {
        /// Whether its containers and their logs go too: the pod itself goes.
        purge: bool,
    },
    /// Remove the pod from the API: nothing of it is left here.
    Finish,
    /// Record an event about the pod.
    Record(Note),
}

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// `Normal`
    Normal,
    /// `Warning`
    Warning,
}

/// An event for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// `type`
    pub severity: Severity,
    /// `reason`, in camel case.
    pub reason: Cow<'static, str>,
    /// `message`
    pub message: String,
    /// The container it is about, if one.
    pub container: Option<String>,
}
