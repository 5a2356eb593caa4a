//! What the API is told: phase, conditions and container states.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, PodCondition, PodIP, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::{conditions, k8s_openapi};

use super::container::{Container, State};
use super::end::{EVICTED, TERMINATED};
use super::event::{Exit, Kind};
use super::machine::Machine;
use super::restart::RESTARTING;
use super::{qos, recover, resize, spec};

/// The conditions that the node agent owns and that are always there.
const OWN_CONDITIONS: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "ContainersReady",
    "Ready",
];

/// Whether a condition is the node agent's own.
pub fn is_own_condition(kind: &str) -> bool {
    OWN_CONDITIONS.contains(&kind)
        || [RESTARTING, resize::PENDING, resize::IN_PROGRESS].contains(&kind)
}

/// The scheme of the ids of containers in the API.
const ID_SCHEME: &str = "containerd://";

impl Machine {
    /// The pod's status now, on a node with these addresses.
    pub fn status(&self, host_ips: &[IpAddr]) -> PodStatus {
        let phase = self.phase();
        let host_network = spec::of(&self.pod).host_network == Some(true);
        let ips = if host_network { host_ips } else { &self.ips };
        let whole = spec::of(&self.pod).resources.as_ref();
        let host: Vec<HostIP> = host_ips
            .iter()
            .map(|ip| HostIP { ip: ip.to_string() })
            .collect();
        PodStatus {
            phase: Some(phase.to_owned()),
            observed_generation: self.pod.metadata.generation,
            conditions: Some(self.conditions.clone()),
            container_statuses: self.statuses(|kind| kind == Kind::App),
            init_container_statuses: self
                .statuses(|kind| matches!(kind, Kind::Init | Kind::Sidecar)),
            ephemeral_container_statuses: self.statuses(|kind| kind == Kind::Ephemeral),
            host_ip: host_ips.first().map(IpAddr::to_string),
            host_ips: Some(host),
            pod_ip: ips.first().map(IpAddr::to_string),
            pod_ips: (!ips.is_empty())
                .then(|| ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
            start_time: Some(Time(self.start_time)),
            qos_class: Some(qos::class(spec::of(&self.pod)).to_owned()),
            resources: whole.cloned(),
            allocated_resources: whole.and_then(requests),
            reason: self.verdict.as_ref().map(|verdict| verdict.reason.clone()),
            message: self.verdict.as_ref().map(|verdict| verdict.message.clone()),
            ..PodStatus::default()
        }
    }

    /// `status.phase`. It never leaves Succeeded or Failed.
    pub fn phase(&self) -> &'static str {
        let ended = !self.containers.iter().any(Container::active);
        if self.ending.is_some() && ended {
            return self.final_phase();
        }
        let mut pending = false;
        for container in &self.containers {
            match container.kind {
                Kind::Init => match (
                    &container.state,
                    container.exit().or(container.last.as_ref()),
                ) {
                    (State::Exited(exit), _) if exit.code == 0 => {}
                    (State::Exited(_) | State::Idle, Some(exit))
                        if exit.code != 0 && !container.wants_restart(&self.pod, exit) =>
                    {
                        return "Failed";
                    }
                    _ => pending = true,
                },
                Kind::Sidecar => {
                    let begun = container.exit().is_some() || container.last.is_some();
                    pending |= !container.started() && !begun;
                }
                Kind::App | Kind::Ephemeral => {}
            }
        }
        let apps = || self.containers.iter().filter(|c| c.kind == Kind::App);
        if pending && apps().all(never_ran) || apps().any(never_ran) {
            return "Pending";
        }
        "Running"
    }

