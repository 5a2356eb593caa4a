//! How often each probe has been asked and what came of it, for `/metrics/probes`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use peapod_api::k8s_openapi;

use crate::core::{Outcome, ProbeKind};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    kind: &'static str,
    result: &'static str,
}

/// A count for each probe and result.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<Key, u64>>);

/// One count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Name, value of each label.
    pub labels: [(&'static str, String); 6],
    /// How often.
    pub count: u64,
}

// === impl Counts ===

impl Counts {
    /// Notes an answer.
    pub fn record(&self, pod: &Pod, container: &str, kind: ProbeKind, outcome: &Outcome) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let key = Key {
            uid: text(&pod.metadata.uid),
            namespace: text(&pod.metadata.namespace),
            pod: text(&pod.metadata.name),
            container: container.to_owned(),
            kind: match kind {
                ProbeKind::Startup => "Startup",
                ProbeKind::Liveness => "Liveness",
                ProbeKind::Readiness => "Readiness",
            },
            result: match outcome {
                Outcome::Success | Outcome::Warning(_) => "successful",
                Outcome::Failure(_) => "failed",
                Outcome::Unknown(_) => "unknown",
            },
        };
        *self.0.lock().entry(key).or_default() += 1;
    }

    /// Forgets a pod that has gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().retain(|key, _| key.uid != uid);
    }

    /// All counts.
    pub fn all(&self) -> Vec<Count> {
        let count = |(key, count): (&Key, &u64)| Count {
            labels: [
                ("container", key.container.clone()),
                ("namespace", key.namespace.clone()),
                ("pod", key.pod.clone()),
                ("pod_uid", key.uid.clone()),
                ("probe_type", key.kind.to_owned()),
                ("result", key.result.to_owned()),
            ],
            count: *count,
        };
        self.0.lock().iter().map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_until_the_pod_goes() {
        let pod = serde_json::json!({"metadata": {"name": "web", "namespace": "ns", "uid": "u"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let counts = Counts::default();
        counts.record(&pod, "app", ProbeKind::Liveness, &Outcome::Success);
        counts.record(&pod, "app", ProbeKind::Liveness, &Outcome::Success);
        counts.record(
            &pod,
            "app",
            ProbeKind::Liveness,
            &Outcome::Failure("no".into()),
        );
        let found: Vec<_> = counts
            .all()
            .into_iter()
            .map(|count| (count.labels[5].1.clone(), count.count))
            .collect();
        assert_eq!(
            found,
            [("failed".to_owned(), 1), ("successful".to_owned(), 2)]
        );
        counts.forget("u");
        assert!(counts.all().is_empty());
    }
}
