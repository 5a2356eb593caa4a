//! From a digest to an image, by the documents in the content store.

use containerd_client::services::v1::Image as Record;

use super::content::Content;
use super::manifest::{Config, Document, Manifest};
use super::{CACHE_MAX, ContainerdImages, Resolved};
use crate::runtime::{Image, ImageError, Result};

impl ContainerdImages {
    /// The image that a record leads to; `None` when a blob is missing.
    pub(super) async fn image_of(&self, record: &Record) -> Result<Option<Image>> {
        match &record.target {
            Some(target) => Ok(self
                .read_image(&target.digest)
                .await?
                .map(|known| known.image)),
            None => Ok(None),
        }
    }

    /// The image of a manifest's or index's digest, but for its names.
    pub(super) async fn read_image(&self, digest: &str) -> Result<Option<Resolved>> {
        if let Some(known) = self.cache.lock().get(digest) {
            return Ok(Some(known.clone()));
        }
        let Some((manifest, config)) = self.documents(digest).await? else {
            return Ok(None);
        };
        let image = Image {
            id: manifest.config.digest.clone(),
            digest: digest.to_owned(),
            references: Vec::new(),
            size_bytes: manifest.total_size(),
            config: config.image_config(),
        };
        let chain_id = config.chain_ids().pop().unwrap_or_default();
        let resolved = Resolved { image, chain_id };
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_MAX {
            cache.pop_first();
        }
        cache.insert(digest.to_owned(), resolved.clone());
        Ok(Some(resolved))
    }

    /// Manifest and config of a digest, through an index if there is one.
    async fn documents(&self, digest: &str) -> Result<Option<(Manifest, Config)>> {
        let content = Content::new(self.client.clone());
        let corrupt = |reason: String| ImageError::Corrupt {
            subject: digest.to_owned(),
            reason,
        };
        let mut digest_now = digest.to_owned();
        for _ in 0..2 {
            if content.info(&digest_now).await?.is_none() {
                return Ok(None);
            }
            let bytes = content.read_document(&digest_now).await?;
            match Document::parse(&bytes).map_err(corrupt)? {
                Document::Manifest(manifest) => {
                    let bytes = content.read_document(&manifest.config.digest).await?;
                    let config = serde_json::from_slice(&bytes)
                        .map_err(|error| corrupt(format!("its config: {error}")))?;
                    return Ok(Some((manifest, config)));
                }
                Document::Index(index) => match index.select(&self.platform) {
                    Some(inner) => digest_now = inner.digest.clone(),
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }
}
