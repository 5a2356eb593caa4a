//! An IPAddress for each address that a Service holds, as upstream has it: it comes and goes in the
//! transactions that claim and release the address. An address that somebody made an IPAddress of
//! beforehand is given to nobody.
//!
//! What is missing, since an earlier version made none or somebody deleted it, is put back.

use std::sync::Arc;
use std::time::Duration;

use peapod_store::{CommitError, Compare, Draft, EventKind, Interest, Key, Scope, Txn};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::random;
use crate::registry::claims::{CLUSTER_IP, Claim};
use crate::registry::{Resource, object_meta, value};
use crate::rest::write::{Write, claim_key};
use crate::status::Result;
use crate::storage;

/// Which family an address is of.
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// Who keeps an IPAddress.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// How long to rest when the store has no more watches to give.
const REST: Duration = Duration::from_secs(1);

fn kind(api: &Api) -> Option<Arc<Resource>> {
    api.registry.find("networking.k8s.io", "v1", "ipaddresses")
}

fn key(api: &Api, address: &str) -> Option<Key> {
    storage::key(&kind(api)?.kind, "", address).ok()
}

/// Whether there is an IPAddress of an address, whoever made it.
pub fn is_reserved(api: &Api, address: &str) -> bool {
    key(api, address).is_some_and(|key| api.store.get(&key).is_some())
}

/// Adds to a transaction the IPAddress of an address that a Service claims.
pub fn hold(api: &Api, txn: Txn, address: &str, service: (&str, &str)) -> Result<Txn> {
    match object(api, address, service)? {
        Some((key, draft)) => Ok(txn.put(key, Compare::Absent, draft)),
        None => Ok(txn),
    }
}

/// Adds to a transaction that the IPAddress of an address goes.
pub fn release(api: &Api, txn: Txn, address: &str) -> Txn {
    match key(api, address) {
        Some(key) => txn.delete(key, Compare::Any),
        None => txn,
    }
}

fn object(
    api: &Api,
    address: &str,
    (namespace, name): (&str, &str),
) -> Result<Option<(Key, Draft)>> {
    let Some(resource) = kind(api) else {
        return Ok(None);
    };
    let write = Write::by_server(api, &resource, "", address);
    let family = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    let (managed_by, us) = MANAGED_BY;
    let mut object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind.kind,
        "metadata": {"name": address, "labels": {FAMILY: family, managed_by: us}},
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": namespace, "name": name,
        }},
    });
    let now = api.now();
    write.default(&mut object);
    write.track(&mut object, None, now);
    object_meta::stamp_new(&resource.kind, &mut object, &random::uid(), now);
    Ok(Some((write.key(address)?, write.draft(&object)?)))
}

/// Puts back what is missing, until it is dropped.
pub fn spawn(api: Arc<Api>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api)))
}

async fn run(api: Arc<Api>) {
    let (Some(kind), Ok(claims)) = (
        kind(&api),
        peapod_store::Resource::new("claims", CLUSTER_IP),
    ) else {
        return;
    };
    loop {
        let known = api.store.snapshot(&storage::range(&kind.kind));
        let interest = Interest::new(storage::range(&kind.kind));
        let Ok(mut events) = api.store.watch(interest, known.revision()) else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let held = api.store.snapshot(&claims);
        for entry in held.range(Scope::All, None) {
            let address = entry.key.name();
            if key(&api, address).is_some_and(|key| known.get(&key).is_none()) {
                put_back(&api, address).await;
            }
        }
        drop((known, held));
        loop {
            match events.next().await {
                Ok(event) if event.kind == EventKind::Delete => {
                    put_back(&api, event.entry.key.name()).await;
                }
                Ok(_) => {}
                Err(peapod_store::WatchEnd::Closed) => return,
                Err(peapod_store::WatchEnd::Behind(_)) => break,
            }
        }
    }
}

/// Makes the IPAddress of an address that a Service holds, if it holds it still.
async fn put_back(api: &Api, address: &str) {
    let claim = Claim {
        pool: CLUSTER_IP,
        item: address.to_owned(),
    };
    let Ok(claim) = claim_key(&claim) else { return };
    let Some(held) = api.store.get(&claim) else {
        return;
    };
    let owner: Value = serde_json::from_slice(&held.value).unwrap_or_default();
    let service = (
        value::text(&owner, "namespace"),
        value::text(&owner, "name"),
    );
    let txn = Txn::new().check(claim, Compare::At(held.modified));
    let outcome = match hold(api, txn, address, service) {
        Ok(txn) => api.store.commit(txn).await,
        Err(fault) => return tracing::error!(%fault, address, "an IPAddress cannot be made"),
    };
    match outcome {
        // Somebody made it, or the address was released.
        Ok(_) | Err(CommitError::Conflict { .. } | CommitError::Closed) => {}
        Err(fault) => tracing::warn!(%fault, address, "an IPAddress was not put back"),
    }
}
