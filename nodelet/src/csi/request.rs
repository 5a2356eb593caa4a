//! What a driver is asked for a volume; pure.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;
use peapod_api::k8s_openapi;
use peapod_csi::v1::VolumeCapability;
use peapod_csi::v1::volume_capability::access_mode::Mode;
use peapod_csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use super::spec::Spec;
use crate::core::spec_of;

/// Before the keys that tell a driver of the pod.
const ABOUT_POD: &str = "csi.storage.k8s.io/";
/// The key of a pod's tokens.
pub const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// What a CSIDriver object says, with upstream's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    /// `attachRequired`
    pub attach: bool,
    /// `podInfoOnMount`
    pub pod_info: bool,
    /// `fsGroupPolicy`
    pub group: GroupPolicy,
    /// `volumeLifecycleModes`: whether it takes volumes that a pod brings, and others.
    pub ephemeral: bool,
    /// `Persistent` among them.
    pub persistent: bool,
    /// `tokenRequests`: audience and seconds.
    pub tokens: Vec<(String, Option<i64>)>,
    /// `serviceAccountTokenInSecrets`
    pub tokens_in_secrets: bool,
    /// `requiresRepublish`
    pub republish: bool,
}

/// Whose affair a pod's `fsGroup` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupPolicy {
    /// The node's, for a file system with a known type that one node writes.
    WithFsType,
    /// The node's, always.
    File,
    /// Nobody's.
    None,
}

// === impl Traits ===

impl Traits {
    /// Reads the object; without one a driver is attached, and told of no pod.
    pub fn of(driver: Option<&CSIDriver>) -> Self {
        let spec = driver.map(|driver| driver.spec.clone()).unwrap_or_default();
        let modes = spec.volume_lifecycle_modes.unwrap_or_default();
        let has = |mode: &str| modes.iter().any(|one| one == mode);
        let requests = spec.token_requests.unwrap_or_default();
        Self {
            attach: spec.attach_required != Some(false),
            pod_info: spec.pod_info_on_mount == Some(true),
            group: match spec.fs_group_policy.as_deref() {
                Some("File") => GroupPolicy::File,
                Some("None") => GroupPolicy::None,
                _ => GroupPolicy::WithFsType,
            },
            ephemeral: has("Ephemeral"),
            persistent: modes.is_empty() || has("Persistent"),
            tokens: requests
                .into_iter()
                .map(|request| (request.audience, request.expiration_seconds))
                .collect(),
            tokens_in_secrets: spec.service_account_token_in_secrets == Some(true),
            republish: spec.requires_republish == Some(true),
        }
    }

    /// Whether a volume of this kind may be had of the driver.
    pub fn admit(&self, spec: &Spec) -> Result<(), String> {
        let (allowed, mode) = match spec.ephemeral {
            true => (self.ephemeral, "Ephemeral"),
            false => (self.persistent, "Persistent"),
        };
        match allowed {
            true => Ok(()),
            false => Err(format!(
                "volume mode \"{mode}\" not supported by driver {} (see volumeLifecycleModes of \
                 its CSIDriver)",
                spec.driver
            )),
        }
    }

    /// Whether a volume has to be attached to the node before it is staged.
    pub fn attaches(&self, spec: &Spec) -> bool {
        self.attach && !spec.ephemeral
    }

    /// Whether the node gives the volume to a pod's group.
    pub fn gives_to_group(&self, spec: &Spec) -> bool {
        let one_node = spec
            .access_modes
            .iter()
            .any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod");
        let by_policy = match self.group {
            GroupPolicy::None => false,
            GroupPolicy::File => true,
            GroupPolicy::WithFsType => !spec.fs_type.is_empty() && one_node,
        };
        by_policy && !spec.read_only && !spec.block
    }
}

