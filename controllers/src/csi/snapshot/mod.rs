//! Snapshots of volumes: `snapshot.storage.k8s.io/v1`, whose definitions an operator installs.
//!
//! [`core`] decides, [`control`] is about what users ask for, [`content`] about what drivers hold.
//! The loops run while the definitions are there, so that a cluster without them watches nothing.

mod content;
mod control;
pub mod core;
pub mod kinds;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::runtime::wait::{await_condition, conditions};
use tracing::{debug, warn};

use self::kinds::{GROUP, VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};
use super::drivers::Drivers;
use crate::common::Key;
use crate::shell::informer::Keep;
use crate::shell::{Context, Informer, Tasks};

/// Before the definitions are asked for again after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What the loops share.
#[derive(Clone)]
struct Shared {
    ctx: Context,
    drivers: Drivers,
    snapshots: Arc<Informer<VolumeSnapshot>>,
    contents: Arc<Informer<VolumeSnapshotContent>>,
    classes: Arc<Informer<VolumeSnapshotClass>>,
}

/// Starts the task that runs the loops while the definitions are there.
pub fn start(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let (ctx, drivers, child) = (ctx.clone(), drivers.clone(), tasks.shutdown());
    // Changes of claims are of interest only while there are snapshots.
    tasks.spawn("csi-snapshots", async move {
        loop {
            match defined(&ctx).await {
                Ok(uid) => {
                    debug!("snapshots are defined");
                    let mut tasks = Tasks::new(child.child_token());
                    run(&ctx, &drivers, &mut tasks);
                    let definitions: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
                    let name = definition("volumesnapshots");
                    let gone = await_condition(definitions, &name, conditions::is_deleted(&uid));
                    tokio::select! {
                        ended = tasks.wait() => warn!(?ended, "the loops of snapshots ended; starting them again"),
                        gone = gone => debug!(?gone, "snapshots are defined no more"),
                    }
                }
                Err(error) => warn!(%error, "cannot tell whether snapshots are defined; trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    });
}

fn definition(plural: &str) -> String {
    format!("{plural}.{GROUP}")
}

/// Waits until all three kinds are served; the uid of the first one's definition.
async fn defined(ctx: &Context) -> Result<String, kube::runtime::wait::Error> {
    let definitions: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let mut uid = String::new();
    for plural in [
        "volumesnapshotcontents",
        "volumesnapshotclasses",
        "volumesnapshots",
    ] {
        let served = conditions::is_crd_established();
        let found = await_condition(definitions.clone(), &definition(plural), served).await?;
        uid = found
            .and_then(|found| found.metadata.uid)
            .unwrap_or_default();
    }
    Ok(uid)
}

fn run(ctx: &Context, drivers: &Drivers, tasks: &mut Tasks) {
    let client = &ctx.client;
    let by_claim = Keep {
        index: |snapshot: &VolumeSnapshot| {
            let namespace = snapshot.metadata.namespace.as_deref().unwrap_or_default();
            let claim = snapshot.spec.source.persistent_volume_claim_name.as_ref();
            claim
                .map(|claim| crate::shell::context::term::using_claim(&Key::new(namespace, claim)))
                .into_iter()
                .collect()
        },
        ..Keep::default()
    };
    let shared = Shared {
        ctx: ctx.clone(),
        drivers: drivers.clone(),
        snapshots: Informer::new(Api::all(client.clone()), by_claim),
        contents: Informer::new(Api::all(client.clone()), Keep::default()),
        classes: Informer::new(Api::all(client.clone()), Keep::default()),
    };
    control::start(&shared, tasks);
    content::start(&shared, tasks);
    tasks.spawn("volumesnapshots", shared.snapshots.clone().run());
    tasks.spawn("volumesnapshotcontents", shared.contents.clone().run());
    tasks.spawn("volumesnapshotclasses", shared.classes.clone().run());
}

// === impl Shared ===

impl Shared {
    fn classes(&self) -> Vec<VolumeSnapshotClass> {
        let all = self.classes.all();
        all.iter()
            .map(|class| VolumeSnapshotClass::clone(class))
            .collect()
    }

    /// The content's class, if it names one that is there.
    fn class_of(&self, content: &VolumeSnapshotContent) -> Option<Arc<VolumeSnapshotClass>> {
        let name = content.spec.volume_snapshot_class_name.as_ref()?;
        self.classes.get(&Key::cluster(name))
    }
}
