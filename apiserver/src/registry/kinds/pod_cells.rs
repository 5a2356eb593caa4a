//! The table of pods. `Status` and `Restarts` sum up the containers' states as kubectl's users
//! know them.

use jiff::Timestamp;
use serde_json::Value;

use crate::registry::cells::NONE;
use crate::registry::columns::{self, Column};
use crate::registry::value;

/// The columns.
pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::computed("Ready", "string", |pod, _| ready(pod).into())
            .described("The aggregate readiness state of this pod for accepting traffic."),
        Column::computed("Status", "string", |pod, _| status(pod).into())
            .described("The aggregate status of the containers in this pod."),
        Column::computed("Restarts", "string", |pod, now| restarts(pod, now).into())
            .described("The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
        Column::age(),
        Column::computed("IP", "string", |pod, _| text_or_none(pod, "status.podIP")).wide(),
        Column::computed("Node", "string", |pod, _| text_or_none(pod, "spec.nodeName")).wide(),
        Column::computed("Nominated Node", "string", |pod, _| {
            text_or_none(pod, "status.nominatedNodeName")
        })
        .wide(),
        Column::computed("Readiness Gates", "string", |pod, _| gates(pod).into()).wide(),
    ]
}

fn text_or_none(pod: &Value, path: &str) -> Value {
    match value::text(pod, path) {
        "" => NONE.into(),
        text => text.into(),
    }
}

/// Whether an init container runs beside the others.
fn is_sidecar(pod: &Value, name: &str) -> bool {
    value::list(pod, "spec.initContainers")
        .iter()
        .any(|container| {
            value::text(container, "name") == name
                && value::text(container, "restartPolicy") == "Always"
        })
}

fn sidecar_statuses(pod: &Value) -> impl Iterator<Item = &Value> {
    let statuses = value::list(pod, "status.initContainerStatuses").iter();
    statuses.filter(|status| is_sidecar(pod, value::text(status, "name")))
}

fn ready(pod: &Value) -> String {
    let sidecars = value::list(pod, "spec.initContainers").iter();
    let sidecars = sidecars
        .filter(|c| value::text(c, "restartPolicy") == "Always")
        .count();
    let total = value::list(pod, "spec.containers").len() + sidecars;
    let main = value::list(pod, "status.containerStatuses").iter();
    let up = |status: &&Value| value::truth(status, "ready") && is_running(status);
    let side_up = |status: &&Value| value::truth(status, "ready");
    let ready = main.filter(up).count() + sidecar_statuses(pod).filter(side_up).count();
    format!("{ready}/{total}")
}

fn is_running(status: &Value) -> bool {
    value::at(status, "state.running").is_some()
}

fn status(pod: &Value) -> String {
    let mut reason = value::text(pod, "status.phase").to_owned();
    let own = value::text(pod, "status.reason");
    if !own.is_empty() {
        reason = own.to_owned();
    }
    let gated = value::list(pod, "status.conditions")
        .iter()
        .any(|condition| {
            value::text(condition, "type") == "PodScheduled"
                && value::text(condition, "reason") == "SchedulingGated"
        });
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    match initialising(pod) {
        Some(state) => reason = state,
        None => main_reason(pod, &mut reason),
    }
    if value::at(pod, "metadata.deletionTimestamp").is_some() {
        reason = match own {
            "NodeLost" => "Unknown".to_owned(),
            _ if matches!(value::text(pod, "status.phase"), "Failed" | "Succeeded") => reason,
            _ => "Terminating".to_owned(),
        };
    }
    reason
}

