//! OCI layouts: `index.json` leads to manifests, and these to blobs.

use super::{Archive, ArchiveImage, Extent, INDEX_DEPTH_MAX};
use crate::images::manifest::{Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST, Platform};
use crate::images::reference::Reference;
use crate::runtime::ImageError;

impl Archive {
    pub(super) fn oci_images(
        &self,
        index: Extent,
        platform: &Platform,
    ) -> Result<Vec<ArchiveImage>, ImageError> {
        let Document::Index(index) = self.document(&self.read(index)?, "index.json")? else {
            return Err(self.corrupt(&"its index.json is no index"));
        };
        let mut images = Vec::new();
        for descriptor in &index.manifests {
            let references = self.annotated_names(descriptor)?;
            if let Some(mut image) = self.resolve(descriptor, platform, 0)? {
                image.references = references;
                images.push(image);
            }
        }
        Ok(images)
    }

    /// Follows a descriptor to the manifest for this platform.
    fn resolve(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Option<ArchiveImage>, ImageError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(self.corrupt(&format!("indexes nested deeper than {INDEX_DEPTH_MAX}")));
        }
        if !descriptor.fits(platform) {
            return Ok(None);
        }
        let bytes = self.verified_blob(&descriptor.digest)?;
        match self.document(&bytes, &descriptor.digest)? {
            Document::Manifest(manifest) => {
                self.locate(descriptor.clone(), bytes, manifest).map(Some)
            }
            Document::Index(index) => match index.select(platform) {
                Some(inner) => self.resolve(inner, platform, depth + 1),
                None => Ok(None),
            },
        }
    }

    fn locate(
        &self,
        mut descriptor: Descriptor,
        manifest_bytes: Vec<u8>,
        manifest: Manifest,
    ) -> Result<ArchiveImage, ImageError> {
        let config_bytes = self.verified_blob(&manifest.config.digest)?;
        let config = self.config(&config_bytes)?;
        let layers = manifest
            .layers
            .iter()
            .map(|layer| self.blob(&layer.digest))
            .collect::<Result<_, _>>()?;
        if descriptor.media_type.is_empty() || descriptor.media_type == OCI_INDEX {
            descriptor.media_type = OCI_MANIFEST.into();
        }
        descriptor.annotations.clear();
        let references = Vec::new();
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

    /// containerd and Docker write the full name, others a name or a mere tag.
    fn annotated_names(&self, descriptor: &Descriptor) -> Result<Vec<Reference>, ImageError> {
        let annotations = &descriptor.annotations;
        let full = annotations.get("io.containerd.image.name");
        let short = annotations.get("org.opencontainers.image.ref.name");
        match (full, short) {
            (Some(full), _) => Ok(vec![full.parse()?]),
            (None, Some(name)) if name.contains(['/', ':']) => Ok(vec![name.parse()?]),
            _ => Ok(Vec::new()),
        }
    }
}
