//! What a pod's containers share, with its cgroup: made, found, removed.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Shared, blocking};
use crate::runtime::{Error, Result, Sandbox, SandboxSpec, cgroups};

/// The cgroup of a pod's reaper, beside those of its containers.
const REAPER_GROUP: &str = "reaper";

impl Shared {
    /// The cgroup of a pod.
    pub(super) fn pod_group(&self, sandbox: &SandboxSpec) -> PathBuf {
        cgroups::pod_group(&self.config.cgroup_parent, sandbox.qos, &sandbox.pod.uid)
    }

    /// A pod's sandbox.
    pub(super) fn sandbox(&self, pod_uid: &str) -> Result<Sandbox> {
        let missing = || Error::NotFound {
            kind: "sandbox",
            id: pod_uid.to_owned(),
        };
        self.sandboxes.get(pod_uid)?.ok_or_else(missing)
    }

    /// Makes it; what is there is taken as it is.
    pub(super) async fn create_sandbox(self: &Arc<Self>, spec: &SandboxSpec) -> Result<Sandbox> {
        self.moves.begin();
        let shared = Arc::clone(self);
        let spec = spec.clone();
        // Threads that change namespaces, and files of the kernel: none of it for the reactor.
        blocking("making a sandbox", move || {
            let group = shared.pod_group(&spec);
            shared.cgroups.apply(&group, &spec.resources)?;
            let sandbox = shared.sandboxes.create(&spec, Timestamp::now())?;
            if let Some(pid) = sandbox.reaper {
                shared.cgroups.join(&group.join(REAPER_GROUP), pid)?;
            }
            Ok(sandbox)
        })
        .await
    }

    /// Removes it and the pod's containers.
    pub(super) async fn remove_sandbox(self: &Arc<Self>, pod_uid: &str) -> Result<()> {
        for container in self.list().await? {
            if container.pod_uid == pod_uid {
                self.remove(&container.id).await?;
            }
        }
        self.drop_layers(pod_uid).await?;
        self.hear_no_more(pod_uid);
        let Some(sandbox) = self.sandboxes.get(pod_uid)? else {
            return self.sandboxes.remove(pod_uid);
        };
        let shared = Arc::clone(self);
        blocking("removing a sandbox", move || {
            shared.sandboxes.unpin(&sandbox.spec.pod.uid)?;
            shared.cgroups.remove(&shared.pod_group(&sandbox.spec))?;
            shared.sandboxes.remove(&sandbox.spec.pod.uid)
        })
        .await
    }
}
