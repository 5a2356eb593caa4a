//! Golden tests: each `golden/NAME.script` is a pod and what happens to it, in virtual time;
//! `NAME.expected` is what the machine did and said. `UPDATE_GOLDEN=1` writes the latter anew.
//!
//! A script is a YAML pod, a line `---`, and one event a line: seconds since the pod came, then
//!
//! ```text
//! volumes | volumes failed TEXT      sandbox IP... | sandbox again IP... | sandbox failed TEXT
//! image NAME | image NAME REASON TEXT
//! started NAME ID                    config NAME TEXT | create NAME TEXT | run NAME ID TEXT
//! exited ID CODE [oom] [MESSAGE]     hook ID post|pre [TEXT of its failure]
//! probe ID KIND ok|warning TEXT|unknown TEXT|TEXT delete SECONDS | gone | change FIELD VALUE | evict TEXT | shutdown SECONDS
//! torn | tear failed TEXT            tick (at the time that was asked for, until then)
//! resize NAME cpu=AMOUNT...          judged fits | judged deferred|infeasible TEXT
//! resized [ID...] [settled] [but TEXT]    room
//! restart RUNNING-ID...              (the agent is killed and comes back)
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use peapod_api::k8s_openapi;

use super::event::{
    Event, Exit, Given, Hook, ImageFault, ImageRef, Observed, ObservedState, Outcome, ProbeKind,
    StartFault,
};
use super::{Action, Eviction, Judgement, Machine};

