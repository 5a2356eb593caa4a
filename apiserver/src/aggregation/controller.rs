//! Finds out whether the servers behind APIServices answer, says so in their conditions, and
//! keeps what they serve for discovery.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use peapod_store::{Interest, Scope};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::{GROUP, PLURAL, Remote, document, local, pass};
use crate::api::Api;
use crate::auth::user::{MASTERS, User};
use crate::crd;
use crate::outbound::{self, OutboundError};
use crate::registry::{Resource, object_meta, value};
use crate::rest::update;
use crate::rest::write::Write;
use crate::status::Status;
use crate::storage;

/// How long a server may take to tell what it serves.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How soon one that does not answer is asked again, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Whether a server answers: condition, reason and message.
type Availability = (bool, &'static str, String);

/// Fills in what is registered, before the first request; whether it answers shows later.
pub fn load(api: &Api) {
    api.aggregation.set(services(api).iter().filter_map(remote));
}

/// Runs until it is dropped.
pub fn spawn(api: Arc<Api>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(api)))
}

async fn run(api: Arc<Api>) {
    let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
        return;
    };
    let mut retry = RETRY.0;
    let mut starting = true;
    loop {
        let Some(mut events) = Events::of(&api, &kind) else {
            tokio::time::sleep(RETRY.0).await;
            continue;
        };
        loop {
            let kept = local::keep(&api, &kind, &services(&api), starting).await;
            if let Err(fault) = &kept {
                tracing::warn!(%fault, "the APIServices of what is served here are not written; trying again");
            }
            starting &= kept.is_err();
            let missing = !sync(&api, &kind).await || kept.is_err();
            let again = tokio::time::sleep(retry);
            tokio::select! {
                alive = events.next(&api) => {
                    if !alive {
                        break;
                    }
                    retry = RETRY.0;
                }
                () = again, if missing => retry = (retry * 2).min(RETRY.1),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// What may change whether a server answers: the objects, and the endpoints of Services; and what is served
/// here: custom resources.
struct Events {
    services: peapod_store::Watch<storage::Meta>,
    definitions: peapod_store::Watch<storage::Meta>,
    slices: peapod_store::Watch<storage::Meta>,
}

impl Events {
    fn of(api: &Api, kind: &Resource) -> Option<Self> {
        let slices = api
            .registry
            .find("discovery.k8s.io", "v1", "endpointslices")?;
        let definitions = api.registry.find(crd::GROUP, "v1", crd::PLURAL)?;
        let watch = |resource: &Resource| {
            let range = storage::range(&resource.kind);
            let from = api.store.snapshot(&range).revision();
            api.store.watch(Interest::new(range), from).ok()
        };
        Some(Self {
            services: watch(kind)?,
            definitions: watch(&definitions)?,
            slices: watch(&slices)?,
        })
    }

    /// Waits for the next one; false when there will be none.
    async fn next(&mut self, api: &Api) -> bool {
        loop {
            tokio::select! {
                event = self.services.next() => return event.is_ok(),
                event = self.definitions.next() => return event.is_ok(),
                event = self.slices.next() => match event {
                    Ok(event) if !is_asked_for(api, &event.entry) => {}
                    event => return event.is_ok(),
                },
            }
        }
    }
}

/// Whether an EndpointSlice is of a Service that an APIService names.
fn is_asked_for(api: &Api, slice: &storage::Entry) -> bool {
    let service = slice.meta.label(outbound::SERVICE_NAME);
    let names = |remote: &Remote| {
        let reference = &remote.spec["service"];
        service == Some(value::text(reference, "name"))
            && value::text(reference, "namespace") == slice.key.namespace()
    };
    api.aggregation.all().iter().any(names)
}

fn services(api: &Api) -> Vec<Value> {
    let Some(kind) = api.registry.find(GROUP, "v1", PLURAL) else {
        return Vec::new();
    };
    let snapshot = api.store.snapshot(&storage::range(&kind.kind));
    let entries = snapshot.range(Scope::All, None);
    entries
        .filter_map(|entry| serde_json::from_slice(&entry.value).ok())
        .collect()
}

/// What an APIService registers, when it is another server's.
fn remote(service: &Value) -> Option<Remote> {
    value::at(service, "spec.service")?;
    Some(Remote {
        group: value::text(service, "spec.group").to_owned(),
        version: value::text(service, "spec.version").to_owned(),
        spec: service["spec"].clone(),
        resources: None,
    })
}

/// Asks all servers; says whether all answered.
async fn sync(api: &Api, kind: &Resource) -> bool {
    let mut remotes = Vec::new();
    let mut all = true;
    let mut told = Vec::new();
    for service in services(api) {
        let Some(mut remote) = remote(&service) else {
            let local = (
                true,
                "Local",
                "Local APIServices are always available".to_owned(),
            );
            told.push((service, local));
            continue;
        };
        let availability = match ask(api, &remote).await {
            Ok(resources) => {
                remote.resources = Some(resources);
                (true, "Passed", "all checks passed".to_owned())
            }
            Err(fault) => {
                all = false;
                unavailable(&remote, &fault)
            }
        };
        remotes.push(remote);
        told.push((service, availability));
    }
    // Served first, and told after.
    api.aggregation.set(remotes);
    for (service, availability) in told {
        if let Err(fault) = tell(api, kind, &service, availability).await {
            tracing::warn!(%fault, "the status of an APIService is not written; trying again");
            all = false;
        }
    }
    all
}

async fn ask(api: &Api, remote: &Remote) -> Result<Arc<Value>, OutboundError> {
    let there = api.aggregation.destination(api, remote)?;
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    // Servers that have their users authenticated here tell nothing to strangers.
    let user = User::authenticated("system:kube-aggregator", [MASTERS]);
    let headers = pass::headers(&HeaderMap::new(), &user);
    let bytes = there.get(&path, headers, TIMEOUT).await?;
    document(&bytes).ok_or_else(|| OutboundError::Broken(format!("{path} is no APIResourceList")))
}

fn unavailable(remote: &Remote, fault: &OutboundError) -> Availability {
    let (group, version) = (&remote.group, &remote.version);
    let reason = match fault {
        OutboundError::Config(why) if why.contains("not found") => "ServiceNotFound",
        OutboundError::Config(why) if why.contains("no service port") => "ServicePortError",
        OutboundError::Config(_) => "MissingEndpoints",
        _ => "FailedDiscoveryCheck",
    };
    let message = match reason {
        "FailedDiscoveryCheck" => {
            format!("failing or missing response from {version}.{group}: {fault}")
        }
        _ => fault.to_string(),
    };
    (false, reason, message)
}

async fn tell(
    api: &Api,
    kind: &Resource,
    service: &Value,
    outcome: Availability,
) -> Result<(), Status> {
    let write = Write::by_server(api, kind, "", value::text(service, "metadata.name"));
    let now = object_meta::time(api.now());
    let (available, reason, message) = outcome;
    let written = update::assign(&write, |old| {
        let mut new = old.clone();
        let status = if available { "True" } else { "False" };
        let mut conditions = value::list(old, "status.conditions").to_vec();
        let before = conditions.iter().find(|one| one["type"] == "Available");
        let since = before
            .filter(|one| one["status"] == status)
            .map(|one| one["lastTransitionTime"].clone());
        let condition = json!({
            "type": "Available",
            "status": status,
            "lastTransitionTime": since.unwrap_or_else(|| now.as_str().into()),
            "reason": reason,
            "message": message,
        });
        conditions.retain(|one| one["type"] != "Available");
        conditions.push(condition);
        value::set(&mut new, "status.conditions", conditions);
        Ok(new)
    });
    match written.await {
        Err(status) if status.code == 404 => Ok(()),
        outcome => outcome.map(drop),
    }
}
