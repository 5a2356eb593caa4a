//! `ResourceQuota`: what a namespace may use.
//!
//! This is no [`super::Plugin`]: a quota is charged in the transaction that stores, changes or
//! deletes what uses it, so that its `status.used` is right at every revision and no two writes
//! can take the same rest. The controller counts only when a quota is new or is changed.

use peapod_api::k8s_openapi::api::core::v1::ResourceQuotaSpec;
use peapod_api::quota::{self, Usage};
use peapod_store::{Compare, Scope, Txn};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::registry::value;
use crate::rest::table;
use crate::rest::write::Write;
use crate::status::{Result, Status};
use crate::storage;

/// Writers of namespaces with quotas take turns, so that they do not undo each other's
/// transactions again and again: by so many locks.
const TURNS: usize = 64;

/// Whose turn it is.
pub struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Turns {
    /// Waits for the turn of a write, to be held until it is committed; `None` when its
    /// namespace has no quota.
    pub async fn take(&self, write: &Write<'_>) -> Option<MutexGuard<'_, ()>> {
        if !is_limited(write) {
            return None;
        }
        let hash = write.namespace.bytes().fold(0usize, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(usize::from(byte))
        });
        Some(self.0[hash % TURNS].lock().await)
    }
}

/// Whether the kind is one that quotas count. Events come and go too fast, as upstream has it.
fn is_charged(write: &Write<'_>) -> bool {
    let kind = &write.resource.kind;
    kind.is_namespaced() && !write.namespace.is_empty() && kind.plural != "events"
}

/// Whether the namespace of a write has a quota.
pub fn is_limited(write: &Write<'_>) -> bool {
    is_charged(write) && quotas(write).is_ok_and(|quotas| !quotas.is_empty())
}

fn quotas(write: &Write<'_>) -> Result<Vec<storage::Entry>> {
    let Some(resource) = write.api.registry.find("", "v1", "resourcequotas") else {
        return Ok(Vec::new());
    };
    let snapshot = write.api.store.snapshot(&storage::range(&resource.kind));
    let scope = Scope::Namespace(write.namespace);
    Ok(snapshot.range(scope, None).cloned().collect())
}

/// Adds to a transaction what the quotas of its namespace must be told of it, or refuses it.
pub fn charge(
    write: &Write<'_>,
    mut txn: Txn,
    new: Option<&Value>,
    old: Option<&Value>,
) -> Result<Txn> {
    if !is_charged(write) {
        return Ok(txn);
    }
    let Some(resource) = write.api.registry.find("", "v1", "resourcequotas") else {
        return Ok(txn);
    };
    let own = write.resource.kind.plural == "resourcequotas";
    for entry in quotas(write)? {
        let quota = table::decode(&resource, &entry.value)?;
        if own && value::text(&quota, "metadata.name") == write.name {
            continue;
        }
        let kind = &write.resource.kind;
        let bill = Bill::of(&quota, (&kind.group, &kind.plural), new, old);
        if let Some(why) = bill.refusal(&quota, new.filter(|_| old.is_none())) {
            return Err(Status::forbidden(kind.group_resource(), write.name, why));
        }
        if bill.changes.is_empty() && is_counted(&quota) {
            continue;
        }
        // One that is not counted yet is written too, so that the count under way begins anew.
        let draft = storage::draft(&bill.charged(&quota)).map_err(Status::internal)?;
        txn = txn.put(entry.key.clone(), Compare::At(entry.modified), draft);
    }
    Ok(txn)
}

/// Whether the status says what the specification limits.
fn is_counted(quota: &Value) -> bool {
    let hard = |part| value::map(quota, part);
    hard("status.hard") == hard("spec.hard")
}

/// What a write changes of a quota's use.
struct Bill {
    /// Under the names that the quota has, and only what differs.
    changes: Usage,
}

fn amount(map: &Map<String, Value>, name: &str) -> peapod_api::quantity::Quantity {
    let text = map.get(name).and_then(Value::as_str);
    let zero = peapod_api::quantity::Quantity::from_units(0);
    text.and_then(|text| text.parse().ok()).unwrap_or(zero)
}

impl Bill {
    fn of(
        quota: &Value,
        (group, plural): (&str, &str),
        new: Option<&Value>,
        old: Option<&Value>,
    ) -> Self {
        let spec: ResourceQuotaSpec =
            serde_json::from_value(quota["spec"].clone()).unwrap_or_default();
        let usage = |object: Option<&Value>| {
            let covered = object.filter(|object| quota::covers(&spec, group, plural, object));
            covered
                .map(|object| quota::usage(group, plural, object))
                .unwrap_or_default()
        };
        let mut changes = quota::difference(&usage(new), &usage(old));
        let hard = value::map(quota, "status.hard");
        changes.retain(|name, _| hard.is_some_and(|hard| hard.contains_key(name)));
        Self { changes }
    }

