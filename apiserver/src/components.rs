//! `componentstatuses`: whether the store, the scheduler and the controllers are at work, under
//! upstream's names. Deprecated there since 1.19, and asked for still.
//!
//! Of a part that runs in this process its end is this process's; of another its Lease tells.

use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::admission::find;
use crate::api::Api;
use crate::registry::{Kind, value};
use crate::rest::call::{Call, Reply};
use crate::rest::computed;
use crate::rest::respond;
use crate::rest::target::Verb;
use crate::status::{Result, Status};

/// The components beside the store, and their Leases in `kube-system`.
const COMPONENTS: [(&str, &str); 2] = [
    ("controller-manager", "kube-controller-manager"),
    ("scheduler", "kube-scheduler"),
];
const STORE: &str = "etcd-0";

/// The components that run in this process.
#[derive(Debug, Default)]
pub struct Hosted(RwLock<Vec<String>>);

// === impl Hosted ===

impl Hosted {
    /// Notes one, by the name of its Lease.
    pub fn add(&self, name: &str) {
        self.0.write().push(name.to_owned());
    }

    fn has(&self, name: &str) -> bool {
        self.0.read().iter().any(|known| known == name)
    }
}

/// Whether a kind's objects are statuses of components.
pub fn serves(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "componentstatuses"
}

/// Answers a request.
pub async fn serve(api: &Api, call: &Call) -> Result<Reply> {
    let mut all = Vec::new();
    for (name, lease) in COMPONENTS {
        let outcome = match api.hosted.has(lease) {
            true => Ok(()),
            false => {
                let lease = find(api, "coordination.k8s.io", "leases", "kube-system", lease);
                led(lease.as_ref(), api.now())
            }
        };
        all.push(status(name, outcome));
    }
    let store = api.store.fence().await;
    all.push(status(
        STORE,
        store.map(drop).map_err(|fault| fault.to_string()),
    ));
    if call.verb != Verb::Get {
        return computed::list(api, call, json!({}), all).await;
    }
    let name = &call.target.name;
    let mut found = all.into_iter();
    match found.find(|one| value::text(one, "metadata.name") == name) {
        Some(one) => respond::value(api, call, StatusCode::OK, one),
        None => Err(Status::not_found(call.kind().group_resource(), name)),
    }
}

/// Whether somebody leads by a Lease, or why nobody does.
fn led(lease: Option<&Value>, now: Timestamp) -> Result<(), String> {
    let Some(lease) = lease else {
        return Err("nobody has ever had its lease".to_owned());
    };
    let holder = value::text(lease, "spec.holderIdentity");
    if holder.is_empty() {
        return Err("nobody has its lease".to_owned());
    }
    let renewed = value::text(lease, "spec.renewTime");
    let seconds = value::integer(lease, "spec.leaseDurationSeconds").unwrap_or(0);
    let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    match renewed.parse::<Timestamp>() {
        Ok(at) if at + lasts >= now => Ok(()),
        _ => Err(format!(
            "{holder} has not renewed its lease since {renewed}"
        )),
    }
}

fn status(name: &str, outcome: Result<(), String>) -> Value {
    let condition = match outcome {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "error": why}),
    };
    json!({
        "kind": "ComponentStatus",
        "apiVersion": "v1",
        "metadata": {"name": name},
        "conditions": [condition],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_whether_somebody_leads() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| {
            json!({"spec": {
                "holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15,
            }})
        };
        assert_eq!(
            led(Some(&lease("a", "2026-01-01T00:00:45.000000Z")), now),
            Ok(())
        );
        for (lease, why) in [
            (Some(lease("a", "2026-01-01T00:00:44Z")), "not renewed"),
            (
                Some(lease("", "2026-01-01T00:00:59Z")),
                "nobody has its lease",
            ),
            (Some(lease("a", "")), "not renewed"),
            (None, "nobody has ever"),
        ] {
            let told = led(lease.as_ref(), now).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
