//! `ServiceAccount`: every pod runs as a service account, and gets its token, the cluster's CA
//! and its namespace mounted.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, find};
use crate::api::Api;
use crate::random;
use crate::registry::value;
use crate::status::Result;

/// Where containers find the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Lifetime of that token in seconds; an hour, and some leeway, as upstream.
const TOKEN_SECONDS: u32 = 3607;
/// Annotation of pods that a node runs from files of its own.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount;

#[async_trait]
impl Plugin for ServiceAccount {
    async fn mutate(&self, api: &Api, write: &Attributes<'_>, pod: &mut Value) -> Result<()> {
        if !write.creates("", "pods") || is_mirror(pod) {
            return Ok(());
        }
        let name = account_name(pod);
        let account = find(api, "", "serviceaccounts", write.namespace, &name);
        let Some(account) = account else {
            return Err(write.forbid(format!(
                "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                write.namespace
            )));
        };
        add_pull_secrets(pod, &account);
        if wants_token(pod, &account) {
            mount_token(pod, &format!("kube-api-access-{}", random::suffix()));
        }
        Ok(())
    }

    async fn validate(&self, _api: &Api, write: &Attributes<'_>, pod: &Value) -> Result<()> {
        let updates = write.operation == Operation::Update && write.is_on("", "pods");
        if let (true, Some(old)) = (updates, write.old)
            && value::text(pod, "spec.serviceAccountName")
                != value::text(old, "spec.serviceAccountName")
        {
            return Err(write.forbid("cannot update spec.serviceAccountName of a pod"));
        }
        Ok(())
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// The account's name, written into the pod.
fn account_name(pod: &mut Value) -> String {
    let mut name = value::text(pod, "spec.serviceAccountName").to_owned();
    if name.is_empty() {
        name = value::text(pod, "spec.serviceAccount").to_owned();
    }
    if name.is_empty() {
        name = "default".to_owned();
    }
    value::set(pod, "spec.serviceAccountName", name.as_str());
    value::set(pod, "spec.serviceAccount", name.as_str());
    name
}

fn add_pull_secrets(pod: &mut Value, account: &Value) {
    let secrets = value::list(account, "imagePullSecrets");
    if !secrets.is_empty() && value::list(pod, "spec.imagePullSecrets").is_empty() {
        value::set(pod, "spec.imagePullSecrets", secrets.to_vec());
    }
}

fn wants_token(pod: &Value, account: &Value) -> bool {
    let choice = |object, path| value::at(object, path).and_then(Value::as_bool);
    choice(pod, "spec.automountServiceAccountToken")
        .or_else(|| choice(account, "automountServiceAccountToken"))
        .unwrap_or(true)
}

fn mount_token(pod: &mut Value, volume: &str) {
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = value::at_mut(pod, "spec").and_then(|spec| spec.get_mut(list));
        let containers = containers.and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            used |= mount(container, volume);
        }
    }
    if !used {
        return;
    }
    match value::entry(pod, "spec.volumes") {
        Value::Array(volumes) => volumes.push(token_volume(volume)),
        other => *other = json!([token_volume(volume)]),
    }
}

/// Mounts the volume in a container, unless something is mounted there already.
fn mount(container: &mut Value, volume: &str) -> bool {
    let mounts = value::list(container, "volumeMounts");
    if mounts
        .iter()
        .any(|m| value::text(m, "mountPath") == MOUNT_PATH)
    {
        return false;
    }
    let mount = json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH});
    match value::entry(container, "volumeMounts") {
        Value::Array(mounts) => mounts.push(mount),
        other => *other = json!([mount]),
    }
    true
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_gets_the_mount_and_the_pod_one_volume() {
        let mut pod = json!({"spec": {
            "initContainers": [{"name": "i"}],
            "containers": [
                {"name": "a"},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
            ],
        }});
        mount_token(&mut pod, "v");
        let mounted =
            |at: &str| value::list(&pod["spec"], at)[0]["volumeMounts"][0]["name"].clone();
        assert_eq!(mounted("initContainers"), "v");
        assert_eq!(mounted("containers"), "v");
        assert_eq!(
            pod["spec"]["containers"][1]["volumeMounts"][0]["name"],
            "own"
        );
        assert_eq!(value::list(&pod, "spec.volumes").len(), 1);
    }

    #[test]
    fn the_pod_decides_before_the_account() {
        let account = json!({"automountServiceAccountToken": false});
        assert!(!wants_token(&json!({"spec": {}}), &account));
        let pod = json!({"spec": {"automountServiceAccountToken": true}});
        assert!(wants_token(&pod, &account));
    }
}
