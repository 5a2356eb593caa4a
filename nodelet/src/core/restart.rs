//! Whether a container that has ended runs again: by its rules for exit codes, its own policy, and the pod's, in
//! this order (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy>). A rule may ask
//! for more: that all containers of the pod begin anew, init containers too, with what else the pod has (KEP-5532).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerRestartRule, Pod};
use peapod_api::k8s_openapi;

use super::container::Container;
use super::event::{Exit, Kind};
use super::machine::Machine;
use super::spec::{self, View};

/// The condition that says that all begin anew.
pub const RESTARTING: &str = "AllContainersRestarting";
/// The actions of rules.
const RESTART: &str = "Restart";
const RESTART_ALL: &str = "RestartAllContainers";

impl Container {
    /// Whether it runs again after it ended so.
    pub fn wants_restart(&self, pod: &Pod, exit: &Exit) -> bool {
        let Some(view) = spec::find(pod, &self.name) else {
            return false;
        };
        let by_rule = || matches!(action(&view, exit), Some(RESTART | RESTART_ALL));
        let pods = spec::of(pod).restart_policy.as_deref();
        let policy = view.restart_policy.or(pods).unwrap_or("Always");
        match self.kind {
            Kind::Sidecar => true,
            Kind::Ephemeral => false,
            Kind::Init => exit.code != 0 && (policy != "Never" || by_rule()),
            Kind::App => match policy {
                "Never" => by_rule(),
                "OnFailure" => exit.code != 0 || by_rule(),
                _ => true,
            },
        }
    }

    /// Whether it has ended so that a rule asks for all to begin anew.
    pub fn asks_for_all(&self, pod: &Pod) -> bool {
        match (spec::find(pod, &self.name), self.exit()) {
            (Some(view), Some(exit)) => action(&view, exit) == Some(RESTART_ALL),
            _ => false,
        }
    }
}

impl Machine {
    /// Lets all containers begin anew if one asks for it: they are ended at once, without hooks. Gives whether that
    /// is underway.
    pub(super) fn restart_all(&mut self, now: Timestamp) -> bool {
        let pod = self.pod.clone();
        let asking = self.containers.iter().filter(|c| c.asks_for_all(&pod));
        let Some(pause) = asking.map(|c| c.crash.until()).max() else {
            return false;
        };
        let lasting = |c: &&Container| c.kind != Kind::Ephemeral && c.active();
        let running: Vec<String> = self
            .containers
            .iter()
            .filter(lasting)
            .map(|c| c.name.clone())
            .collect();
        for name in &running {
            let message = format!("Container {name} will be restarted with all of the pod");
            self.stop(name, 0, &message, now);
        }
        if !running.is_empty() {
            return true;
        }
        if let Some(at) = pause.filter(|at| *at > now) {
            self.wait_until(at);
            return true;
        }
        let all = self.containers.iter_mut();
        all.filter(|c| c.kind != Kind::Ephemeral)
            .for_each(Container::reset);
        false
    }

    /// Whether all are to begin anew; `None` in a pod without a rule that can ask for it.
    pub(super) fn restarts_all(&self) -> Option<bool> {
        let asks = |rule: &ContainerRestartRule| rule.action == RESTART_ALL;
        let could = spec::view(&self.pod).any(|view| view.restart_rules.iter().any(asks));
        let asked = || self.containers.iter().any(|c| c.asks_for_all(&self.pod));
        could.then(|| self.ending.is_none() && asked())
    }
}

/// What the first rule for an exit code asks for.
fn action<'a>(view: &View<'a>, exit: &Exit) -> Option<&'a str> {
    let applies = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let named = codes.values.iter().flatten().any(|code| *code == exit.code);
            match codes.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                _ => false,
            }
        })
    };
    let rule = view.restart_rules.iter().find(applies)?;
    Some(rule.action.as_str())
}