/// What the first init container that is not done is doing: `Init:0/2`, `Init:ErrImagePull`.
fn initialising(pod: &Value) -> Option<String> {
    let total = value::list(pod, "spec.initContainers").len();
    let statuses = value::list(pod, "status.initContainerStatuses");
    for (index, status) in statuses.iter().enumerate() {
        let sidecar = is_sidecar(pod, value::text(status, "name"));
        let exit = value::integer(status, "state.terminated.exitCode");
        let waiting = value::text(status, "state.waiting.reason");
        return Some(match exit {
            Some(0) => continue,
            _ if sidecar && value::truth(status, "started") => continue,
            Some(_) => format!("Init:{}", ended(status)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{index}/{total}"),
        });
    }
    None
}

/// Why a container ended, as `Completed`, `Signal:9` or `ExitCode:1`.
fn ended(status: &Value) -> String {
    let part = |name: &str| value::integer(status, &format!("state.terminated.{name}"));
    match value::text(status, "state.terminated.reason") {
        "" => match part("signal") {
            Some(signal) if signal != 0 => format!("Signal:{signal}"),
            _ => format!("ExitCode:{}", part("exitCode").unwrap_or(0)),
        },
        reason => reason.to_owned(),
    }
}

fn main_reason(pod: &Value, reason: &mut String) {
    let mut running = false;
    for status in value::list(pod, "status.containerStatuses").iter().rev() {
        let waiting = value::text(status, "state.waiting.reason");
        if !waiting.is_empty() {
            *reason = waiting.to_owned();
        } else if value::at(status, "state.terminated").is_some() {
            *reason = ended(status);
        } else if value::truth(status, "ready") && is_running(status) {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let is_ready = value::list(pod, "status.conditions")
            .iter()
            .any(|condition| {
                value::text(condition, "type") == "Ready"
                    && value::text(condition, "status") == "True"
            });
        *reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn restarts(pod: &Value, now: Timestamp) -> String {
    let main = value::list(pod, "status.containerStatuses").iter();
    let (mut count, mut last) = (0, None);
    let initialising = initialising(pod).is_some();
    let init = value::list(pod, "status.initContainerStatuses").iter();
    let counted: Vec<&Value> = match initialising {
        true => init.collect(),
        false => main.chain(sidecar_statuses(pod)).collect(),
    };
    for status in counted {
        count += value::integer(status, "restartCount").unwrap_or(0);
        let ended = value::text(status, "lastState.terminated.finishedAt");
        last = last.max(ended.parse::<Timestamp>().ok());
    }
    match last {
        Some(last) if count > 0 => {
            let ago = columns::human_duration(now.as_second() - last.as_second());
            format!("{count} ({ago} ago)")
        }
        _ => count.to_string(),
    }
}

fn gates(pod: &Value) -> String {
    let gates = value::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let conditions = value::list(pod, "status.conditions");
    let met = gates.iter().filter(|gate| {
        let kind = value::text(gate, "conditionType");
        conditions.iter().any(|condition| {
            value::text(condition, "type") == kind && value::text(condition, "status") == "True"
        })
    });
    format!("{}/{}", met.count(), gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(pod: Value) -> String {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let cells = columns().into_iter().skip(1).take(3);
        let cells = cells.map(|column| column.cell(&pod, now).as_str().unwrap().to_owned());
        cells.collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn pods_are_summed_up_as_upstream() {
        let running =
            json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let spec = json!({"containers": [{"name": "a"}]});
        for (status, expected) in [
            (json!({"phase": "Pending"}), "0/1 | Pending | 0"),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                "1/1 | Running | 0",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [
                    {"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
                "0/1 | ImagePullBackOff | 0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 3,
                    "lastState": {"terminated": {"finishedAt": "2026-01-02T03:03:05Z"}},
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "0/1 | CrashLoopBackOff | 3 (60s ago)",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [
                    {"name": "a", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}),
                "0/1 | Completed | 0",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "a", "state": {"terminated": {"exitCode": 7}}}]}),
                "0/1 | ExitCode:7 | 0",
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                "0/1 | Evicted | 0",
            ),
        ] {
            assert_eq!(row(json!({"spec": spec, "status": status})), expected);
        }
    }

    #[test]
    fn init_containers_come_first() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let of = |statuses: Value| {
            row(
                json!({"spec": spec, "status": {"phase": "Pending", "initContainerStatuses": statuses}}),
            )
        };
        assert_eq!(
            of(json!([{"name": "i", "state": {"running": {}}}])),
            "0/2 | Init:0/2 | 0"
        );
        let failed = json!([{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]);
        assert_eq!(of(failed), "0/2 | Init:Error | 2");
        let side = json!([
            {"name": "i", "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "started": true, "ready": true, "state": {"running": {}}},
        ]);
        assert_eq!(of(side), "1/2 | Pending | 0");
    }

    #[test]
    fn what_is_being_deleted_is_terminating() {
        let pod = json!({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Running"}});
        assert_eq!(row(pod), "0/1 | Terminating | 0");
    }
}