#[test]
fn golden() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/golden");
    let mut scripts: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "script"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut wrong = Vec::new();
    for script in scripts {
        let transcript = Play::of(&std::fs::read_to_string(&script).unwrap());
        let expected = script.with_extension("expected");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&expected, &transcript).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != transcript {
            wrong.push(format!("{}:\n{transcript}", script.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Play {
    machine: Machine,
    pod: Pod,
    observed: Vec<Observed>,
    transcript: String,
    shown: String,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH
        .checked_add(SignedDuration::from_secs(seconds))
        .unwrap()
}

impl Play {
    fn of(script: &str) -> String {
        let (yaml, events) = script.split_once("\n---\n").unwrap();
        let mut pod: Pod = serde_saphyr::from_str(yaml).unwrap();
        pod.metadata.uid = Some("u1".to_owned());
        pod.metadata.namespace = Some("default".to_owned());
        let mut play = Self {
            machine: Machine::new(Arc::new(pod.clone()), at(0)),
            pod,
            observed: Vec::new(),
            transcript: String::new(),
            shown: String::new(),
        };
        play.event(0, "pod");
        for line in events.lines().filter(|line| !line.trim().is_empty()) {
            if line.starts_with('#') {
                writeln!(play.transcript, "{line}").unwrap();
                continue;
            }
            let (time, event) = line.trim().split_once(' ').unwrap();
            play.event(time.parse().unwrap(), event.trim());
        }
        play.transcript
    }

    fn event(&mut self, time: i64, line: &str) {
        let now = at(time);
        writeln!(self.transcript, "{time:>5}  {line}").unwrap();
        if line == "tick" {
            let due = self.machine.wake_at();
            assert_eq!(due, Some(now), "a tick at {time}, but it is due at {due:?}");
        }
        let actions = match line.strip_prefix("restart") {
            Some(running) => self.restart(running, now),
            None => {
                let event = self.parse(line, now);
                self.machine.handle(event, now)
            }
        };
        for action in actions {
            writeln!(self.transcript, "       -> {}", show_action(&action)).unwrap();
        }
        let status = self.machine.status(&["192.0.2.1".parse().unwrap()]);
        let shown = show_status(&status);
        if shown != self.shown {
            write!(self.transcript, "{shown}").unwrap();
            self.shown = shown;
        }
        if let Some(wake) = self.machine.wake_at() {
            let seconds = wake.as_second();
            writeln!(self.transcript, "       .. until {seconds}").unwrap();
        }
    }

    /// Forgets the machine and builds it again from what the API and the runtime have.
    fn restart(&mut self, running: &str, now: Timestamp) -> Vec<Action> {
        let running: Vec<&str> = running.split_whitespace().collect();
        for seen in &mut self.observed {
            if let ObservedState::Running(since) = seen.state
                && !running.contains(&seen.id.as_str())
            {
                seen.state = ObservedState::Exited(exit(&seen.id, 255, Some(since), now));
            }
        }
        self.pod.status = Some(self.machine.status(&[]));
        let (machine, actions) = Machine::recover(Arc::new(self.pod.clone()), &self.observed, now);
        self.machine = machine;
        actions
    }

    fn parse(&mut self, line: &str, now: Timestamp) -> Event {
        let words: Vec<&str> = line.split_whitespace().collect();
        let rest = |from: usize| words[from..].join(" ");
        let name = |index: usize| words[index].to_owned();
        match words[0] {
            "pod" => Event::Desired(Arc::new(self.pod.clone())),
            "tick" => Event::Tick,
            "dependency" => Event::DependencyChanged,
            "gone" => Event::Gone,
            "evict" => Event::Evicted(Eviction::at_once(rest(1))),
            "shutdown" => Event::Evicted(Eviction::shutdown(words[1].parse().unwrap())),
            "torn" => Event::TornDown,
            "tear" => Event::TearDownFailed(rest(2)),
            "volumes" if words.len() > 1 => Event::VolumesFailed(rest(2)),
            "volumes" => Event::VolumesReady { refresh_at: None },
            "sandbox" if words[1] == "failed" => Event::SandboxFailed(rest(2)),
            "sandbox" => {
                let again = words[1] == "again";
                let ips = words[1 + usize::from(again)..]
                    .iter()
                    .map(|ip| ip.parse().unwrap());
                Event::SandboxReady {
                    ips: ips.collect(),
                    fresh: !again,
                }
            }
            "image" if words.len() > 2 => {
                let reasons = ["ErrImagePull", "ErrImageNeverPull", "InvalidImageName"];
                let reason = reasons
                    .into_iter()
                    .find(|reason| *reason == words[2])
                    .unwrap();
                let fault = ImageFault {
                    reason,
                    message: rest(3),
                };
                Event::ImageFailed {
                    container: name(1),
                    fault,
                }
            }
            "image" => {
                let image = ImageRef {
                    name: "img".into(),
                    id: "img@sha256:1".into(),
                };
                Event::ImageReady {
                    container: name(1),
                    image,
                    pulled: None,
                }
            }
            "started" => self.started(words[1], words[2], now),
            "config" => failed(words[1], StartFault::Config(rest(2))),
            "create" => failed(words[1], StartFault::Create(rest(2))),
            "run" => failed(
                words[1],
                StartFault::Run {
                    id: name(2),
                    message: rest(3),
                },
            ),
            "exited" => self.exited(&words, now),
            "hook" => {
                let hook = if words[2] == "pre" {
                    Hook::PreStop
                } else {
                    Hook::PostStart
                };
                let result = if words.len() > 3 {
                    Err(rest(3))
                } else {
                    Ok(())
                };
                Event::HookDone {
                    id: name(1),
                    hook,
                    result,
                }
            }
            "probe" => {
                let kind = match words[2] {
                    "startup" => ProbeKind::Startup,
                    "liveness" => ProbeKind::Liveness,
                    _ => ProbeKind::Readiness,
                };
                let outcome = match words[3] {
                    "ok" => Outcome::Success,
                    "warning" => Outcome::Warning(rest(4)),
                    "unknown" => Outcome::Unknown(rest(4)),
                    _ => Outcome::Failure(rest(3)),
                };
                Event::Probed {
                    id: name(1),
                    kind,
                    outcome,
                }
            }
            "delete" => {
                self.pod.metadata.deletion_timestamp = Some(Time(now));
                self.pod.metadata.deletion_grace_period_seconds = Some(words[1].parse().unwrap());
                Event::Desired(Arc::new(self.pod.clone()))
            }
            "resize" => {
                let spec = self.pod.spec.as_mut().unwrap();
                let mut all = spec.containers.iter_mut();
                let container = all.find(|c| c.name == words[1]).unwrap();
                container.resources = Some(amounts(&words[2..]));
                Event::Desired(Arc::new(self.pod.clone()))
            }
            "judged" => Event::ResizeJudged(match words[1] {
                "fits" => {
                    self.machine.grant_resize();
                    Judgement::Fits
                }
                "deferred" => Judgement::Deferred(rest(2)),
                _ => Judgement::Infeasible(rest(2)),
            }),
            "resized" => {
                let (ids, error) = line.split_once(" but ").unwrap_or((line, ""));
                let ids = ids.split_whitespace().skip(1);
                let settled = ids.clone().any(|word| word == "settled") && error.is_empty();
                let ids = ids.filter(|word| *word != "settled").map(str::to_owned);
                let given = ids.map(|id| self.given(id)).collect();
                let error = (!error.is_empty()).then(|| error.to_owned());
                Event::Resized {
                    given,
                    settled,
                    error,
                }
            }
            "room" => Event::RoomChanged,
            "change" => {
                assert_eq!(words[1], "image");
                let spec = self.pod.spec.as_mut().unwrap();
                spec.containers[0].image = Some(name(2));
                Event::Desired(Arc::new(self.pod.clone()))
            }
            other => panic!("no event is called {other}"),
        }
    }

    /// A container with what is allocated to it.
    fn given(&self, id: String) -> Given {
        let seen = self.observed.iter().find(|seen| seen.id == id).unwrap();
        let pod = self.machine.pod();
        let container = super::find_container(pod, &seen.container).unwrap();
        Given {
            id,
            resources: container.resources.clone().unwrap_or_default(),
        }
    }

    fn started(&mut self, container: &str, id: &str, now: Timestamp) -> Event {
        let attempt = self
            .observed
            .iter()
            .filter(|seen| seen.container == container)
            .count();
        let spec_image = super::find(&self.pod, container).unwrap().image.to_owned();
        self.observed.push(Observed {
            container: container.to_owned(),
            id: id.to_owned(),
            attempt: u32::try_from(attempt).unwrap(),
            spec_image,
            image: ImageRef {
                name: "img".into(),
                id: "img@sha256:1".into(),
            },
            state: ObservedState::Running(now),
        });
        Event::Started {
            container: container.to_owned(),
            id: id.to_owned(),
            at: now,
        }
    }

    fn exited(&mut self, words: &[&str], now: Timestamp) -> Event {
        let seen = self.observed.iter_mut().find(|seen| seen.id == words[1]);
        let since = match seen.as_ref().map(|seen| &seen.state) {
            Some(ObservedState::Running(since)) => Some(*since),
            _ => None,
        };
        let mut exit = exit(words[1], words[2].parse().unwrap(), since, now);
        exit.oom = words.get(3) == Some(&"oom");
        let text = words[3 + usize::from(exit.oom)..].join(" ");
        exit.message = (!text.is_empty()).then_some(text);
        if let Some(seen) = seen {
            seen.state = ObservedState::Exited(exit.clone());
        }
        Event::Exited(exit)
    }
}

/// `cpu=1 memory=1Gi` as requests and limits.
fn amounts(words: &[&str]) -> ResourceRequirements {
    let pairs = words.iter().map(|word| word.split_once('=').unwrap());
    let all: BTreeMap<_, _> = pairs
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .collect();
    ResourceRequirements {
        limits: Some(all.clone()),
        requests: Some(all),
        claims: None,
    }
}

fn exit(id: &str, code: i32, since: Option<Timestamp>, now: Timestamp) -> Exit {
    Exit {
        id: id.to_owned(),
        code,
        reason: None,
        oom: false,
        message: None,
        started_at: since,
        finished_at: now,
    }
}

fn failed(container: &str, fault: StartFault) -> Event {
    Event::StartFailed {
        container: container.to_owned(),
        fault,
    }
}

fn show_action(action: &Action) -> String {
    match action {
        Action::SyncVolumes => "sync volumes".to_owned(),
        Action::CreateSandbox => "create sandbox".to_owned(),
        Action::EnsureImage { container } => format!("ensure image of {container}"),
        Action::StartContainer {
            container, attempt, ..
        } => {
            format!("start {container}, attempt {attempt}")
        }
        Action::RunHook { id, hook, .. } => format!("run {hook:?} of {id}"),
        Action::Probe { id, kind, .. } => format!("probe {kind:?} of {id}"),
        Action::Signal { id, signal, .. } => format!("signal {id}: {signal:?}"),
        Action::JudgeResize => "judge the resize".to_owned(),
        Action::Resize { containers, settle } => {
            let ids: Vec<&str> = containers.iter().map(|(_, id)| id.as_str()).collect();
            let settle = if *settle { ", then the pod" } else { "" };
            format!("resize [{}]{settle}", ids.join(" "))
        }
        Action::RemoveContainer { id } => format!("remove {id}"),
        Action::TearDown { purge } => format!("tear down{}", if *purge { ", purge" } else { "" }),
        Action::Finish => "finish".to_owned(),
        Action::Record(note) => {
            let of = note
                .container
                .as_deref()
                .map(|c| format!(" ({c})"))
                .unwrap_or_default();
            format!(
                "event {:?} {}{of}: {}",
                note.severity, note.reason, note.message
            )
        }
    }
}

fn show_status(status: &PodStatus) -> String {
    let mut text = String::new();
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let holds: Vec<_> = conditions
        .iter()
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.type_.as_str())
        .collect();
    let phase = status.phase.as_deref().unwrap_or_default();
    let reason = status
        .reason
        .as_deref()
        .map(|r| format!(" ({r})"))
        .unwrap_or_default();
    let ip = status
        .pod_ip
        .as_deref()
        .map(|ip| format!(" {ip}"))
        .unwrap_or_default();
    writeln!(text, "       == {phase}{reason}{ip} [{}]", holds.join(" ")).unwrap();
    let all = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    for status in all.into_iter().flatten().flatten() {
        writeln!(text, "          {}", show_container(status)).unwrap();
    }
    text
}

fn show_container(status: &ContainerStatus) -> String {
    let state = status.state.as_ref().map(show_state).unwrap_or_default();
    let last = status
        .last_state
        .as_ref()
        .map(|l| format!(", last {}", show_state(l)));
    let ready = if status.ready { ", ready" } else { "" };
    let restarts = match status.restart_count {
        0 => String::new(),
        count => format!(", restarts {count}"),
    };
    let given = status.resources.as_ref().and_then(|r| r.limits.as_ref());
    let given: String = given
        .into_iter()
        .flatten()
        .map(|(name, amount)| format!(", {name} {}", amount.0))
        .collect();
    format!(
        "{}: {state}{ready}{restarts}{}{given}",
        status.name,
        last.unwrap_or_default()
    )
}

fn show_state(state: &k8s_openapi::api::core::v1::ContainerState) -> String {
    let with = |text: &Option<String>| {
        text.as_deref()
            .map(|text| format!(" \"{text}\""))
            .unwrap_or_default()
    };
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        return format!("waiting {reason}{}", with(&waiting.message));
    }
    if let Some(ended) = &state.terminated {
        let reason = ended.reason.as_deref().unwrap_or_default();
        return format!(
            "terminated {reason} {}{}",
            ended.exit_code,
            with(&ended.message)
        );
    }
    "running".to_owned()
}
