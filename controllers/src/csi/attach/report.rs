//! `node.status.volumesAttached`: nodes are told what is attached to them.

use k8s_openapi::api::core::v1::{AttachedVolume, Node};
use serde_json::json;

use super::core::unique_name;
use super::source;
use crate::common::Key;
use crate::shell::context::term;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

struct Reporter(Context);

/// Wires the loop; its keys are nodes.
pub(super) fn start(ctx: &Context, tasks: &mut Tasks) {
    Loop::new(ctx, "attachdetach-report")
        .on(&ctx.informers.attachments, |change| {
            change.latest().map(|one| Key::cluster(&one.spec.node_name))
        })
        .on(&ctx.informers.nodes, |change| {
            let told = |node: &Node| {
                node.status
                    .as_ref()
                    .and_then(|status| status.volumes_attached.clone())
            };
            let changed =
                change.old.as_deref().and_then(told) != change.new.as_deref().and_then(told);
            changed.then(|| change.key.clone())
        })
        .reads(&ctx.informers.volumes)
        .run(tasks, Reporter(ctx.clone()));
}

impl Controller for Reporter {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let informers = &self.0.informers;
        let Some(node) = informers.nodes.get(key) else {
            return Ok(Outcome::Done);
        };
        let attachments = informers.attachments.indexed(&term::on_node(&key.name));
        let attached = attachments.iter().filter(|one| {
            let status = one.status.as_ref();
            one.metadata.deletion_timestamp.is_none()
                && status.is_some_and(|status| status.attached)
        });
        let named = attached.filter_map(|one| {
            let volume = one.spec.source.persistent_volume_name.as_ref()?;
            let volume = informers.volumes.get(&Key::cluster(volume))?;
            let source = source(&volume)?;
            Some(unique_name(&source.driver, &source.volume_handle))
        });
        let mut names: Vec<_> = named.collect();
        names.sort();
        let status = node.status.as_ref();
        let told = status.and_then(|status| status.volumes_attached.as_ref());
        let mut known: Vec<_> = told
            .into_iter()
            .flatten()
            .map(|one| one.name.clone())
            .collect();
        known.sort();
        if names != known {
            let list = names.into_iter().map(|name| AttachedVolume {
                name,
                device_path: String::new(),
            });
            let list: Vec<_> = list.collect();
            let patch = json!({"status": {"volumesAttached": list}});
            match write::patch_status::<Node>(&self.0, key, patch).await {
                Err(error) if error.is_not_found() => {}
                result => result.map(drop)?,
            }
        }
        Ok(Outcome::Done)
    }
}
