//! The control side of storage drivers (CSI): these controllers speak to a driver's Controller
//! service themselves, so that its node plugin alone is enough.
//!
//! ```text
//!   claim ──▶ provision ──CreateVolume──▶ volume ──▶ attach ──▶ VolumeAttachment
//!               │  ▲ source: claim, snapshot              attacher ──ControllerPublish──▶ attached
//!               ▼
//!            delete ──DeleteVolume
//! ```
//!
//! [`drivers`] says which drivers there are and how they are reached ([`dial`]); each loop does what
//! one of upstream's side cars does, under its names of finalizers, annotations and events. Where a
//! side car leads, the loop leaves its job alone: see [`drivers::EXTERNAL`].

pub mod abilities;
pub mod attach;
mod attacher;
mod capability;
mod capacity;
pub mod dial;
pub mod drivers;
mod finalizers;
mod parameters;
pub mod provision;
pub mod resize;
pub mod snapshot;
mod topology;

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, SecretReference};

use crate::common::Key;
use crate::shell::backoff::Backoff;
use crate::shell::{Context, Result, Tasks, write};

pub use dial::{Dial, Dialer};

/// Calls of one loop that wait for drivers at the same time: more wait for these.
const WORKERS: usize = 32;

/// Pauses between attempts at the same thing, as long as upstream's.
fn pauses<K: Eq + Hash + Clone>() -> Backoff<K> {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(300))
}

/// Wires the loops.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let drivers = drivers::Drivers::new(ctx);
    provision::start(ctx, &drivers, tasks);
    attach::start(ctx, tasks);
    attacher::start(ctx, &drivers, tasks);
    resize::start(ctx, &drivers, tasks);
    capacity::start(ctx, &drivers, tasks);
    snapshot::start(ctx, &drivers, tasks);
}

/// What a secret holds, as drivers are given it; the inner error is that there is none.
async fn secret(
    ctx: &Context,
    at: Option<&SecretReference>,
) -> Result<Result<HashMap<String, String>, String>> {
    let Some(at) = at else {
        return Ok(Ok(HashMap::new()));
    };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let key = Key::new(text(&at.namespace), text(&at.name));
    let Some(secret) = write::get::<Secret>(ctx, &key).await? else {
        return Ok(Err(format!("secret {key} not found")));
    };
    let data = secret.data.unwrap_or_default().into_iter();
    let data = data.map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()));
    Ok(Ok(data.collect()))
}
