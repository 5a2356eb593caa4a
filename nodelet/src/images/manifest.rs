//! The documents of an image: index, manifest, config; OCI's and Docker's forms, which differ in
//! media types only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runtime::{ImageConfig, hex};

/// Largest index, manifest or config that we read, in bytes; registries have the same limit.
pub const DOCUMENT_MAX: u64 = 4 << 20;
/// Most layers; the kernel's overlay takes no more anyway.
pub const LAYERS_MAX: usize = 127;

/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an uncompressed OCI layer.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Media type of a layer compressed by gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of a layer compressed by zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Media type of Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of Docker's manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Names a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// `sha256:...`
    pub digest: String,
    /// In bytes.
    pub size: u64,
    /// For which machines (in an index).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64` ...
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// `v7`, `v8` ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// An image of one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2
    pub schema_version: u32,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// Images of several platforms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2
    pub schema_version: u32,
    /// Media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
}

/// The config of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// For which machines.
    #[serde(default)]
    pub architecture: String,
    /// For which system.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default)]
    pub config: Option<RunConfig>,
    /// What it consists of.
    pub rootfs: Rootfs,
}

/// The layers of an image, uncompressed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// `layers`
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, the lowest first.
    pub diff_ids: Vec<String>,
}

/// How to run an image. Docker writes `null` where it means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Entrypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Command, or the entrypoint's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Signal that stops it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Directories that want to be volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// An index or a manifest; what a tag leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several platforms.
    Index(Index),
    /// One.
    Manifest(Manifest),
}

// === impl Document ===

impl Document {
    /// Parses by shape: media types are missing too often to rely on.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Shape {
            #[serde(default)]
            manifests: Option<serde::de::IgnoredAny>,
            #[serde(default)]
            layers: Option<serde::de::IgnoredAny>,
        }
        let parse_error = |error: serde_json::Error| error.to_string();
        let shape: Shape = serde_json::from_slice(bytes).map_err(parse_error)?;
        match (shape.manifests, shape.layers) {
            (Some(_), None) => serde_json::from_slice(bytes)
                .map(Self::Index)
                .map_err(parse_error),
            (None, Some(_)) => {
                let manifest: Manifest = serde_json::from_slice(bytes).map_err(parse_error)?;
                manifest.check()?;
                Ok(Self::Manifest(manifest))
            }
            _ => Err("it is neither an index nor a manifest".into()),
        }
    }
}

// === impl Manifest ===

impl Manifest {
    /// What cannot be run is refused before anything is fetched.
    fn check(&self) -> Result<(), String> {
        if self.layers.len() > LAYERS_MAX {
            let n = self.layers.len();
            return Err(format!(
                "it has {n} layers; at most {LAYERS_MAX} can be stacked"
            ));
        }
        if self.config.size > DOCUMENT_MAX {
            return Err(format!("its config is larger than {DOCUMENT_MAX} bytes"));
        }
        let mut blobs = self.layers.iter().chain([&self.config]);
        match blobs.find(|blob| !super::reference::is_digest(&blob.digest)) {
            Some(blob) => Err(format!("{:?} is not a sha256 digest", blob.digest)),
            None => Ok(()),
        }
    }

    /// Bytes of config and layers as they travel.
    pub fn total_size(&self) -> u64 {
        self.layers
            .iter()
            .chain([&self.config])
            .map(|blob| blob.size)
            .sum()
    }
}

// === impl Descriptor ===

impl Descriptor {
    /// Whether what it names may run on this platform.
    pub fn fits(&self, platform: &Platform) -> bool {
        // An index of one platform need not say which.
        self.platform.as_ref().is_none_or(|has| {
            has.os == platform.os
                && has.architecture == platform.architecture
                && (has.variant.is_none()
                    || platform.variant.is_none()
                    || has.variant == platform.variant)
        })
    }
}

// === impl Index ===

impl Index {
    /// The manifest for this platform. Without a variant on either side, any does.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let fitting = self
            .manifests
            .iter()
            .filter(|descriptor| descriptor.fits(platform));
        fitting.max_by_key(|descriptor| descriptor.platform.is_some())
    }

    /// The platforms, for messages.
    pub fn platforms(&self) -> String {
        let name = |platform: &Platform| format!("{}/{}", platform.os, platform.architecture);
        let names: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|d| d.platform.as_ref())
            .map(name)
            .collect();
        names.join(", ")
    }
}

// === impl Platform ===

impl Platform {
    /// This machine, in Go's names.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

// === impl Config ===

impl Config {
    /// What running needs.
    pub fn image_config(&self) -> ImageConfig {
        let run = self.config.clone().unwrap_or_default();
        let user = run.user.unwrap_or_default();
        let uid = match user.split(':').next() {
            None | Some("") => Some(0),
            Some(name) => name.parse().ok(),
        };
        ImageConfig {
            user,
            uid,
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            env: run.env.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
            labels: run.labels.unwrap_or_default(),
        }
    }

