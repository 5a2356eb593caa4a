//! The end of a pod: its containers in order, then all it has on the node, then itself.

use jiff::Timestamp;

use super::container::Container;
use super::event::{Action, Hook, Kind};
use super::machine::{Ending, Machine, Part, Verdict};
use super::spec;
use super::stop::{Stage, Stop, later};

/// `status.reason` of a pod that the node ended for its own sake.
pub const EVICTED: &str = "Evicted";
/// The same of one that ended with the machine.
pub const TERMINATED: &str = "Terminated";
/// What an evicted pod's processes have to end, seconds.
const EVICTION_GRACE_S: i64 = 1;

/// Why the node ends a pod that nobody deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// [`EVICTED`] or [`TERMINATED`]
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// What the pod's processes have to end at most, seconds; less if the pod itself says so.
    pub grace_s: i64,
}

impl Eviction {
    /// The pod takes more than it may of what the node has; the sentence says of what. As upstream beyond
    /// a hard threshold, there is no time for the pod's own grace.
    pub fn at_once(message: String) -> Self {
        Self {
            reason: EVICTED,
            message,
            grace_s: EVICTION_GRACE_S,
        }
    }

    /// The node has been short of something for a while; the processes have so long to end at most.
    pub fn within(message: String, grace_s: i64) -> Self {
        Self {
            reason: EVICTED,
            message,
            grace_s: grace_s.max(EVICTION_GRACE_S),
        }
    }

    /// The machine goes down.
    pub fn shutdown(grace_s: i64) -> Self {
        Self {
            reason: TERMINATED,
            message: "Pod was terminated in response to imminent node shutdown.".to_owned(),
            grace_s,
        }
    }
}

impl Machine {
    /// Begins the pod's end, or hurries it.
    pub(super) fn end(&mut self, grace_s: i64, purge: bool, now: Timestamp) {
        let deadline = later(now, grace_s.max(0));
        match &mut self.ending {
            None => self.ending = Some(Ending { deadline, purge }),
            Some(ending) => {
                ending.deadline = ending.deadline.min(deadline);
                ending.purge |= purge;
            }
        }
    }

    /// The node cannot keep the pod. What has ended already stays as it ended.
    pub(super) fn evict(&mut self, eviction: Eviction, now: Timestamp) {
        if self.verdict.is_some() || !self.occupies() {
            return;
        }
        let Eviction {
            reason, message, ..
        } = eviction;
        self.warn(reason, message.clone(), None);
        self.verdict = Some(Verdict {
            reason: reason.to_owned(),
            message,
        });
        self.end(eviction.grace_s.min(self.grace_s()), false, now);
    }

    pub(super) fn step_end(&mut self, now: Timestamp) {
        let Some(ending) = self.ending.clone() else {
            return;
        };
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
            self.actions.push(Action::TearDown {
                purge: ending.purge,
            });
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
            let Some(run) = container.run_mut() else {
                continue;
            };
            match &mut run.stop {
                Some(stop) => stop.hurry(ending.deadline),
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
    pub(super) fn stop(&mut self, name: &str, grace_s: i64, message: &str, now: Timestamp) {
        let pod = self.pod.clone();
        let Some(view) = spec::find(&pod, name) else {
            return;
        };
        let Some(run) = self.container(name).and_then(Container::run_mut) else {
            return;
        };
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
            self.actions.push(Action::RunHook {
                container,
                id,
                hook: Hook::PreStop,
            });
        }
    }
}
