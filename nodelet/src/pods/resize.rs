//! In-place resize: the judgement with the node's other pods in view, and the writes to cgroups.

use k8s_openapi::api::core::v1::ResourceRequirements;
use peapod_api::k8s_openapi;

use super::{Context, Entry};
use crate::core::{Event, Given, Judgement, admit, find_container};
use crate::make::{resources, sandbox};
use crate::runtime::{ContainerId, Resources};

/// Judges whether the node can give a pod what is desired, and allocates it.
pub fn judge(context: &Context, entry: &Entry) -> Judgement {
    if context.cpus.has(&entry.uid) {
        return Judgement::Infeasible(
            "Resize is infeasible for Guaranteed Pods alongside CPU Manager static policy"
                .to_owned(),
        );
    }
    // One at a time: what is found free must be free when it is allocated.
    let _admission = context.admission.lock();
    let node = context.node.borrow().clone();
    let occupants = context.table.occupants_but(&entry.uid);
    let mut machine = entry.machine.lock();
    let desired = machine.desired().clone();
    let judgement = admit::resize(&desired, &node, occupants.iter().map(AsRef::as_ref));
    if judgement == Judgement::Fits {
        machine.grant_resize();
    }
    judgement
}

/// Gives what is allocated: the pod's cgroup grows first and shrinks last, so that its containers
/// always fit into it.
pub async fn apply(
    context: &Context,
    entry: &Entry,
    containers: Vec<(String, String)>,
    settle: bool,
) -> Event {
    let pod = entry.pod();
    let wanted =
        sandbox::sandbox(&pod, &context.config.cluster_dns.domain, &context.host()).resources;
    let before = entry
        .sandbox
        .lock()
        .as_ref()
        .map(|s| s.spec.resources.clone());
    let grown = before.map_or_else(|| wanted.clone(), |before| before.most(&wanted));
    let mut given = Vec::new();
    let mut error = pod_limits(context, entry, &grown).await.err();
    if error.is_none() {
        for (name, id) in containers {
            let Some(container) = find_container(&pod, &name) else {
                continue;
            };
            let resources = container.resources.clone().unwrap_or_default();
            match container_limits(context, &name, &id, &resources).await {
                Ok(()) => given.push(Given { id, resources }),
                Err(why) => error = Some(why),
            }
        }
    }
    if error.is_none() && settle {
        error = pod_limits(context, entry, &wanted).await.err();
    }
    Event::Resized {
        given,
        settled: settle && error.is_none(),
        error,
    }
}

async fn pod_limits(context: &Context, entry: &Entry, limits: &Resources) -> Result<(), String> {
    let updated = context.runtime.update_sandbox(&entry.uid, limits).await;
    updated.map_err(|error| error.to_string())?;
    if let Some(sandbox) = entry.sandbox.lock().as_mut() {
        sandbox.spec.resources = limits.clone();
    }
    Ok(())
}

async fn container_limits(
    context: &Context,
    name: &str,
    id: &str,
    wanted: &ResourceRequirements,
) -> Result<(), String> {
    let id = ContainerId(id.to_owned());
    let limits = resources::container(Some(wanted));
    let stats = context.runtime.container_stats(&id).await;
    // The kernel would kill it, or refuse.
    if let (Some(limit), Ok(stats)) = (limits.memory_limit_bytes, &stats)
        && u64::try_from(limit).is_ok_and(|limit| limit < stats.memory_working_set_bytes)
    {
        let used = stats.memory_working_set_bytes;
        return Err(format!(
            "attempting to set container \"{name}\" memory limit ({limit}) below current usage ({used})"
        ));
    }
    let updated = context.runtime.update_container(&id, &limits).await;
    updated.map_err(|error| format!("container \"{name}\": {error}"))
}
