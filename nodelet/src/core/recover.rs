//! The machine of a pod that was here before: from the API's status and the runtime's
//! containers, so that a restart of the agent restarts nothing and loses no count.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::k8s_openapi;

use super::container::{Container, Run, State};
use super::event::{Action, Event, Exit, ImageRef, Kind, Observed, ObservedState, ProbeKind};
use super::machine::{Ending, Machine, Verdict};
use super::resize::{allocated, resources_of};
use super::spec::{View, view};
use super::status::bare_id;

/// The exit of a container whose end nobody saw.
pub fn lost(id: &str, started_at: Option<Timestamp>, now: Timestamp) -> Exit {
    Exit {
        id: id.to_owned(),
        code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        oom: false,
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        started_at,
        finished_at: now,
    }
}

impl Machine {
    /// A pod as the API and the runtime know it; the first step's actions come with it.
    pub fn recover(pod: Arc<Pod>, observed: &[Observed], now: Timestamp) -> (Self, Vec<Action>) {
        let mut machine = Self::new(pod.clone(), now);
        let status = pod.status.clone().unwrap_or_default();
        if let Some(Time(at)) = status.start_time {
            machine.start_time = at;
        }
        machine.ips = addresses(&status);
        machine.pod = given_before(&pod, &status);
        let mut stale = Vec::new();
        machine.containers = view(&pod)
            .map(|view| {
                let told = told(&status, &view);
                let mut seen: Vec<&Observed> = observed
                    .iter()
                    .filter(|seen| seen.container == view.name)
                    .collect();
                seen.sort_by_key(|seen| std::cmp::Reverse(seen.attempt));
                stale.extend(seen.iter().skip(2).map(|seen| seen.id.clone()));
                let mut container = restore(&pod, &view, told, &seen, now);
                container.given = resources_of(&machine.pod, view.name).cloned();
                container
            })
            .collect();
        // As they were told, with the times since when they hold: those of a new pod are none of this one's.
        machine.conditions = status.conditions.clone().unwrap_or_default();
        let over = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        if over && status.reason.is_some() {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            let (reason, message) = (text(&status.reason), text(&status.message));
            machine.verdict = Some(Verdict { reason, message });
        }
        if over {
            machine.ending = Some(Ending {
                deadline: now,
                purge: false,
            });
        }
        // What runs was connected before; asking again changes nothing for it.
        let runs = machine.containers.iter().any(Container::active);
        machine.connected = runs && !machine.ips.is_empty();
        let mut actions = machine.handle(Event::Desired(pod), now);
        actions.extend(stale.into_iter().map(|id| Action::RemoveContainer { id }));
        (machine, actions)
    }
}

/// The pod with the resources that its containers were given, by what the API was told.
fn given_before(pod: &Arc<Pod>, status: &PodStatus) -> Arc<Pod> {
    let mut before = Pod::clone(pod);
    let Some(spec) = &mut before.spec else {
        return pod.clone();
    };
    let told = [&status.init_container_statuses, &status.container_statuses];
    let told = || told.into_iter().flatten().flatten();
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        let told = told().find(|told| told.name == container.name);
        if let Some(resources) = told.and_then(|told| told.resources.clone()) {
            container.resources = Some(resources);
        }
    }
    if spec.resources.is_some() && status.resources.is_some() {
        spec.resources.clone_from(&status.resources);
    }
    allocated(pod, &before)
}

fn addresses(status: &PodStatus) -> Vec<IpAddr> {
    let ips = status.pod_ips.as_deref().unwrap_or_default();
    ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect()
}

fn told<'a>(status: &'a PodStatus, view: &View) -> Option<&'a ContainerStatus> {
    let list = match view.kind {
        Kind::Init | Kind::Sidecar => &status.init_container_statuses,
        Kind::App => &status.container_statuses,
        Kind::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.as_deref()?
        .iter()
        .find(|status| status.name == view.name)
}

/// One container from what was told to the API and what the runtime has, newest first.
fn restore(
    pod: &Pod,
    view: &View,
    told: Option<&ContainerStatus>,
    seen: &[&Observed],
    now: Timestamp,
) -> Container {
    let mut container = Container::new(view);
    let count = told
        .and_then(|t| u32::try_from(t.restart_count).ok())
        .unwrap_or(0);
    container.restarts = count;
    container.image = told.filter(|t| !t.image_id.is_empty()).map(|t| ImageRef {
        name: t.image.clone(),
        id: t.image_id.clone(),
    });
    container.last = told.and_then(|t| exit_of(t.last_state.as_ref()?.terminated.as_ref()?));
    let newest = seen
        .iter()
        .find(|seen| seen.state != ObservedState::Created);
    match newest {
        Some(newest) => adopt(&mut container, view, told, newest),
        None => remember(&mut container, told, now),
    }
    if let Some(before) = seen.get(1)
        && let ObservedState::Exited(exit) = &before.state
        && container.last.is_none()
    {
        container.last = Some(exit.clone());
    }
    // It was to begin anew with all of the pod.
    let anew = |exit: &Exit| {
        let begins = told.is_some_and(|told| told_to_begin(told, &exit.id));
        begins && (container.asks_for_all(pod) || !container.wants_restart(pod, exit))
    };
    if container.exit().is_some_and(anew) {
        container.reset();
    }
    if let Some(exit) = container.exit() {
        let (at, restarts) = (exit.finished_at, container.restarts);
        container.crash.resume(restarts, at);
    }
    container
}

/// Whether the API was told that a container waits for its start, after one that had ended.
fn told_to_begin(told: &ContainerStatus, before: &str) -> bool {
    let waits = |state: &ContainerState| state.waiting.is_some();
    let last = told
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref());
    let last = last
        .and_then(|last| last.container_id.as_deref())
        .map(bare_id);
    told.state.as_ref().is_some_and(waits) && last == Some(before)
}

