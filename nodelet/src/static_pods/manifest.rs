//! A static pod from its manifest. Pure.
//!
//! As upstream names and marks them, so that every tool that knows static pods knows ours: the name
//! ends in the node's, the UID follows from the manifest and the node, annotations say where it
//! came from.

use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use peapod_api::k8s_openapi;
use serde_json::Value;

use crate::core::spec_of;
use crate::runtime::hex_sha256;

/// Annotation: which manifest this is.
pub const HASH: &str = "kubernetes.io/config.hash";
/// Annotation of the API's copy: of which manifest it is one.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation: `file` for a static pod.
const SOURCE: &str = "kubernetes.io/config.source";
/// Digits of a UID, as an MD5 has them.
const UID_LENGTH: usize = 32;

/// Reads a manifest, YAML or JSON.
pub fn parse(text: &str, node: &str) -> Result<Pod, String> {
    // By way of a value: the reader of YAML, compiled for every type below a pod, would be megabytes.
    let document: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut pod: Pod = serde_json::from_value(document).map_err(|error| error.to_string())?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    if name.is_empty() || spec_of(&pod).containers.is_empty() {
        return Err("a static pod needs metadata.name and spec.containers".to_owned());
    }
    let foreign = api_reference(&pod);
    if let Some(field) = foreign {
        return Err(format!(
            "a static pod cannot refer to objects of the API, as {field} does"
        ));
    }
    let hash = hex_sha256(&[text, node]);
    let uid = hash.get(..UID_LENGTH).unwrap_or(&hash).to_owned();
    let own = [(HASH, uid.as_str()), (SOURCE, "file")];
    let mut annotations = pod.metadata.annotations.take().unwrap_or_default();
    annotations.extend(own.map(|(key, value)| (key.to_owned(), value.to_owned())));
    pod.metadata = ObjectMeta {
        name: Some(format!("{name}-{node}")),
        namespace: pod
            .metadata
            .namespace
            .or_else(|| Some("default".to_owned())),
        labels: pod.metadata.labels,
        annotations: Some(annotations),
        uid: Some(uid),
        ..ObjectMeta::default()
    };
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node.to_owned());
        spec.enable_service_links = Some(false);
        let stays = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        };
        spec.tolerations.get_or_insert_default().push(stays);
    }
    Ok(pod)
}

/// The first field of a pod that refers to an object of the API.
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = spec_of(pod);
    if spec.service_account_name.is_some() {
        return Some("spec.serviceAccountName");
    }
    for volume in spec.volumes.iter().flatten() {
        let refers = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.persistent_volume_claim.is_some()
            || volume.ephemeral.is_some()
            || volume.projected.is_some();
        if refers {
            return Some("spec.volumes");
        }
    }
    let containers = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    for container in containers {
        let value = |source: &k8s_openapi::api::core::v1::EnvVarSource| {
            source.config_map_key_ref.is_some() || source.secret_key_ref.is_some()
        };
        let mut env = container.env.iter().flatten();
        if container.env_from.is_some()
            || env.any(|variable| variable.value_from.as_ref().is_some_and(value))
        {
            return Some("spec.containers[].env");
        }
    }
    None
}

/// Whether a pod comes from a file of the node.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE) == Some("file") && annotation(pod, MIRROR).is_none()
}

/// Of which manifest a pod of the API is the copy.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

/// The API's copy of a static pod; `node_uid` is the UID of its owner.
pub fn mirror(pod: &Pod, node: &str, node_uid: &str) -> Pod {
    let mut copy = pod.clone();
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    copy.metadata.uid = None;
    copy.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    let annotations = copy.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.to_owned(), hash);
    copy
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    let all = pod.metadata.annotations.as_ref()?;
    all.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers: [{name: c, image: img}]
";

    #[test]
    fn named_and_marked_as_upstream_does() {
        let pod = parse(WEB, "n1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-n1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        assert!(is_static(&pod));
        assert_eq!(spec_of(&pod).node_name.as_deref(), Some("n1"));
        assert_ne!(parse(WEB, "n2").unwrap().metadata.uid, pod.metadata.uid);
        let changed = WEB.replace("img", "other");
        assert_ne!(
            parse(&changed, "n1").unwrap().metadata.uid,
            pod.metadata.uid
        );

        let copy = mirror(&pod, "n1", "node-uid");
        assert!(!is_static(&copy));
        assert_eq!(mirrored(&copy), pod.metadata.uid.as_deref());
        assert_eq!(copy.metadata.uid, None);
    }

    #[test]
    fn what_cannot_run_without_the_api_is_refused() {
        for (text, said) in [
            ("- nonsense", "expected"),
            ("metadata: {name: x}", "spec.containers"),
            (
                "{metadata: {name: x}, spec: {serviceAccountName: a, containers: [{name: c}]}}",
                "spec.serviceAccountName",
            ),
            (
                "{metadata: {name: x}, spec: {volumes: [{name: v, secret: {}}], containers: [{name: c}]}}",
                "spec.volumes",
            ),
        ] {
            let error = parse(text, "n1").unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
