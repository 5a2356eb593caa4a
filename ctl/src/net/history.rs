//! `peapod net history`: where a pod, a workload's pods, an address's holders have been; what
//! a node or a leaf had.

use std::net::IpAddr;

use anyhow::{Result, bail};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use peapod_api::net::{Placement, PlacementSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use super::show::{Cell, Table, Tone, since};
use super::source::{encoded, list};

/// `peapod net history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A pod, a workload (deployment/web), an IP address, node/NAME or leaf/NAME
    #[arg(value_name = "POD|WORKLOAD|IP|NODE|LEAF")]
    subject: String,
    /// Only what was there within this time until now (90s, 2h, 3d), or since an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was there before this time: how long ago, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// A question to the log: a field, its value, and whether it is about one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    field: &'static str,
    value: String,
    namespaced: bool,
}

/// Shows it.
pub async fn run(context: &Context, args: &HistoryArgs) -> Result<()> {
    let now = Timestamp::now();
    let span = [("since", &args.since), ("until", &args.until)];
    let mut query = String::new();
    for (name, value) in span {
        if let Some(text) = value {
            let time = encoded(&time(text, now)?.to_string());
            query.push_str(&format!("&{name}={time}"));
        }
    }
    let mut found: Vec<Value> = Vec::new();
    for subject in subjects(&args.subject)? {
        let base = "/apis/net.peapod.dev/v1";
        let path = match subject.namespaced && !context.all_namespaces {
            true => format!(
                "{base}/namespaces/{}/placements",
                context.session.namespace()
            ),
            false => format!("{base}/placements"),
        };
        let selector = encoded(&format!("{}={}", subject.field, subject.value));
        found = list(
            &context.session,
            &format!("{path}?fieldSelector={selector}{query}"),
        )
        .await?;
        if !found.is_empty() {
            break;
        }
    }
    if found.is_empty() && context.format.is_table() {
        bail!(
            "nothing is recorded of {:?}; is it in another namespace (-n, -A), or longer ago than is kept (seven days)?",
            args.subject
        );
    }
    let json = json!({
        "apiVersion": "net.peapod.dev/v1",
        "kind": "PlacementList",
        "items": found,
    });
    context.format.print(&json, || table(&read(&found), now))
}

fn read(items: &[Value]) -> Vec<PlacementSpec> {
    let read = items
        .iter()
        .filter_map(|item| Placement::deserialize(item).ok());
    read.map(|placement| placement.spec).collect()
}

/// What a word may mean, the likeliest first.
fn subjects(word: &str) -> Result<Vec<Subject>> {
    let subject = |field, value: &str, namespaced| Subject {
        field,
        value: value.to_owned(),
        namespaced,
    };
    if word.is_empty() {
        bail!("say of what: a pod, deployment/NAME, an IP address, node/NAME or leaf/NAME");
    }
    if let Ok(ip) = word.parse::<IpAddr>() {
        return Ok(vec![subject("spec.ip", &ip.to_string(), false)]);
    }
    if let Some((kind, name)) = word.split_once('/') {
        let workload = match kind.to_lowercase().as_str() {
            "pod" | "pods" | "po" => return Ok(vec![subject("spec.podName", name, true)]),
            "node" | "nodes" | "no" => return Ok(vec![subject("spec.node", name, false)]),
            "leaf" | "leaves" => return Ok(vec![subject("spec.leaf", name, false)]),
            "rack" | "racks" => return Ok(vec![subject("spec.rack", name, false)]),
            "deployment" | "deployments" | "deploy" => "Deployment",
            "statefulset" | "statefulsets" | "sts" => "StatefulSet",
            "daemonset" | "daemonsets" | "ds" => "DaemonSet",
            "replicaset" | "replicasets" | "rs" => "ReplicaSet",
            "replicationcontroller" | "replicationcontrollers" | "rc" => "ReplicationController",
            "job" | "jobs" => "Job",
            "cronjob" | "cronjobs" | "cj" => "CronJob",
            // The kind of somebody's own controller, as its pods' owner references spell it.
            _ => kind,
        };
        let workload = format!("{workload}/{name}");
        return Ok(vec![subject("spec.workload", &workload, true)]);
    }
    let kinds = [
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "CronJob",
        "Job",
        "ReplicaSet",
    ];
    let mut all = vec![subject("spec.podName", word, true)];
    all.extend(
        kinds
            .iter()
            .map(|kind| subject("spec.workload", &format!("{kind}/{word}"), true)),
    );
    all.push(subject("spec.node", word, false));
    all.push(subject("spec.leaf", word, false));
    Ok(all)
}

/// An RFC 3339 time, or how long ago it was.
fn time(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let split = text.len().saturating_sub(1);
    let (number, unit) = text.split_at_checked(split).unwrap_or((text, ""));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    match number.parse::<u32>() {
        Ok(number) if seconds > 0 => {
            Ok(now - SignedDuration::from_secs(i64::from(number) * seconds))
        }
        _ => bail!("{text:?} is no time; say 90s, 15m, 2h, 3d, or an RFC 3339 time"),
    }
}