/// Takes over a container that the runtime has.
fn adopt(container: &mut Container, view: &View, told: Option<&ContainerStatus>, seen: &Observed) {
    container.restarts = container.restarts.max(seen.attempt);
    // The runtime knows the image by the pod's word for it, the API by its whole name.
    let same = told
        .and_then(|told| told.container_id.as_deref())
        .map(bare_id)
        == Some(seen.id.as_str());
    if !same || container.image.is_none() {
        container.image = Some(seen.image.clone());
    }
    match &seen.state {
        ObservedState::Created => {}
        ObservedState::Exited(exit) => container.state = State::Exited(exit.clone()),
        ObservedState::Running(since) => {
            let since = &started_as_told(told, &seen.id).unwrap_or(*since);
            container.state = State::Running(Run {
                id: seen.id.clone(),
                started_at: *since,
                spec_image: seen.spec_image.clone(),
                // A hook that was running when the agent died is not run twice.
                post_start_done: true,
                probes: Vec::new(),
                stop: None,
            });
            container.arm_probes(view, *since);
            carry_probes(container, told, &seen.id);
        }
    }
    let id = container.run().map(|run| run.id.clone());
    let last_is_current = container.last.as_ref().map(|exit| &exit.id) == id.as_ref();
    if last_is_current {
        container.last = None;
    }
}

/// When the API was told that a container that runs was started: the runtime's own time may be a moment
/// earlier.
fn started_as_told(told: Option<&ContainerStatus>, id: &str) -> Option<Timestamp> {
    let told = told?;
    let same = told.container_id.as_deref().map(bare_id) == Some(id);
    let running = told.state.as_ref()?.running.as_ref();
    let Time(at) = running.filter(|_| same)?.started_at.clone()?;
    Some(at)
}

/// What the probes had found holds until they find otherwise.
fn carry_probes(container: &mut Container, told: Option<&ContainerStatus>, id: &str) {
    let Some(told) = told else { return };
    let same = told.container_id.as_deref().map(bare_id) == Some(id);
    let Some(run) = container.run_mut().filter(|_| same) else {
        return;
    };
    for probe in &mut run.probes {
        match probe.kind {
            ProbeKind::Startup => probe.passing = told.started == Some(true),
            ProbeKind::Readiness => probe.passing = told.ready,
            ProbeKind::Liveness => {}
        }
    }
}

/// Believes the API about a container that the runtime does not have (any more).
fn remember(container: &mut Container, told: Option<&ContainerStatus>, now: Timestamp) {
    let Some(state) = told.and_then(|t| t.state.as_ref()) else {
        return;
    };
    let id = told
        .and_then(|t| t.container_id.as_deref())
        .map(bare_id)
        .unwrap_or_default();
    if let Some(exit) = state.terminated.as_ref().and_then(exit_of) {
        container.state = State::Exited(exit);
    } else if let Some(running) = &state.running {
        let since = running.started_at.as_ref().map(|Time(at)| *at);
        container.state = State::Exited(lost(id, since, now));
    } else if let Some(exit) = container.last.take() {
        // It waited for its restart.
        container.state = State::Exited(exit);
    }
}

fn exit_of(terminated: &ContainerStateTerminated) -> Option<Exit> {
    let Time(finished_at) = terminated.finished_at.clone()?;
    Some(Exit {
        id: terminated
            .container_id
            .as_deref()
            .map(bare_id)
            .unwrap_or_default()
            .to_owned(),
        code: terminated.exit_code,
        reason: terminated.reason.clone(),
        oom: false,
        message: terminated.message.clone(),
        started_at: terminated.started_at.as_ref().map(|Time(at)| *at),
        finished_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::event::Outcome;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn who_comes_back_to_what_runs_has_nothing_to_tell() {
        let pod = json!({
            "metadata": {"name": "a", "uid": "u", "generation": 1},
            "spec": {"containers": [
                {"name": "c", "image": "i", "readinessProbe": {"tcpSocket": {"port": 80}}}]},
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let image = ImageRef {
            name: "i".to_owned(),
            id: "i@sha256:1".to_owned(),
        };
        let mut machine = Machine::new(Arc::new(pod.clone()), at(0));
        let (container, ips) = ("c".to_owned(), vec!["10.0.0.1".parse().unwrap()]);
        for event in [
            Event::Desired(Arc::new(pod.clone())),
            Event::VolumesReady { refresh_at: None },
            Event::SandboxReady { ips, fresh: true },
            Event::ImageReady {
                container: container.clone(),
                image: image.clone(),
                pulled: None,
            },
            Event::Started {
                container,
                id: "c1".to_owned(),
                at: at(2),
            },
            Event::Probed {
                id: "c1".to_owned(),
                kind: ProbeKind::Readiness,
                outcome: Outcome::Success,
            },
        ] {
            machine.handle(event, at(3));
        }
        let told = machine.status(&[]);
        let ready = told
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == "Ready");
        assert_eq!(ready.unwrap().status, "True");

        let image = ImageRef {
            name: "another word for i".to_owned(),
            ..image
        };
        let observed = Observed {
            container: "c".to_owned(),
            id: "c1".to_owned(),
            attempt: 0,
            spec_image: "i".to_owned(),
            image,
            state: ObservedState::Running(at(1)),
        };
        let before = Pod {
            status: Some(told.clone()),
            ..pod
        };
        let (machine, _) = Machine::recover(Arc::new(before), &[observed], at(100));
        assert_eq!(machine.status(&[]), told);
    }
}
