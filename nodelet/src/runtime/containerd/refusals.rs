//! Announces that a pod was refused a process: when the kernel tells, and when a container ends, while its group
//! with the count is there still.

use std::path::Path;
use std::sync::Arc;

use super::Shared;
use super::state::Record;
use crate::runtime::RuntimeEvent;
use crate::runtime::cgroups::Cgroups;
use crate::runtime::cgroups::refusals::Refusals;

/// What hears of them; nothing, where the kernel tells nobody.
pub(super) fn new(cgroups: &Cgroups) -> Option<Refusals> {
    Refusals::new(cgroups).unwrap_or_else(|error| {
        tracing::warn!(%error, "refused processes are told of only when a container ends, or is looked at");
        None
    })
}

/// Hears of them for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    let Some(refusals) = &shared.refusals else {
        return;
    };
    for (_, record) in shared.records().unwrap_or_default() {
        shared.hear_refusals(&record);
    }
    loop {
        let pods = match refusals.next().await {
            Ok(pods) => pods,
            Err(error) => {
                return tracing::warn!(%error, "refused processes are not heard of any more");
            }
        };
        for pod_uid in pods {
            if let Ok(sandbox) = shared.sandbox(&pod_uid) {
                shared.tell(&pod_uid, &shared.pod_group(&sandbox.spec));
            }
        }
    }
}

impl Shared {
    /// Hears of the refusals of a container that has started, and of its pod's.
    pub(super) fn hear_refusals(&self, record: &Record) {
        if let (Some(refusals), Some(group)) = (&self.refusals, record.cgroup.parent()) {
            refusals.listen(&self.cgroups, group, &record.spec.pod_uid);
        }
    }

    /// Hears no more of a pod's.
    pub(super) fn hear_no_more(&self, pod_uid: &str) {
        if let Some(refusals) = &self.refusals {
            refusals.forget(pod_uid);
        }
    }

    /// Announces those of a container's pod.
    pub(super) fn tell_refusals(&self, record: &Record) {
        if let Some(group) = record.cgroup.parent() {
            self.tell(&record.spec.pod_uid, group);
        }
    }

    fn tell(&self, pod_uid: &str, group: &Path) {
        let count = self.cgroups.refused_forks(group);
        if count > 0 {
            let pod_uid = pod_uid.to_owned();
            self.announce(RuntimeEvent::ForksRefused { pod_uid, count });
        }
    }
}
