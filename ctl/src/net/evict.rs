//! Evicts the pods of a node, as `kubectl drain` does: what may go is asked of the API pod by pod,
//! so that disruption budgets hold.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams};
use kube::runtime::conditions::is_deleted;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use peapod_api::k8s_openapi;

/// The annotation of what stands in the API for a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Between two attempts that a disruption budget refuses: nothing tells when it allows one.
const AGAIN: Duration = Duration::from_secs(1);

/// What may be evicted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Pods without a controller, too.
    pub force: bool,
    /// Pods with data that goes with them, too.
    pub delete_emptydir_data: bool,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What is to be done with the pods of a node.
#[derive(Debug, Default)]
pub struct Plan {
    evict: Vec<Pod>,
    stay: Vec<String>,
}

/// What was done, as `namespace/name`.
#[derive(Debug, Default)]
pub struct Evicted {
    /// Gone.
    pub evicted: Vec<String>,
    /// Still there, as they should be.
    pub stays: Vec<String>,
}

/// Looks which pods are to go.
///
/// # Errors
/// If one must not without being told so; all of those are named.
pub async fn plan(client: &Client, node: &str, options: &Options) -> Result<Plan> {
    let pods: Api<Pod> = Api::all(client.clone());
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let found = pods.list(&here).await;
    sort(found.map_err(crate::client::server_error)?.items, options)
}

fn sort(pods: Vec<Pod>, options: &Options) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut refused = Vec::new();
    for pod in pods {
        let why = match Kind::of(&pod) {
            Kind::Stays => {
                plan.stay.push(key(&pod));
                continue;
            }
            Kind::Ended => None,
            Kind::Alone if !options.force => Some("no controller makes it anew (--force)"),
            _ if has_own_data(&pod) && !options.delete_emptydir_data => {
                Some("its emptyDir would be lost (--delete-emptydir-data)")
            }
            _ => None,
        };
        match why {
            Some(why) => refused.push(format!("{}: {why}", key(&pod))),
            None => plan.evict.push(pod),
        }
    }
    if !refused.is_empty() {
        bail!(
            "nothing was done, since some pods are not to be evicted unasked:\n  {}",
            refused.join("\n  ")
        );
    }
    Ok(plan)
}

/// Who looks after a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A DaemonSet, or the node itself: it would be back at once.
    Stays,
    /// It has ended.
    Ended,
    /// Nobody.
    Alone,
    /// A controller that makes it anew.
    Replaced,
}

impl Kind {
    fn of(pod: &Pod) -> Self {
        let owners = pod.owner_references().iter();
        let mut controllers = owners.filter(|owner| owner.controller == Some(true));
        let controller = controllers.next().map(|owner| owner.kind.as_str());
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        match (controller, phase) {
            _ if pod.annotations().contains_key(MIRROR) => Self::Stays,
            (_, Some("Succeeded" | "Failed")) => Self::Ended,
            (Some("DaemonSet"), _) => Self::Stays,
            (Some(_), _) => Self::Replaced,
            (None, _) => Self::Alone,
        }
    }
}

fn has_own_data(pod: &Pod) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.is_some_and(|all| all.iter().any(|volume| volume.empty_dir.is_some()))
}

fn key(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// Evicts them all at once, as far as budgets let it, and waits until they are gone.
///
/// # Errors
/// If that takes too long; who is still there is named.
pub async fn run(
    client: &Client,
    plan: Plan,
    options: &Options,
    say: impl Fn(&str),
) -> Result<Evicted> {
    let until = Instant::now() + options.timeout;
    if !plan.evict.is_empty() {
        say(&format!("evicting {} pods", plan.evict.len()));
    }
    let one = |pod: Pod| async move {
        let key = key(&pod);
        let ended = tokio::time::timeout_at(until.into(), evict(client, &pod)).await;
        (key, ended)
    };
    let all = futures::future::join_all(plan.evict.into_iter().map(one)).await;
    let mut done = Evicted {
        stays: plan.stay,
        ..Evicted::default()
    };
    let mut left = Vec::new();
    for (key, ended) in all {
        match ended {
            Ok(Ok(())) => done.evicted.push(key),
            Ok(Err(error)) => left.push(format!("{key}: {}", crate::terminal::sentence(&error))),
            Err(_) => left.push(format!("{key}: it has not ended in time")),
        }
    }
    if !left.is_empty() {
        bail!(
            "some pods are still there; run this again:\n  {}",
            left.join("\n  ")
        );
    }
    if !done.evicted.is_empty() {
        say(&format!("{} pods have ended", done.evicted.len()));
    }
    Ok(done)
}

/// Evicts a pod, as soon as its budget allows it, and waits until it is gone.
async fn evict(client: &Client, pod: &Pod) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    loop {
        match pods.evict(&pod.name_any(), &EvictParams::default()).await {
            Ok(_) => break,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 429 => {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(crate::client::server_error(error)),
        }
    }
    let uid = pod.uid().context("the pod has no UID")?;
    await_condition(pods, &pod.name_any(), is_deleted(&uid))
        .await
        .context("cannot watch the pod")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, owner: Option<&str>, more: Value) -> Pod {
        let owners: Vec<Value> = owner
            .map(|kind| json!({"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}))
            .into_iter()
            .collect();
        let mut pod =
            json!({"metadata": {"namespace": "a", "name": name, "ownerReferences": owners}});
        if let (Some(pod), Value::Object(more)) = (pod.as_object_mut(), more) {
            pod.extend(more);
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn who_goes_and_who_stays() {
        let with_data =
            json!({"spec": {"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}});
        let pods = || {
            vec![
                pod("web", Some("ReplicaSet"), json!({})),
                pod("agent", Some("DaemonSet"), json!({})),
                pod("alone", None, json!({})),
                pod("cache", Some("ReplicaSet"), with_data.clone()),
                pod("done", None, json!({"status": {"phase": "Succeeded"}})),
            ]
        };
        let options = |force, delete_emptydir_data| Options {
            force,
            delete_emptydir_data,
            timeout: Duration::ZERO,
        };
        let refused = sort(pods(), &options(false, false))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("a/alone: no controller")
                && refused.contains("a/cache: its emptyDir")
                && !refused.contains("a/web"),
            "{refused}"
        );
        let plan = sort(pods(), &options(true, true)).unwrap();
        let keys: Vec<String> = plan.evict.iter().map(key).collect();
        assert_eq!(keys, ["a/web", "a/alone", "a/cache", "a/done"]);
        assert_eq!(plan.stay, ["a/agent"]);
    }
}