    fn final_phase(&self) -> &'static str {
        if self.verdict.is_some() {
            return "Failed";
        }
        let apps: Vec<_> = self
            .containers
            .iter()
            .filter(|c| c.kind == Kind::App)
            .collect();
        let all_ok = !apps.is_empty() && apps.iter().all(|c| c.completed());
        if all_ok { "Succeeded" } else { "Failed" }
    }

    fn statuses(&self, wanted: impl Fn(Kind) -> bool) -> Option<Vec<ContainerStatus>> {
        // Of a pod that was refused nothing is waiting to be made.
        let refused = self.verdict.is_some() && self.containers.iter().all(never_ran);
        let statuses: Vec<ContainerStatus> = self
            .containers
            .iter()
            .filter(|c| !refused && wanted(c.kind))
            .map(|c| self.container_status(c))
            .collect();
        (!statuses.is_empty()).then_some(statuses)
    }

    fn container_status(&self, container: &Container) -> ContainerStatus {
        let view = spec::find(&self.pod, &container.name);
        let (state, last) = self.states(container);
        let id = container
            .run()
            .map(|run| run.id.as_str())
            .or(container.exit().map(|exit| exit.id.as_str()))
            .or(container.last.as_ref().map(|exit| exit.id.as_str()))
            .filter(|id| !id.is_empty());
        let image = container.image.as_ref();
        let spec_image = view.map(|v| v.image.to_owned()).unwrap_or_default();
        let allocated = resize::resources_of(&self.pod, &container.name);
        let given = match container.run() {
            Some(_) => container.given.as_ref(),
            None => allocated,
        };
        let sized = container.kind != Kind::Ephemeral;
        ContainerStatus {
            name: container.name.clone(),
            resources: sized.then(|| given.cloned().map(plain).unwrap_or_default()),
            allocated_resources: allocated.and_then(requests),
            state: Some(state),
            last_state: last.map(terminated),
            ready: container.ready(),
            started: Some(container.started()),
            restart_count: i32::try_from(container.restarts).unwrap_or(i32::MAX),
            image: image.map_or(spec_image, |image| image.name.clone()),
            image_id: image.map(|image| image.id.clone()).unwrap_or_default(),
            container_id: id.map(|id| format!("{ID_SCHEME}{id}")),
            stop_signal: view.and_then(|v| v.stop_signal().map(str::to_owned)),
            ..ContainerStatus::default()
        }
    }

    fn states<'a>(&self, container: &'a Container) -> (ContainerState, Option<&'a Exit>) {
        let last = container.last.as_ref();
        let over = self.ending.is_some()
            && self.verdict.is_none()
            && !self.containers.iter().any(Container::active);
        match &container.state {
            State::Running(run) => (running(run.started_at), last),
            State::Exited(exit) => match &container.waiting {
                Some(why) if self.ending.is_none() => {
                    (waiting(why.reason, &why.message), Some(exit))
                }
                _ => (terminated(exit), last),
            },
            State::Starting(Some(exit)) => (terminated(exit), last),
            State::Idle if over && container.kind == Kind::App && self.begun() => {
                let exit = recover::lost("", None, self.start_time);
                (terminated(&exit), last)
            }
            State::Idle | State::Starting(None) => {
                let init = self
                    .containers
                    .iter()
                    .any(|c| matches!(c.kind, Kind::Init | Kind::Sidecar));
                let reason = if init {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                };
                match &container.waiting {
                    Some(why) => (waiting(why.reason, &why.message), last),
                    None => (waiting(reason, ""), last),
                }
            }
        }
    }

    /// Whether an app container has ever been started.
    fn begun(&self) -> bool {
        self.containers
            .iter()
            .any(|c| c.kind == Kind::App && (c.active() || c.exit().is_some()))
    }

    // === conditions ===

    /// Takes over the conditions that others have set meanwhile.
    pub(super) fn keep_foreign_conditions(&mut self) {
        let status = self.pod.status.as_ref();
        let theirs = status
            .and_then(|s| s.conditions.as_deref())
            .unwrap_or_default();
        self.conditions.retain(|c| is_own_condition(&c.type_));
        let foreign = theirs.iter().filter(|c| !is_own_condition(&c.type_));
        self.conditions.extend(foreign.cloned());
    }

    /// Brings the conditions up to date.
    pub(super) fn update_conditions(&mut self, now: Timestamp) {
        let generation = self.pod.metadata.generation;
        let sandbox = self.connected && !self.release.ready;
        let (containers, ready) = (self.containers_ready(), self.ready());
        let mut verdicts = vec![
            (
                OWN_CONDITIONS[0],
                if sandbox { Ok(None) } else { Err((None, None)) },
            ),
            (OWN_CONDITIONS[1], self.initialized()),
            (OWN_CONDITIONS[2], containers),
            (OWN_CONDITIONS[3], ready),
        ];
        let anew = self.restarts_all().map(|anew| match anew {
            true => Ok(None),
            false => Err((None, None)),
        });
        verdicts.extend(anew.map(|verdict| (RESTARTING, verdict)));
        for (kind, verdict) in verdicts {
            let (status, reason, message) = match verdict {
                Ok(reason) => ("True", reason, None),
                Err((reason, message)) => ("False", reason, message),
            };
            conditions::set(
                &mut self.conditions,
                PodCondition {
                    type_: kind.to_owned(),
                    status: status.to_owned(),
                    reason: reason.map(str::to_owned),
                    message,
                    last_transition_time: Some(Time(now)),
                    observed_generation: generation,
                    ..PodCondition::default()
                },
            );
        }
        self.tell_of_eviction(now);
        self.tell_of_resize(now);
        if conditions::find(&self.conditions, "PodScheduled").is_none() {
            self.conditions.push(PodCondition {
                type_: "PodScheduled".to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(now)),
                observed_generation: generation,
                ..PodCondition::default()
            });
        }
    }

    /// Says that the pod was disrupted, whom controllers then replace without blaming it.
    fn tell_of_eviction(&mut self, now: Timestamp) {
        let Some(verdict) = &self.verdict else {
            return;
        };
        if ![EVICTED, TERMINATED].contains(&&*verdict.reason) {
            return;
        }
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(verdict.message.clone()),
            last_transition_time: Some(Time(now)),
            observed_generation: self.pod.metadata.generation,
            ..PodCondition::default()
        };
        conditions::set(&mut self.conditions, condition);
    }

    fn initialized(&self) -> Verdict {
        if self.phase() == "Succeeded" {
            return Ok(Some("PodCompleted"));
        }
        let waiting = |c: &&Container| match c.kind {
            Kind::Init => !c.completed(),
            Kind::Sidecar => !c.started() && c.exit().is_none() && c.last.is_none(),
            Kind::App | Kind::Ephemeral => false,
        };
        let names = join(self.containers.iter().filter(waiting));
        if names.is_empty() {
            return Ok(None);
        }
        let message = format!("containers with incomplete status: [{names}]");
        Err((Some("ContainersNotInitialized"), Some(message)))
    }

    fn containers_ready(&self) -> Verdict {
        match self.phase() {
            "Succeeded" => return Err((Some("PodCompleted"), None)),
            "Failed" => return Err((Some("PodFailed"), None)),
            _ => {}
        }
        let counts = |c: &&Container| matches!(c.kind, Kind::App | Kind::Sidecar);
        let unready = self.containers.iter().filter(counts).filter(|c| !c.ready());
        let names = join(unready);
        if names.is_empty() {
            return Ok(None);
        }
        let message = format!("containers with unready status: [{names}]");
        Err((Some("ContainersNotReady"), Some(message)))
    }

    fn ready(&self) -> Verdict {
        self.containers_ready()?;
        let gates = spec::of(&self.pod)
            .readiness_gates
            .as_deref()
            .unwrap_or_default();
        let mut messages = Vec::new();
        for gate in gates {
            let kind = &gate.condition_type;
            match conditions::find(&self.conditions, kind) {
                Some(condition) if condition.status == "True" => {}
                Some(condition) => messages.push(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                None => messages.push(format!(
                    "corresponding condition of pod readiness gate \"{kind}\" does not exist."
                )),
            }
        }
        if messages.is_empty() {
            return Ok(None);
        }
        Err((Some("ReadinessGatesNotReady"), Some(messages.join(", "))))
    }
}

