//! Who a container's process is and what it may do.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec, SeccompProfile};
use peapod_api::k8s_openapi;

use super::Missing;
use crate::runtime::{ImageConfig, Seccomp, Security, User};

/// The user of a container's process. `runAsNonRoot` refuses root, and a user whose number is
/// not known before the container runs.
pub fn user(spec: &PodSpec, container: &Container, image: &ImageConfig) -> Result<User, Missing> {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let uid = own
        .and_then(|c| c.run_as_user)
        .or(pod.and_then(|p| p.run_as_user));
    let gid = own
        .and_then(|c| c.run_as_group)
        .or(pod.and_then(|p| p.run_as_group));
    let non_root = own
        .and_then(|c| c.run_as_non_root)
        .or(pod.and_then(|p| p.run_as_non_root));
    if non_root == Some(true) {
        refuse_root(container, uid, image)?;
    }
    let mut groups: Vec<i64> = pod
        .and_then(|p| p.supplemental_groups.clone())
        .unwrap_or_default();
    groups.extend(pod.and_then(|p| p.fs_group));
    let policy = pod.and_then(|p| p.supplemental_groups_policy.as_deref());
    let number = |id: i64| {
        u32::try_from(id).map_err(|_| Missing(format!("{id} is no user or group number")))
    };
    Ok(User {
        uid: uid.map(number).transpose()?,
        gid: gid.map(number).transpose()?,
        additional_gids: groups.into_iter().map(number).collect::<Result<_, _>>()?,
        strict_groups: policy == Some("Strict"),
    })
}

fn refuse_root(
    container: &Container,
    uid: Option<i64>,
    image: &ImageConfig,
) -> Result<(), Missing> {
    let name = &container.name;
    match (uid, image.uid) {
        (Some(0), _) => Err(Missing(format!(
            "container's runAsUser breaks non-root policy (container: {name})"
        ))),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(Missing(format!(
            "container has runAsNonRoot and image will run as root (container: {name})"
        ))),
        (None, Some(_)) => Ok(()),
        (None, None) => Err(Missing(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), \
             cannot verify user is non-root (container: {name})",
            image.user
        ))),
    }
}

/// What a container's process may do. Local seccomp profiles are files below `seccomp_root`.
pub fn security(
    spec: &PodSpec,
    container: &Container,
    seccomp_root: &Path,
) -> Result<Security, Missing> {
    let own = container.security_context.as_ref();
    let pod = spec.security_context.as_ref();
    let privileged = own.and_then(|c| c.privileged) == Some(true);
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    let profile = own
        .and_then(|c| c.seccomp_profile.as_ref())
        .or(pod.and_then(|p| p.seccomp_profile.as_ref()));
    let app_armor = own
        .and_then(|c| c.app_armor_profile.as_ref())
        .or(pod.and_then(|p| p.app_armor_profile.as_ref()))
        .filter(|profile| profile.type_ == "Localhost")
        .and_then(|profile| profile.localhost_profile.clone());
    let bare = |list: Option<&Vec<String>>| -> Vec<String> {
        let list = list.into_iter().flatten();
        list.map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned())
            .collect()
    };
    Ok(Security {
        privileged,
        read_only_rootfs: own.and_then(|c| c.read_only_root_filesystem) == Some(true),
        no_new_privileges: own.and_then(|c| c.allow_privilege_escalation) == Some(false)
            && !privileged,
        add_capabilities: bare(capabilities.and_then(|c| c.add.as_ref())),
        drop_capabilities: bare(capabilities.and_then(|c| c.drop.as_ref())),
        seccomp: seccomp(profile, seccomp_root)?,
        apparmor_profile: app_armor,
        unmasked_proc: own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked"),
    })
}

fn seccomp(profile: Option<&SeccompProfile>, root: &Path) -> Result<Seccomp, Missing> {
    let Some(profile) = profile else {
        return Ok(Seccomp::Unconfined);
    };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Localhost" => {
            let name = profile.localhost_profile.as_deref().unwrap_or_default();
            let inside = !name.is_empty()
                && Path::new(name)
                    .components()
                    .all(|part| matches!(part, std::path::Component::Normal(_)));
            if !inside {
                return Err(Missing(format!(
                    "seccomp profile {name:?} must be a path below {}",
                    root.display()
                )));
            }
            Ok(Seccomp::Localhost(root.join(name)))
        }
        _ => Ok(Seccomp::Unconfined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn user_of(pod: serde_json::Value, own: serde_json::Value, image: &ImageConfig) -> String {
        let spec = serde_json::from_value(json!({"containers": [], "securityContext": pod}));
        let container = serde_json::from_value(json!({"name": "app", "securityContext": own}));
        match user(&spec.unwrap(), &container.unwrap(), image) {
            Ok(user) => format!("{:?}:{:?} {:?}", user.uid, user.gid, user.additional_gids),
            Err(missing) => missing.to_string(),
        }
    }

    #[test]
    fn users() {
        let root = ImageConfig {
            uid: Some(0),
            ..ImageConfig::default()
        };
        let named = ImageConfig {
            user: "web".into(),
            uid: None,
            ..ImageConfig::default()
        };
        let table = [
            (json!({}), json!({}), &root, "None:None []"),
            (
                json!({"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [9]}),
                json!({"runAsUser": 6, "runAsGroup": 8}),
                &root,
                "Some(6):Some(8) [9, 7]",
            ),
            (
                json!({"runAsNonRoot": true}),
                json!({}),
                &root,
                "container has runAsNonRoot and image will run as root (container: app)",
            ),
            (
                json!({}),
                json!({"runAsNonRoot": true}),
                &named,
                "container has runAsNonRoot and image has non-numeric user (web), \
                 cannot verify user is non-root (container: app)",
            ),
            (
                json!({"runAsNonRoot": true}),
                json!({"runAsUser": 5}),
                &root,
                "Some(5):None []",
            ),
        ];
        for (pod, own, image, expected) in table {
            assert_eq!(user_of(pod, own, image), expected);
        }
    }

    #[test]
    fn a_seccomp_profile_stays_in_its_folder() {
        let profile = |name: &str| {
            let value = json!({"type": "Localhost", "localhostProfile": name});
            seccomp(
                Some(&serde_json::from_value(value).unwrap()),
                Path::new("/s"),
            )
        };
        assert_eq!(
            profile("a/b.json"),
            Ok(Seccomp::Localhost("/s/a/b.json".into()))
        );
        assert!(profile("../b.json").is_err());
        assert!(profile("").is_err());
    }
}
