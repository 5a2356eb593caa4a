//! Pods that nobody will ever finish: their node is gone, or they were never scheduled; and
//! finished pods beyond a number.
//!
//! The core is [`sort_out`].

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;

use crate::common::{Key, pods};
use crate::node::eviction::{disruption, mark};
use crate::shell::context::term;
use crate::shell::error::Doing;
use crate::shell::write::Scope;
use crate::shell::{Change, Context, Controller, Loop, Outcome, Result, Tasks, write};

const NAME: &str = "pod_garbage_collector";
/// How long a node must be gone before its pods follow: it may be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// The key for the finished pods of the whole cluster; no node has a name with a space.
const FINISHED: &str = "finished pods";

struct PodGc(Context);

/// Wires the loop; its keys are names of nodes, `""` for pods without one.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let nodes = ctx.informers.nodes.clone();
    let wired = Loop::new(ctx, NAME);
    let queue = wired.queue();
    ctx.informers.nodes.on_change(move |change| {
        if change.new.is_none() {
            queue.add_after(change.key.clone(), QUARANTINE);
        }
    });
    let queue = wired.queue();
    wired
        .reads(&ctx.informers.nodes)
        .on(&ctx.informers.pods, move |change: &Change<Pod>| {
            let pod = change.new.as_deref()?;
            if pods::is_finished(pod) {
                return Some(Key::cluster(FINISHED));
            }
            let node = Key::cluster(pods::node_name(pod));
            if node.name.is_empty() {
                return pods::is_terminating(pod).then_some(node);
            }
            if nodes.get(&node).is_none() {
                queue.add_after(node, QUARANTINE);
            }
            None
        })
        .workers(1)
        .run(tasks, PodGc(ctx.clone()));
}

/// Of the finished pods those to delete: the oldest, beyond `kept`.
fn sort_out(mut finished: Vec<Arc<Pod>>, kept: usize) -> Vec<Arc<Pod>> {
    let surplus = finished.len().saturating_sub(kept);
    let created = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    finished.sort_by_key(|pod| (created(pod), Key::of(&**pod)));
    finished.truncate(surplus);
    finished
}

impl Controller for PodGc {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        match key.name.as_str() {
            FINISHED => self.finished().await?,
            "" => self.never_scheduled().await?,
            _ => self.orphaned(key).await?,
        }
        Ok(Outcome::Done)
    }
}

impl PodGc {
    async fn finished(&self) -> Result<()> {
        let kept = self.0.config.finished_pods_kept;
        if kept == 0 {
            return Ok(());
        }
        let finished = self.0.informers.pods.indexed(term::FINISHED);
        for pod in sort_out(finished, kept) {
            self.remove(&pod).await?;
        }
        Ok(())
    }

    /// Pods that were deleted before any node had them: no agent will confirm that.
    async fn never_scheduled(&self) -> Result<()> {
        let waiting = self.0.informers.pods.indexed(term::UNSCHEDULED);
        for pod in waiting.iter().filter(|pod| pods::is_terminating(pod)) {
            self.remove(pod).await?;
        }
        Ok(())
    }

    async fn orphaned(&self, node: &Key) -> Result<()> {
        let pods = self.0.informers.pods.indexed(&term::on_node(&node.name));
        if pods.is_empty() || self.0.informers.nodes.get(node).is_some() {
            return Ok(());
        }
        // The cache may not know yet that the node is back.
        if write::get::<Node>(&self.0, node).await?.is_some() {
            return Ok(());
        }
        for pod in pods {
            if !pods::is_finished(&pod) {
                let message = "PodGC: node no longer exists";
                let condition = disruption("DeletionByPodGC", message, Timestamp::now());
                mark(&self.0, &pod, condition, Some("Failed")).await?;
            }
            self.remove(&pod).await?;
        }
        Ok(())
    }

    /// Deletes a pod at once: there is nobody to stop it.
    async fn remove(&self, pod: &Pod) -> Result<()> {
        let key = Key::of(pod);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            ..write::delete_exactly(&pod.metadata)
        };
        let deleted = Pod::beside(&self.0, &key).delete(&key.name, &params).await;
        deleted.unless_gone(|| format!("delete {}", write::label::<Pod>(&key)))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let pod = |name: &str, year: i32| {
            let pod = serde_json::json!({"metadata": {
                "name": name, "creationTimestamp": format!("{year}-01-01T00:00:00Z"),
            }});
            Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let pods = vec![pod("new", 2026), pod("oldest", 2020), pod("old", 2021)];
        let names = |kept| {
            let gone = sort_out(pods.clone(), kept);
            gone.iter()
                .map(|pod| pod.metadata.name.clone().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1), ["oldest", "old"]);
        assert_eq!(names(5), Vec::<String>::new());
    }
}
