//! What a pod uses: the objects of its namespace that its node must read.

use serde_json::Value;

use crate::registry::value;

/// As what a pod uses an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
    /// A PersistentVolumeClaim.
    Claim,
    /// A ServiceAccount.
    ServiceAccount,
    /// A ResourceClaim.
    ResourceClaim,
}

/// Whether a pod, in its JSON, uses an object of its namespace.
pub fn uses(pod: &[u8], used: Used, name: &str) -> bool {
    let Ok(pod) = serde_json::from_slice::<Value>(pod) else {
        return false;
    };
    let is = |object: &Value, path: &str| value::text(object, path) == name;
    let volumes = || value::list(&pod, "spec.volumes").iter();
    let projected = || volumes().flat_map(|volume| value::list(volume, "projected.sources").iter());
    match used {
        Used::ServiceAccount => is(&pod, "spec.serviceAccountName"),
        Used::Claim => volumes().any(|volume| {
            is(volume, "persistentVolumeClaim.claimName") || is_ephemeral(&pod, volume, name)
        }),
        Used::ResourceClaim => value::list(&pod, "spec.resourceClaims")
            .iter()
            .chain(value::list(&pod, "status.resourceClaimStatuses"))
            .any(|claim| is(claim, "resourceClaimName")),
        Used::ConfigMap => {
            volumes().any(|volume| is(volume, "configMap.name"))
                || projected().any(|source| is(source, "configMap.name"))
                || in_environment(&pod, "configMapRef", "configMapKeyRef", name)
        }
        Used::Secret => {
            volumes().any(|volume| is_secret_of_volume(volume, name))
                || projected().any(|source| is(source, "secret.name"))
                || value::list(&pod, "spec.imagePullSecrets")
                    .iter()
                    .any(|one| is(one, "name"))
                || in_environment(&pod, "secretRef", "secretKeyRef", name)
        }
    }
}

/// The claim of an ephemeral volume is named after the pod and the volume.
fn is_ephemeral(pod: &Value, volume: &Value, claim: &str) -> bool {
    let pod = value::text(pod, "metadata.name");
    let name = value::text(volume, "name");
    value::at(volume, "ephemeral").is_some() && claim == format!("{pod}-{name}")
}

/// A volume's own secret, or the one with which its storage is reached.
fn is_secret_of_volume(volume: &Value, name: &str) -> bool {
    let sources = volume.as_object().into_iter().flatten();
    sources.map(|(_, source)| source).any(|source| {
        ["secretName", "secretRef.name", "nodePublishSecretRef.name"]
            .iter()
            .any(|path| value::text(source, path) == name)
    })
}

/// Whether a PersistentVolume names a Secret that its storage driver needs on a node.
pub fn is_secret_of_driver(volume: &Value, namespace: &str, name: &str) -> bool {
    let refs = [
        "nodeStageSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ];
    refs.iter().any(|one| {
        let part = |part: &str| value::text(volume, &format!("spec.csi.{one}.{part}"));
        part("namespace") == namespace && part("name") == name
    })
}

fn in_environment(pod: &Value, whole: &str, key: &str, name: &str) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"];
    let mut containers = lists
        .iter()
        .flat_map(|list| value::list(pod, &format!("spec.{list}")));
    containers.any(|container| {
        let wholes = value::list(container, "envFrom").iter();
        let keys = value::list(container, "env").iter();
        wholes
            .map(|one| &one[whole])
            .any(|one| value::text(one, "name") == name)
            || keys
                .map(|one| &one["valueFrom"][key])
                .any(|one| value::text(one, "name") == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_way_of_use() {
        let pod = json!({
            "metadata": {"name": "p"},
            "spec": {
                "serviceAccountName": "account",
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"envFrom": [{"secretRef": {"name": "init-env"}}]}],
                "containers": [{
                    "envFrom": [{"configMapRef": {"name": "map-env"}}],
                    "env": [
                        {"name": "x", "value": "plain"},
                        {"name": "y", "valueFrom": {"secretKeyRef": {"name": "key-env", "key": "k"}}},
                        {"name": "z", "valueFrom": {"configMapKeyRef": {"name": "map-key", "key": "k"}}},
                    ],
                }],
                "volumes": [
                    {"name": "a", "secret": {"secretName": "volume"}},
                    {"name": "b", "configMap": {"name": "map-volume"}},
                    {"name": "c", "projected": {"sources": [
                        {"secret": {"name": "projected"}}, {"configMap": {"name": "map-projected"}},
                    ]}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
                    {"name": "e", "ephemeral": {}},
                    {"name": "f", "csi": {"nodePublishSecretRef": {"name": "csi"}}},
                ],
                "resourceClaims": [{"name": "g", "resourceClaimName": "device"}],
            },
        });
        let bytes = pod.to_string().into_bytes();
        for (used, names) in [
            (Used::ServiceAccount, "account"),
            (Used::Secret, "pull init-env key-env volume projected csi"),
            (Used::ConfigMap, "map-env map-key map-volume map-projected"),
            (Used::Claim, "claim p-e"),
            (Used::ResourceClaim, "device"),
        ] {
            for name in names.split(' ') {
                assert!(uses(&bytes, used, name), "{used:?} {name}");
            }
            for name in ["plain", "x", "p-d", "p"] {
                assert!(!uses(&bytes, used, name), "{used:?} {name}");
            }
        }
        assert!(!uses(&bytes, Used::ConfigMap, "volume"));
        assert!(!uses(b"garbage", Used::Secret, "x"));
        let volume = json!({"spec": {"csi": {
            "nodeStageSecretRef": {"namespace": "ns", "name": "s"},
            "controllerPublishSecretRef": {"namespace": "ns", "name": "c"}}}});
        assert!(is_secret_of_driver(&volume, "ns", "s"));
        assert!(!is_secret_of_driver(&volume, "other", "s"));
        assert!(
            !is_secret_of_driver(&volume, "ns", "c"),
            "not a node's affair"
        );
    }
}
