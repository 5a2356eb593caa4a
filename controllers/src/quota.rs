//! ResourceQuotas: what is used is counted when a quota is new or changed, and once after a start.
//!
//! From then on the API server charges each quota in the transaction of what uses it. A count is
//! written against the version of the quota that was read before it began; every charge makes
//! another version, so that no count overwrites one.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use kube::Api;
use kube::api::{ListParams, Patch};
use parking_lot::Mutex;
use peapod_api::quantity::Quantity;
use peapod_api::quota::{self, Usage};
use serde_json::{Value, json};

use crate::common::{Key, merge};
use crate::shell::discovery::{self, Discovered};
use crate::shell::error::Doing;
use crate::shell::{Context, Controller, Loop, Outcome, Result, Tasks, write};

/// Upstream's name of this loop.
const NAME: &str = "resourcequota";
/// Objects per page of a count.
const PAGE: u32 = 500;

struct Quotas {
    ctx: Context,
    /// The uids of those counted since the start.
    counted: Mutex<HashSet<String>>,
}

/// Wires the loop.
pub fn start(ctx: &Context, tasks: &mut Tasks) {
    let quotas = Quotas {
        ctx: ctx.clone(),
        counted: Mutex::default(),
    };
    Loop::new(ctx, NAME)
        .on_self(&ctx.informers.quotas)
        .run(tasks, quotas);
}

impl Controller for Quotas {
    async fn reconcile(&self, key: &Key) -> Result<Outcome> {
        let Some(seen) = self.ctx.informers.quotas.get(key) else {
            return Ok(Outcome::Done);
        };
        let uid = seen.metadata.uid.clone().unwrap_or_default();
        if seen.metadata.deletion_timestamp.is_some() {
            self.counted.lock().remove(&uid);
            return Ok(Outcome::Done);
        }
        if is_current(&seen) && self.counted.lock().contains(&uid) {
            return Ok(Outcome::Done);
        }
        // Read live: the count must begin after this version.
        let Some(quota) = write::get::<ResourceQuota>(&self.ctx, key).await? else {
            return Ok(Outcome::Done);
        };
        let used = self.count(&key.namespace, &quota).await?;
        self.write(key, &quota, &used).await?;
        self.counted.lock().insert(uid);
        Ok(Outcome::Done)
    }
}

/// Whether the status is about what the specification limits.
fn is_current(quota: &ResourceQuota) -> bool {
    let spec = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let status = quota
        .status
        .as_ref()
        .and_then(|status| status.hard.as_ref());
    spec == status
}

/// The names that a quota limits.
fn limited(quota: &ResourceQuota) -> Vec<String> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

impl Quotas {
    async fn count(&self, namespace: &str, quota: &ResourceQuota) -> Result<Usage> {
        let names = limited(quota);
        let wanted: BTreeSet<(&str, &str)> = names
            .iter()
            .filter_map(|name| quota::resource_of(name))
            .collect();
        let spec = quota.spec.clone().unwrap_or_default();
        let mut used = Usage::new();
        if !wanted.is_empty() {
            let kinds = discovery::discover(&self.ctx.client).await?;
            for (group, plural) in wanted {
                let is_it = |kind: &&Discovered| {
                    kind.resource.group == group
                        && kind.resource.plural == plural
                        && kind.namespaced
                };
                if let Some(kind) = kinds.iter().find(is_it) {
                    self.count_kind(namespace, &spec, kind, &mut used).await?;
                }
            }
        }
        used.retain(|name, _| names.contains(name));
        for name in names {
            used.entry(name).or_insert(Quantity::from_units(0));
        }
        Ok(used)
    }

    async fn count_kind(
        &self,
        namespace: &str,
        spec: &ResourceQuotaSpec,
        kind: &Discovered,
        used: &mut Usage,
    ) -> Result<()> {
        let (group, plural) = (&kind.resource.group, &kind.resource.plural);
        let api = kind.api(&self.ctx.client, namespace);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let listed = api.list(&params).await;
            let page = listed.doing(|| format!("list {plural} of namespace {namespace}"))?;
            for object in &page.items {
                let object = merge::to_value(object);
                if quota::covers(spec, group, plural, &object) {
                    quota::add(used, &quota::usage(group, plural, &object));
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    async fn write(&self, key: &Key, quota: &ResourceQuota, used: &Usage) -> Result<()> {
        let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone());
        let amounts = used
            .iter()
            .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
        let used: serde_json::Map<String, Value> = amounts.collect();
        let status = json!({"hard": hard.unwrap_or_default(), "used": used});
        let old = quota.status.as_ref().map_or(Value::Null, merge::to_value);
        let Some(patch) = merge::diff(&old, &status) else {
            return Ok(());
        };
        let meta =
            json!({"uid": quota.metadata.uid, "resourceVersion": quota.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": meta, "status": patch}));
        let api: Api<ResourceQuota> = Api::namespaced(self.ctx.client.clone(), &key.namespace);
        let written = api
            .patch_status(&key.name, &write::patch_params(), &patch)
            .await;
        written
            .unless_gone(|| format!("update status of {}", write::label::<ResourceQuota>(key)))?;
        Ok(())
    }
}
