//! How full the volumes are, as their drivers say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use peapod_api::k8s_openapi;
use peapod_csi::v1::volume_usage::Unit;
use peapod_csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::driver::Capability;
use super::ledger::Published;
use crate::core::spec_of;
use crate::pods::{Context, Entry};

/// How long an answer is good for, as upstream's kubelet has it.
const FRESH: Duration = Duration::from_secs(60);
/// Longest time for a driver to say it.
const ANSWER: Duration = Duration::from_secs(5);

/// What one volume of a pod holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its name in the pod.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The claim; `None` for a volume that the pod brings.
    pub claim: Option<String>,
    /// All, used and left, bytes.
    pub bytes: [i64; 3],
    /// All, used and left.
    pub inodes: [i64; 3],
}

/// By pod and volume: when it was said, and what; `None` if the driver could not.
type Answers = HashMap<(String, String), (Instant, Option<Usage>)>;

/// What drivers told lately.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Answers>);

/// What the CSI volumes of a pod hold. A driver that does not answer is not waited for long.
pub async fn of_pod(context: &Context, entry: &Arc<Entry>) -> Vec<Usage> {
    let published = context.csi.store.read(|ledger| ledger.of_pod(&entry.uid));
    let all = published.iter().filter(|one| one.done && !one.block);
    let each = all.map(|published| of_volume(context, entry, published));
    let asked = futures::future::join_all(each).await;
    asked.into_iter().flatten().collect()
}

async fn of_volume(context: &Context, entry: &Entry, published: &Published) -> Option<Usage> {
    let key = (entry.uid.clone(), published.name.clone());
    let now = Instant::now();
    {
        let mut answers = context.csi.stats.0.lock();
        answers.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
        if let Some((_, usage)) = answers.get(&key) {
            return usage.clone();
        }
    }
    let usage = ask(context, entry, published).await;
    context.csi.stats.0.lock().insert(key, (now, usage.clone()));
    usage
}

async fn ask(context: &Context, entry: &Entry, published: &Published) -> Option<Usage> {
    let volume = &published.volume;
    let driver = context.csi.drivers.get(&volume.driver).ok()?;
    if !driver.can(Capability::GetVolumeStats) {
        return None;
    }
    let name = {
        let located = entry.located.lock();
        let mut found = located.iter();
        found.find(|(_, one)| one.path == published.path)?.0.clone()
    };
    let request = NodeGetVolumeStatsRequest {
        volume_id: volume.handle.clone(),
        volume_path: context
            .csi
            .drivers
            .layout
            .shown(driver.view, &published.path),
        staging_target_path: String::new(),
    };
    match driver.driver.call_within(request, ANSWER).await {
        Ok(answer) => Some(usage(&entry.pod(), name, &answer)),
        Err(error) => {
            tracing::debug!(%error, "how full a volume is is not known");
            None
        }
    }
}

fn usage(pod: &Pod, name: String, answer: &NodeGetVolumeStatsResponse) -> Usage {
    let of = |unit: Unit| {
        let found = answer.usage.iter().find(|usage| usage.unit() == unit);
        found.map_or([0; 3], |usage| [usage.total, usage.used, usage.available])
    };
    Usage {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        claim: claim(pod, &name),
        bytes: of(Unit::Bytes),
        inodes: of(Unit::Inodes),
        name,
    }
}

/// The claim behind a pod's volume.
fn claim(pod: &Pod, name: &str) -> Option<String> {
    let mut volumes = spec_of(pod).volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == name)?;
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => {
            let pod = pod.metadata.name.as_deref().unwrap_or_default();
            Some(format!("{pod}-{name}"))
        }
        (None, None) => None,
    }
}

/// As `/stats/summary` has it.
pub fn summary(usage: &Usage, now: &str) -> Value {
    let ([all, used, left], [inodes, inodes_used, inodes_left]) = (usage.bytes, usage.inodes);
    let mut summary = json!({
        "name": usage.name, "time": now,
        "capacityBytes": all, "usedBytes": used, "availableBytes": left,
        "inodes": inodes, "inodesUsed": inodes_used, "inodesFree": inodes_left,
    });
    if let Some(claim) = &usage.claim {
        summary["pvcRef"] = json!({"name": claim, "namespace": usage.namespace});
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;
    use peapod_csi::v1::VolumeUsage;

    #[test]
    fn a_volume_is_told_of_with_its_claim() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
                {"name": "b", "ephemeral": {}}]},
        }))
        .unwrap();
        let answer = NodeGetVolumeStatsResponse {
            usage: vec![VolumeUsage {
                unit: Unit::Bytes.into(),
                total: 10,
                used: 3,
                available: 7,
            }],
            volume_condition: None,
        };
        let told = |name: &str| summary(&usage(&pod, name.to_owned(), &answer), "now");
        assert_eq!(told("a")["pvcRef"], json!({"name": "c", "namespace": "ns"}));
        assert_eq!(told("b")["pvcRef"]["name"], "p-b");
        assert_eq!(told("a")["usedBytes"], 3);
        assert!(told("x").get("pvcRef").is_none());
    }
}
