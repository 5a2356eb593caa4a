//! What a node says that is used on it, and what follows from two such accounts. Pure.
//!
//! CPU is counted from a container's start on: what is used now is the growth between two
//! accounts. Memory is the working set of the later one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::value;

/// What is used in all up to a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// When it was measured.
    pub time: Timestamp,
    /// Nanoseconds of CPU since the start.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
}

/// The accounts of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The whole node's.
    pub node: Option<Account>,
    /// Of each pod, by namespace and name: its UID, and its containers by name.
    pub pods: BTreeMap<(String, String), (String, BTreeMap<String, Account>)>,
}

/// What is used at present.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use {
    /// Until when it was measured.
    pub time: Timestamp,
    /// Over how many seconds.
    pub window: f64,
    /// Nanocores of CPU.
    pub cpu: u64,
    /// Bytes of memory.
    pub memory: u64,
}

// === impl Account ===

impl Account {
    fn of(object: &Value) -> Option<Self> {
        let number = |path| value::at(object, path).and_then(Value::as_u64);
        Some(Self {
            time: value::text(object, "cpu.time").parse().ok()?,
            cpu: number("cpu.usageCoreNanoSeconds")?,
            memory: number("memory.workingSetBytes")?,
        })
    }

    /// What was used since an earlier account; none when it began anew since, or no time passed.
    pub fn since(&self, earlier: &Self) -> Option<Use> {
        let window = self.time.duration_since(earlier.time).as_secs_f64();
        let used = self.cpu.checked_sub(earlier.cpu)?;
        (window > 0.0).then(|| Use {
            time: self.time,
            window,
            // Far below 2^53 for any machine.
            cpu: (used as f64 / window) as u64,
            memory: self.memory,
        })
    }
}

// === impl Summary ===

impl Summary {
    /// Reads the kubelet API's `/stats/summary`.
    pub fn of(document: &Value) -> Self {
        let named = |object: &Value| {
            let name = value::text(object, "name").to_owned();
            Some((name, Account::of(object)?))
        };
        let pods = value::list(document, "pods").iter().map(|pod| {
            let text = |path| value::text(pod, path).to_owned();
            let containers = value::list(pod, "containers").iter();
            let key = (text("podRef.namespace"), text("podRef.name"));
            (
                key,
                (text("podRef.uid"), containers.filter_map(named).collect()),
            )
        });
        Self {
            node: value::at(document, "node").and_then(Account::of),
            pods: pods.collect(),
        }
    }

    /// What the node uses, since an earlier summary of it.
    pub fn node_since(&self, earlier: &Self) -> Option<Use> {
        self.node?.since(&earlier.node?)
    }

    /// What each container of a pod uses; none when that of one of them is not known yet.
    pub fn pod_since(
        &self,
        earlier: &Self,
        namespace: &str,
        name: &str,
    ) -> Option<Vec<(&str, Use)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let (uid, now) = self.pods.get(&key)?;
        let (before_uid, before) = earlier.pods.get(&key)?;
        if uid != before_uid || now.is_empty() {
            return None;
        }
        let uses = now.iter().map(|(container, account)| {
            Some((container.as_str(), account.since(before.get(container)?)?))
        });
        uses.collect()
    }
}

// === impl Use ===

impl Use {
    fn usage(&self) -> Value {
        json!({
            "cpu": format!("{}n", self.cpu),
            "memory": format!("{}Ki", self.memory / 1024),
        })
    }

    fn frame(&self, kind: &str, meta: Value) -> Value {
        json!({
            "kind": kind,
            "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": meta,
            "timestamp": self.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "window": format!("{:.3}s", self.window),
        })
    }

    /// `NodeMetrics` with these metadata.
    pub fn node(&self, meta: Value) -> Value {
        let mut object = self.frame("NodeMetrics", meta);
        object["usage"] = self.usage();
        object
    }

    /// `PodMetrics` of some containers with these metadata; none of no containers.
    pub fn pod(meta: Value, containers: &[(&str, Use)]) -> Option<Value> {
        let (_, first) = containers.first()?;
        let mut object = first.frame("PodMetrics", meta);
        let shown = containers.iter();
        let shown = shown.map(|(name, used)| json!({"name": name, "usage": used.usage()}));
        object["containers"] = shown.collect();
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(time: &str, uid: &str, cpu: [u64; 2]) -> Summary {
        let account = |cpu: u64| {
            json!({"cpu": {"time": time, "usageCoreNanoSeconds": cpu},
                "memory": {"workingSetBytes": 3 << 20}})
        };
        let [node, own] = cpu;
        let mut container = account(own);
        container["name"] = "app".into();
        Summary::of(&json!({
            "node": account(node),
            "pods": [{"podRef": {"namespace": "x", "name": "web", "uid": uid},
                "containers": [container]}],
        }))
    }

    #[test]
    fn use_is_the_growth_between_two_accounts() {
        let early = summary("2026-01-01T00:00:00Z", "u", [1_000_000_000, 0]);
        let late = summary("2026-01-01T00:00:10Z", "u", [6_000_000_000, 2_500_000_000]);
        let node = late.node_since(&early).unwrap();
        assert_eq!(
            (node.cpu, node.memory, node.window),
            (500_000_000, 3 << 20, 10.0)
        );
        let pod = late.pod_since(&early, "x", "web").unwrap();
        let shown = Use::pod(json!({"name": "web"}), &pod).unwrap();
        assert_eq!(
            shown,
            json!({
                "kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"name": "web"},
                "timestamp": "2026-01-01T00:00:10Z", "window": "10.000s",
                "containers": [{"name": "app", "usage": {"cpu": "250000000n", "memory": "3072Ki"}}],
            })
        );
        assert_eq!(node.node(json!({}))["usage"]["cpu"], "500000000n");
    }

    #[test]
    fn what_began_anew_is_not_known_yet() {
        let early = summary("2026-01-01T00:00:00Z", "u", [1, 1000]);
        let restarted = summary("2026-01-01T00:00:10Z", "u", [2, 10]);
        assert!(restarted.pod_since(&early, "x", "web").is_none());
        assert!(restarted.node_since(&early).is_some());
        let other = summary("2026-01-01T00:00:10Z", "v", [2, 2000]);
        assert!(other.pod_since(&early, "x", "web").is_none());
        assert!(other.pod_since(&early, "x", "gone").is_none());
        assert!(early.node_since(&early).is_none());
    }
}