/// How a volume is to be used. `several` is whether the driver tells apart one pod of a node from
/// several; `group` is for drivers that mount with it.
pub fn capability(spec: &Spec, several: bool, group: Option<u32>) -> VolumeCapability {
    let mode = match (spec.access_modes.first().map(String::as_str), several) {
        (Some("ReadOnlyMany"), _) => Mode::MultiNodeReaderOnly,
        (Some("ReadWriteMany"), _) => Mode::MultiNodeMultiWriter,
        (Some("ReadWriteOncePod"), true) => Mode::SingleNodeSingleWriter,
        (_, true) => Mode::SingleNodeMultiWriter,
        (_, false) => Mode::SingleNodeWriter,
    };
    let access = match spec.block {
        true => AccessType::Block(BlockVolume {}),
        false => AccessType::Mount(MountVolume {
            fs_type: spec.fs_type.clone(),
            mount_flags: spec.mount_options.clone(),
            volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
        }),
    };
    VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

/// The volume's context for a pod: its attributes, and what the driver wants to know of the pod.
pub fn context(
    spec: &Spec,
    traits: &Traits,
    pod: &Pod,
    tokens: Option<&str>,
) -> HashMap<String, String> {
    let mut context: HashMap<_, _> = spec.attributes.clone().into_iter().collect();
    if traits.pod_info {
        let meta = &pod.metadata;
        let account = spec_of(pod).service_account_name.as_deref();
        let about = [
            ("pod.name", meta.name.as_deref().unwrap_or_default()),
            (
                "pod.namespace",
                meta.namespace.as_deref().unwrap_or_default(),
            ),
            ("pod.uid", meta.uid.as_deref().unwrap_or_default()),
            ("serviceAccount.name", account.unwrap_or_default()),
            ("ephemeral", if spec.ephemeral { "true" } else { "false" }),
        ];
        let about = about.map(|(key, value)| (format!("{ABOUT_POD}{key}"), value.to_owned()));
        context.extend(about);
    }
    if let Some(tokens) = tokens.filter(|_| !traits.tokens_in_secrets) {
        context.insert(TOKENS.to_owned(), tokens.to_owned());
    }
    context
}

/// Tokens as drivers read them: JSON, by audience.
pub fn tokens(all: &[(String, String, jiff::Timestamp)]) -> String {
    let entries: BTreeMap<_, _> = all
        .iter()
        .map(|(audience, token, expires)| {
            let entry = serde_json::json!({
                "token": token, "expirationTimestamp": expires.to_string()});
            (audience, entry)
        })
        .collect();
    serde_json::to_string(&entries).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn traits(spec: Value) -> Traits {
        let driver = json!({"metadata": {"name": "d"}, "spec": spec});
        Traits::of(Some(&serde_json::from_value(driver).unwrap()))
    }

    fn spec(modes: &[&str]) -> Spec {
        Spec {
            driver: "d".to_owned(),
            fs_type: "ext4".to_owned(),
            access_modes: modes.iter().map(|mode| (*mode).to_owned()).collect(),
            attributes: [("size".to_owned(), "1".to_owned())].into(),
            ..Spec::default()
        }
    }

    #[test]
    fn access_modes_as_upstream_asks_for_them() {
        let asked = |mode: &str, several| {
            let capability = capability(&spec(&[mode]), several, None);
            capability.access_mode.unwrap().mode().as_str_name()
        };
        assert_eq!(asked("ReadWriteOnce", false), "SINGLE_NODE_WRITER");
        assert_eq!(asked("ReadWriteOnce", true), "SINGLE_NODE_MULTI_WRITER");
        assert_eq!(asked("ReadWriteOncePod", false), "SINGLE_NODE_WRITER");
        assert_eq!(asked("ReadWriteOncePod", true), "SINGLE_NODE_SINGLE_WRITER");
        assert_eq!(asked("ReadOnlyMany", true), "MULTI_NODE_READER_ONLY");
        assert_eq!(asked("ReadWriteMany", false), "MULTI_NODE_MULTI_WRITER");
    }

    #[test]
    fn whose_affair_the_group_is() {
        let gives = |policy: &str, spec: &Spec| {
            traits(json!({"fsGroupPolicy": policy})).gives_to_group(spec)
        };
        let (once, many) = (spec(&["ReadWriteOnce"]), spec(&["ReadWriteMany"]));
        let by_type = "ReadWriteOnceWithFSType";
        assert!(gives(by_type, &once) && !gives(by_type, &many));
        assert!(gives("File", &many) && !gives("None", &once));
        let untyped = Spec {
            fs_type: String::new(),
            ..once.clone()
        };
        assert!(!gives(by_type, &untyped));
        let read_only = Spec {
            read_only: true,
            ..once.clone()
        };
        assert!(!gives("File", &read_only));
        let block = Spec {
            block: true,
            ..once
        };
        assert!(!gives("File", &block));
    }

    #[test]
    fn what_a_driver_takes() {
        let own = Spec {
            ephemeral: true,
            ..spec(&["ReadWriteOnce"])
        };
        let persistent = spec(&["ReadWriteOnce"]);
        let unsaid = Traits::of(None);
        assert!(unsaid.attaches(&persistent) && unsaid.admit(&persistent).is_ok());
        assert!(
            unsaid
                .admit(&own)
                .unwrap_err()
                .contains("\"Ephemeral\" not supported")
        );
        let both = traits(json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"]}));
        assert!(both.admit(&own).is_ok() && !both.attaches(&own));
        let only = traits(json!({"volumeLifecycleModes": ["Ephemeral"], "attachRequired": false}));
        assert!(only.admit(&persistent).is_err() && !only.attaches(&persistent));
    }

    #[test]
    fn what_a_driver_is_told_of_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [], "serviceAccountName": "sa"},
        }))
        .unwrap();
        let told = |traits: &Traits, tokens| {
            let all = context(&spec(&[]), traits, &pod, tokens);
            let sorted: BTreeMap<_, _> = all.into_iter().collect();
            let each = sorted.iter().map(|(key, value)| {
                let key = key.trim_start_matches("csi.storage.k8s.io/");
                format!("{key}={value}")
            });
            each.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&traits(json!({})), None), "size=1");
        assert_eq!(
            told(&traits(json!({"podInfoOnMount": true})), None),
            "ephemeral=false pod.name=p pod.namespace=ns pod.uid=u serviceAccount.name=sa size=1"
        );
        let requests = json!({"tokenRequests": [{"audience": "a"}]});
        assert_eq!(
            told(&traits(requests), Some("T")),
            "serviceAccount.tokens=T size=1"
        );
        let hidden =
            json!({"tokenRequests": [{"audience": "a"}], "serviceAccountTokenInSecrets": true});
        assert_eq!(told(&traits(hidden), Some("T")), "size=1");
        let expires = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(
            tokens(&[("a".to_owned(), "secret".to_owned(), expires)]),
            r#"{"a":{"expirationTimestamp":"2026-01-01T00:00:00Z","token":"secret"}}"#
        );
    }
}
