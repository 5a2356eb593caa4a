//! Docker's older form: `manifest.json` names the config and the layers of each image.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Archive, ArchiveImage, Extent, blob_path, compression};
use crate::images::manifest::{
    Descriptor, LAYERS_MAX, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD,
    OCI_MANIFEST, digest_of,
};
use crate::images::reference::Reference;
use crate::runtime::{ImageError, hex};

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

impl Archive {
    pub(super) fn docker_images(&self) -> Result<Vec<DockerImage>, ImageError> {
        match self.find(Path::new("manifest.json")) {
            None => Ok(Vec::new()),
            Some(extent) => serde_json::from_slice(&self.read(extent)?)
                .map_err(|error| self.corrupt(&format!("manifest.json: {error}"))),
        }
    }

    /// Writes the OCI manifest that Docker's form does not have.
    pub(super) fn convert(&self, image: &DockerImage) -> Result<ArchiveImage, ImageError> {
        let config_bytes = self.read(self.file(&image.config)?)?;
        let config = self.config(&config_bytes)?;
        if image.layers.len() > LAYERS_MAX {
            let n = image.layers.len();
            return Err(self.corrupt(&format!("{n} layers; at most {LAYERS_MAX} can be stacked")));
        }
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for path in &image.layers {
            let extent = self.file(path)?;
            descriptors.push(self.layer_descriptor(extent)?);
            layers.push(extent);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.into()),
            config: Descriptor {
                media_type: OCI_CONFIG.into(),
                digest: digest_of(&config_bytes),
                size: config_bytes.len() as u64,
                ..Descriptor::default()
            },
            layers: descriptors,
        };
        let manifest_bytes = serde_json::to_vec(&manifest).map_err(|error| self.corrupt(&error))?;
        let descriptor = Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: digest_of(&manifest_bytes),
            size: manifest_bytes.len() as u64,
            ..Descriptor::default()
        };
        let references = docker_names(image)?;
        Ok(ArchiveImage {
            references,
            descriptor,
            manifest_bytes,
            manifest,
            config_bytes,
            config,
            layers,
        })
    }

    fn layer_descriptor(&self, extent: Extent) -> Result<Descriptor, ImageError> {
        let mut file = self.open_at(extent).map_err(|error| self.corrupt(&error))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let mut magic = Vec::new();
        loop {
            let n = file
                .read(&mut buffer)
                .map_err(|error| self.corrupt(&error))?;
            if n == 0 {
                break;
            }
            if magic.is_empty() {
                magic.extend_from_slice(&buffer[..n.min(4)]);
            }
            hasher.update(&buffer[..n]);
        }
        let media_type = match compression(&magic) {
            Some("gzip") => OCI_LAYER_GZIP,
            Some("zstd") => OCI_LAYER_ZSTD,
            _ => OCI_LAYER,
        };
        Ok(Descriptor {
            media_type: media_type.into(),
            digest: format!("sha256:{}", hex(&hasher.finalize())),
            size: extent.size,
            ..Descriptor::default()
        })
    }

    /// An OCI layout by Docker has the tags in `manifest.json` as well, and more of them.
    pub(super) fn add_docker_names(
        &self,
        image: &mut ArchiveImage,
        docker: &[DockerImage],
    ) -> Result<(), ImageError> {
        let config = blob_path(&image.manifest.config.digest);
        for entry in docker.iter().filter(|entry| entry.config == config) {
            for name in docker_names(entry)? {
                if !image.references.contains(&name) {
                    image.references.push(name);
                }
            }
        }
        Ok(())
    }
}

fn docker_names(image: &DockerImage) -> Result<Vec<Reference>, ImageError> {
    image
        .repo_tags
        .iter()
        .flatten()
        .map(|tag| tag.parse())
        .collect()
}