/// Requests and limits only: claims are told of elsewhere.
fn plain(resources: ResourceRequirements) -> ResourceRequirements {
    ResourceRequirements {
        claims: None,
        ..resources
    }
}

fn requests(resources: &ResourceRequirements) -> Option<BTreeMap<String, Quantity>> {
    resources.requests.clone().filter(|all| !all.is_empty())
}

/// `True` with a reason, or `False` with reason and message.
type Verdict = Result<Option<&'static str>, (Option<&'static str>, Option<String>)>;

fn join<'a>(containers: impl Iterator<Item = &'a Container>) -> String {
    containers
        .map(|c| c.name.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn running(since: Timestamp) -> ContainerState {
    let started_at = Some(Time(since));
    ContainerState {
        running: Some(ContainerStateRunning { started_at }),
        ..ContainerState::default()
    }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: exit.code,
            reason: Some(exit.reason().to_owned()),
            message: exit.message.clone(),
            started_at: exit.started_at.map(Time),
            finished_at: Some(Time(exit.finished_at)),
            container_id: (!exit.id.is_empty()).then(|| format!("{ID_SCHEME}{}", exit.id)),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

/// The runtime's id in a `containerID` of the API.
pub fn bare_id(id: &str) -> &str {
    id.strip_prefix(ID_SCHEME).unwrap_or(id)
}

fn never_ran(container: &Container) -> bool {
    container.run().is_none() && container.exit().is_none() && container.last.is_none()
}