    /// The names of the snapshots after each layer: the first layer's digest, then the digest of
    /// "parent layer" ([chain IDs](https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid)).
    pub fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::with_capacity(self.rootfs.diff_ids.len());
        for diff_id in &self.rootfs.diff_ids {
            let id = match chain.last() {
                None => diff_id.clone(),
                Some(parent) => digest_of(format!("{parent} {diff_id}").as_bytes()),
            };
            chain.push(id);
        }
        chain
    }
}

/// The digest of these bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    use sha2::Digest;
    format!("sha256:{}", hex(&sha2::Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u8) -> String {
        format!("sha256:{}", hex(&[n; 32]))
    }

    fn entry(os: &str, architecture: &str, variant: Option<&str>, n: u8) -> Descriptor {
        let platform = Platform {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.map(str::to_owned),
        };
        Descriptor {
            digest: digest(n),
            platform: Some(platform),
            ..Descriptor::default()
        }
    }

    proptest! {
        #[test]
        fn a_damaged_document_is_an_error_or_a_document_never_a_panic(
            is_index in any::<bool>(),
            at in any::<prop::sample::Index>(),
            with in prop::collection::vec(prop::sample::select(&b"{}[]\",:0-9enul\\\xff"[..]), 0..12),
            end in any::<prop::sample::Index>(),
        ) {
            let blob = format!(r#"{{"mediaType": "m", "size": 9, "digest": "{}"}}"#, digest(1));
            let mut bytes = match is_index {
                true => format!(r#"{{"schemaVersion": 2, "manifests": [{blob}]}}"#),
                false => format!(r#"{{"schemaVersion": 2, "config": {blob}, "layers": [{blob}]}}"#),
            }
            .into_bytes();
            prop_assert!(Document::parse(&bytes).is_ok());
            let end = end.index(bytes.len());
            prop_assert!(Document::parse(&bytes[..end]).is_err());
            let at = at.index(bytes.len());
            for (byte, new) in bytes[at..].iter_mut().zip(with) {
                *byte = new;
            }
            let _ = Document::parse(&bytes);
            let _ = Document::parse(&bytes[..end]);
        }
    }

    #[test]
    fn the_platform_decides() {
        let manifests = vec![
            entry("windows", "amd64", None, 1),
            entry("linux", "arm64", Some("v8"), 2),
            entry("linux", "amd64", None, 3),
            entry("unknown", "unknown", None, 4),
        ];
        let index = Index {
            schema_version: 2,
            media_type: None,
            manifests,
        };
        let on = |architecture: &str, variant: Option<&str>| {
            let platform = Platform {
                architecture: architecture.into(),
                os: "linux".into(),
                variant: variant.map(str::to_owned),
            };
            index.select(&platform).map(|d| d.digest.clone())
        };
        assert_eq!(on("amd64", None), Some(digest(3)));
        assert_eq!(on("arm64", None), Some(digest(2)));
        assert_eq!(on("arm64", Some("v8")), Some(digest(2)));
        assert_eq!(on("riscv64", None), None);
    }

    #[test]
    fn documents_are_told_apart_by_shape_and_bad_ones_refused() {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":2}},"layers":[]}}"#,
            digest(1)
        );
        assert!(matches!(
            Document::parse(manifest.as_bytes()),
            Ok(Document::Manifest(_))
        ));
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert!(matches!(
            Document::parse(index.as_bytes()),
            Ok(Document::Index(_))
        ));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"schemaVersion":2,"config":{"digest":"x","size":1},"layers":[]}"#,
            r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
            &manifest.replace("\"size\":2", "\"size\":99999999"),
        ] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn docker_writes_null_for_nothing() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":"nobody:nogroup",
            "Entrypoint":null,"Cmd":["sh"],"Env":null,"Volumes":{"/data":{}},"StopSignal":""},
            "rootfs":{"type":"layers","diff_ids":["sha256:aa"]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let image = config.image_config();
        assert_eq!(
            (image.uid, image.cmd, image.stop_signal),
            (None, vec!["sh".into()], None)
        );
        assert_eq!(image.volumes, ["/data"]);
        let root: Config =
            serde_json::from_str(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        assert_eq!(root.image_config().uid, Some(0));
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let rootfs = Rootfs {
            kind: "layers".into(),
            diff_ids: vec![digest(1), digest(2)],
        };
        let chain = Config {
            rootfs,
            ..Config::default()
        }
        .chain_ids();
        assert_eq!(chain[0], digest(1));
        assert_eq!(
            chain[1],
            digest_of(format!("{} {}", digest(1), digest(2)).as_bytes())
        );
    }
}