    /// Why the write may not be, in upstream's words. `created` is a new object.
    fn refusal(&self, quota: &Value, created: Option<&Value>) -> Option<String> {
        let name = value::text(quota, "metadata.name");
        let empty = Map::new();
        let hard = value::map(quota, "status.hard").unwrap_or(&empty);
        let used = value::map(quota, "status.used").unwrap_or(&empty);
        if let Some(pod) =
            created.filter(|_| self.changes.contains_key("pods") || self.limits_compute(hard))
        {
            let silent = quota::unspecified(hard.keys(), pod);
            if !silent.is_empty() {
                let parts = silent
                    .iter()
                    .map(|(name, who)| format!("{name} for: {}", who.join(",")));
                let parts = parts.collect::<Vec<_>>().join("; ");
                return Some(format!("failed quota: {name}: must specify {parts}"));
            }
        }
        let growing = self
            .changes
            .iter()
            .filter(|(_, change)| !change.is_negative());
        let beyond: Vec<_> = growing
            .filter(|(name, change)| amount(used, name).plus(**change) > amount(hard, name))
            .collect();
        if beyond.is_empty() {
            return None;
        }
        let list = |of: &dyn Fn(&str) -> String| {
            let parts = beyond
                .iter()
                .map(|(name, _)| format!("{name}={}", of(name)));
            parts.collect::<Vec<_>>().join(",")
        };
        let requested = list(&|name| self.changes[name].to_string());
        let (used, limited) = (
            list(&|name| amount(used, name).to_string()),
            list(&|name| amount(hard, name).to_string()),
        );
        Some(format!(
            "exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"
        ))
    }

    /// Whether what is written counts by the compute names of the quota.
    fn limits_compute(&self, hard: &Map<String, Value>) -> bool {
        let names = hard
            .keys()
            .filter(|name| quota::resource_of(name) == Some(("", "pods")));
        names.clone().any(|name| self.changes.contains_key(name)) && names.count() > 0
    }

    /// The quota with this on its bill.
    fn charged(&self, quota: &Value) -> Value {
        let mut quota = quota.clone();
        for (name, change) in &self.changes {
            let used = value::entry(&mut quota, "status.used");
            if !used.is_object() {
                *used = json!({});
            }
            let before = used.as_object().map(|used| amount(used, name));
            let after = before.map_or(*change, |before| before.plus(*change));
            let zero = peapod_api::quantity::Quantity::from_units(0);
            used[name] = after.max(zero).to_string().into();
        }
        quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    #[test]
    fn what_exceeds_is_refused_and_the_rest_is_charged() {
        let quota = quota(
            json!({"pods": "2", "requests.cpu": "1"}),
            json!({"pods": "1", "requests.cpu": "900m"}),
        );
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let bill = |new: &Value| Bill::of(&quota, ("", "pods"), Some(new), None);
        let small = pod("100m");
        assert_eq!(bill(&small).refusal(&quota, Some(&small)), None);
        assert_eq!(
            bill(&small).charged(&quota)["status"]["used"],
            json!({"pods": "2", "requests.cpu": "1"})
        );
        let large = pod("200m");
        assert_eq!(
            bill(&large).refusal(&quota, Some(&large)).unwrap(),
            "exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1"
        );
        let silent = json!({"spec": {"containers": [{"name": "c"}]}});
        assert_eq!(
            bill(&silent).refusal(&quota, Some(&silent)).unwrap(),
            "failed quota: q: must specify requests.cpu for: c"
        );
    }

    #[test]
    fn what_ends_or_goes_is_given_back() {
        let quota = quota(json!({"pods": "2"}), json!({"pods": "2"}));
        let running = json!({"spec": {}, "status": {"phase": "Running"}});
        let ended = json!({"spec": {}, "status": {"phase": "Succeeded"}});
        let used = |new, old| {
            Bill::of(&quota, ("", "pods"), new, old).charged(&quota)["status"]["used"]["pods"]
                .clone()
        };
        assert_eq!(used(Some(&ended), Some(&running)), "1");
        assert_eq!(used(None, Some(&running)), "1");
        assert_eq!(used(None, Some(&ended)), "2");
        assert_eq!(used(Some(&running), Some(&running)), "2");
    }
}
