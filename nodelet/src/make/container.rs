//! One container, everything resolved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use peapod_api::k8s_openapi;

use super::expand::expand_with;
use super::{Missing, resources, security};
use crate::core::spec_of;
use crate::runtime::{ContainerId, ContainerSpec, Device, Image, Mount};

/// Label of a container: `spec.image` that it was made from.
pub const LABEL_IMAGE: &str = "nodelet.peapod.dev/image";

/// What a container is made from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Its spec.
    pub container: &'a Container,
    /// Its restart count.
    pub attempt: u32,
    /// The image, present on the node.
    pub image: &'a Image,
    /// The OCI runtime of its pod, if it is not the default.
    pub runtime_handler: Option<String>,
    /// The runtime's ID of the container that it targets, if it does.
    pub target: Option<ContainerId>,
    /// Its environment, from [`super::env::build`].
    pub env: Vec<(String, String)>,
    /// Its mounts, in place on the node.
    pub mounts: Vec<Mount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Where it logs to.
    pub log_path: PathBuf,
    /// Where local seccomp profiles are.
    pub seccomp_root: &'a Path,
    /// Memory of the node, bytes.
    pub node_memory_bytes: i64,
}

/// Puts the parts together.
pub fn container(parts: Parts) -> Result<ContainerSpec, Missing> {
    let Parts {
        pod,
        container,
        image,
        env,
        ..
    } = parts;
    let spec = spec_of(pod);
    let expanded = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|text| expand_with(text, &env))
            .collect()
    };
    let image_name = container.image.clone().unwrap_or_default();
    Ok(ContainerSpec {
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
        name: container.name.clone(),
        attempt: parts.attempt,
        image: image.id.clone(),
        image_name: image_name.clone(),
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        user: security::user(spec, container, &image.config)?,
        mounts: in_order(parts.mounts),
        devices: parts.devices,
        hooks: Vec::new(),
        resources: resources::container(container.resources.as_ref()),
        oom_score_adj: Some(resources::oom_score(
            spec,
            container.resources.as_ref(),
            parts.node_memory_bytes,
        )),
        security: security::security(spec, container, parts.seccomp_root)?,
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        log_path: Some(parts.log_path),
        labels: BTreeMap::from([(LABEL_IMAGE.to_owned(), image_name)]),
        pid_of: parts.target,
        runtime_handler: parts.runtime_handler,
        env,
    })
}

/// A mount below another comes after it, whatever the order in which they were declared.
fn in_order(mut mounts: Vec<Mount>) -> Vec<Mount> {
    mounts.sort_by_key(|mount| mount.destination.components().count());
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expands_and_orders() {
        let app = json!({"name": "app", "image": "img", "command": ["sh", "-c"],
            "args": ["echo $(A) $$(A)"], "tty": true});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [app]}}))
        .unwrap();
        let mount = |path: &str| Mount {
            destination: path.into(),
            ..Mount::default()
        };
        let made = container(Parts {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            attempt: 2,
            image: &Image {
                id: "sha256:1".into(),
                ..Image::default()
            },
            runtime_handler: None,
            target: None,
            env: vec![("A".into(), "1".into())],
            mounts: vec![mount("/data/deep"), mount("/data")],
            devices: Vec::new(),
            log_path: "/log".into(),
            seccomp_root: Path::new("/s"),
            node_memory_bytes: 1 << 30,
        })
        .unwrap();
        assert_eq!(made.args, ["echo 1 $(A)"]);
        assert_eq!(
            (made.attempt, made.tty, made.oom_score_adj),
            (2, true, Some(1000))
        );
        assert_eq!(made.mounts[0].destination, Path::new("/data"));
        assert_eq!(made.labels[LABEL_IMAGE], "img");
    }
}