fn table(placements: &[PlacementSpec], now: Timestamp) -> Table {
    let mut table = Table::wrapping(&[
        "POD",
        "NODE",
        "LEAVES",
        "ADDRESSES",
        "FROM, TO",
        "WHY",
        "+RACK",
        "+WORKLOAD",
        "+UID",
    ]);
    for one in placements {
        let leaves = one.leaves.iter().map(|leaf| match &leaf.interface {
            Some(port) => format!("{}({port})", leaf.name),
            None => leaf.name.clone(),
        });
        let why = match (one.after, &one.replaces) {
            (Some(after), Some(replaces)) => {
                format!("{}: {} was {}", one.reason.word(), replaces, after.word())
            }
            _ => one.reason.word().to_owned(),
        };
        let left = match (one.end_reason, &one.message) {
            (Some(left), Some(message)) => format!(", left: {} ({message})", left.word()),
            (Some(left), None) => format!(", left: {}", left.word()),
            (None, _) => String::new(),
        };
        let (to, tone) = match &one.to {
            Some(to) => (clock(to, now), Tone::Plain),
            None => (format!("now ({})", since(&one.from, now)), Tone::Good),
        };
        table.row(vec![
            one.pod_name.as_str().into(),
            one.node.as_str().into(),
            leaves.collect::<Vec<_>>().join(",").into(),
            one.addresses.join(",").into(),
            Cell::toned(format!("{}, {to}", clock(&one.from, now)), tone),
            format!("{why}{left}").into(),
            one.rack.clone().unwrap_or_default().into(),
            one.workload.as_str().into(),
            one.pod_uid.as_str().into(),
        ]);
    }
    table
}

/// A time to the second, as people write it; in UTC, and without the date if that is today's.
fn clock(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else {
        return time.to_owned();
    };
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    match day(time) == day(now) {
        true => time.strftime("%H:%M:%S").to_string(),
        false => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_api::net::{Arrival, Departure, PlacementLeaf};

    #[test]
    fn words_mean_what_they_look_like() {
        let one = |word| subjects(word).unwrap()[0].clone();
        assert_eq!(one("10.0.0.1").field, "spec.ip");
        assert_eq!(one("fd00::0:1").value, "fd00::1");
        assert_eq!(one("deploy/web").value, "Deployment/web");
        assert_eq!(one("node/n1").field, "spec.node");
        assert_eq!(one("leaf/leaf1").field, "spec.leaf");
        assert_eq!(one("Database/main").value, "Database/main");
        assert_eq!(subjects("web").unwrap().len(), 9);
        assert!(subjects("").is_err());
    }

    #[test]
    fn times_are_absolute_or_ago() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(time("2h", now).unwrap().to_string(), "2026-01-01T22:00:00Z");
        assert_eq!(
            time("2026-01-01T00:00:00Z", now).unwrap().to_string(),
            "2026-01-01T00:00:00Z"
        );
        for bad in ["", "h", "2", "-2h", "yesterday", "2ü"] {
            assert!(time(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_row_tells_why_it_came_and_left() {
        let placement = PlacementSpec {
            pod_name: "web-b".into(),
            node: "n2".into(),
            from: "2026-01-01T00:00:01Z".into(),
            to: Some("2026-01-01T00:05:00Z".into()),
            reason: Arrival::Rescheduled,
            after: Some(Departure::NodeLost),
            replaces: Some("web-a on n1".into()),
            end_reason: Some(Departure::Drained),
            ..Default::default()
        };
        let text = table(&[placement], Timestamp::UNIX_EPOCH).render(false, None, false);
        assert!(
            text.contains("Rescheduled: web-a on n1 was NodeLost, left: Drained"),
            "{text}"
        );
        assert!(text.contains("2026-01-01 00:05:00"), "{text}");
    }

    #[test]
    fn it_fits_80_columns_and_loses_nothing() {
        let leaf = |number: u8| PlacementLeaf {
            name: format!("leaf-{number}"),
            interface: Some(format!("eth{number}")),
        };
        let placement = |pod: &str, to: Option<&str>| PlacementSpec {
            pod_name: pod.into(),
            node: "node-1".into(),
            addresses: vec!["10.244.11.5".into(), "fd00:10:244:11::5".into()],
            leaves: vec![leaf(1), leaf(2)],
            from: "2026-01-02T10:00:01Z".into(),
            to: to.map(str::to_owned),
            reason: Arrival::Rescheduled,
            after: Some(Departure::NodeLost),
            replaces: Some("web-7d9f8c6b5-x2x4z on node-3".into()),
            end_reason: to.map(|_| Departure::Drained),
            ..Default::default()
        };
        let now = "2026-01-02T10:05:01Z".parse().unwrap();
        let all = [
            placement("web-7d9f8c6b5-abcde", Some("2026-01-02T10:04:01Z")),
            placement("web-7d9f8c6b5-fghij", None),
        ];
        let text = table(&all, now).render(false, Some(80), false);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(!text.contains('…'), "{text}");
        for whole in [
            "10.244.11.5",
            "fd00:10:244:11::5",
            "10:00:01",
            "10:04:01",
            "now (5m)",
            "left: Drained",
        ] {
            assert!(text.contains(whole), "{whole}: {text}");
        }
    }
}
