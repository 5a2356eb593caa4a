//! Gives blocks back: of a block of this node that is being deleted nothing more is handed out, and
//! when nothing of it is in use or rests, its finalizer is taken away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::IpNet;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use peapod_api::net::{ADDRESSES_IN_USE, IpBlock};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use crate::pods::{Leaving, Pods};

/// How long to wait before asking the API again for what it refused.
const RETRY: Duration = Duration::from_secs(5);

/// Blocks of this node that are being deleted, by name.
#[derive(Default)]
struct Known(BTreeMap<String, (IpNet, IpBlock)>);

/// Watches the blocks of this node for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let api: Api<IpBlock> = Api::all(shared.client.clone());
    let own = format!("spec.node={}", shared.config.node_name);
    let config = watcher::Config::default().fields(&own).streaming_lists();
    let mut events = std::pin::pin!(watcher(api.clone(), config).default_backoff());
    let mut known = Known::default();
    let mut again: Option<Instant> = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => known.take(event, &shared.pods),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the watch of this node's blocks broke and begins again");
                    continue;
                }
                None => return,
            },
            () = shared.pods.released(), if !known.0.is_empty() => {}
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
        }
        let wait = give_back(&shared, &api, &known).await;
        again = wait.map(|wait| Instant::now() + wait);
    }
}

/// Lets go of what is free; how long to wait until more may be.
async fn give_back(shared: &Shared, api: &Api<IpBlock>, known: &Known) -> Option<Duration> {
    let cidrs: Vec<IpNet> = known.0.values().map(|(cidr, _)| *cidr).collect();
    let mut wait: Option<Duration> = None;
    for (held, (cidr, block)) in shared.pods.leave(&cidrs).into_iter().zip(known.0.values()) {
        let again = match held {
            Leaving::InUse => None,
            Leaving::After(rest) => Some(rest),
            Leaving::Free => let_go(api, *cidr, block).await,
        };
        wait = again.into_iter().chain(wait).min();
    }
    wait
}

/// Takes the finalizer away; when to try again, if it did not go.
async fn let_go(api: &Api<IpBlock>, cidr: IpNet, block: &IpBlock) -> Option<Duration> {
    let mut finalizers = block.finalizers().to_vec();
    finalizers.retain(|one| one != ADDRESSES_IN_USE);
    if finalizers.len() == block.finalizers().len() {
        return None;
    }
    // Bound to what was seen: a finalizer of somebody else's may have come meanwhile.
    let patch = json!({"metadata": {
        "uid": block.uid(), "resourceVersion": block.resource_version(), "finalizers": finalizers,
    }});
    let patched = api
        .patch(
            &block.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await;
    match patched {
        Ok(_) => {
            tracing::info!(%cidr, "this node gave an address block back");
            None
        }
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => None,
        Err(error) => {
            tracing::warn!(%cidr, %error, "cannot give an address block back; trying again");
            Some(RETRY)
        }
    }
}

// === impl Known ===

impl Known {
    fn take(&mut self, event: Event<IpBlock>, pods: &Pods) {
        match event {
            Event::Init => self.0.clear(),
            Event::InitApply(block) | Event::Apply(block) => self.note(block, pods),
            Event::Delete(block) => drop(self.0.remove(&block.name_any())),
            Event::InitDone => {}
        }
    }

    fn note(&mut self, block: IpBlock, pods: &Pods) {
        let name = block.name_any();
        let Ok(cidr) = block.spec.cidr.parse::<IpNet>() else {
            return;
        };
        let cidr = cidr.trunc();
        if block.metadata.deletion_timestamp.is_some() {
            self.0.insert(name, (cidr, block));
        } else {
            pods.stay(&cidr);
            self.0.remove(&name);
        }
    }
}
