//! Images out of an archive.

use std::io::SeekFrom;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use super::archive::{Archive, ArchiveImage, Extent};
use super::content::{self, Content, Opener};
use super::{ContainerdImages, unpack};
use crate::runtime::containerd::lease::Lease;
use crate::runtime::{Error, Image, ImageError, Images, Progress, ProgressEvent, Result};

/// Name of images that their archive gives none.
const ANONYMOUS: &str = "localhost/unnamed";

impl ContainerdImages {
    /// Loads every image of an archive; the first that cannot be ends it.
    pub(super) async fn load_archive(
        &self,
        archive: &Path,
        progress: &dyn Progress,
    ) -> Result<Vec<Image>> {
        let path = archive.to_path_buf();
        let platform = self.platform.clone();
        let read = move || Archive::open(&path)?.images(&platform);
        let images = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| Error::Failed {
                what: format!("reading archive {}", archive.display()),
                reason: error.to_string(),
            })??;
        let lease = Lease::take(&self.client).await?;
        let mut loaded = Vec::new();
        let mut result = Ok(());
        for image in images {
            match self.load_image(&lease, archive, image, progress).await {
                Ok(image) => loaded.push(image),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        lease.release().await;
        result.map(|()| loaded)
    }

    /// Its layers and documents, in the content store and unpacked.
    async fn store(
        &self,
        lease: &Lease,
        archive: &Path,
        image: &ArchiveImage,
        progress: &dyn Progress,
    ) -> Result<()> {
        let content = Content::new(lease.client().clone());
        progress.update(ProgressEvent::Resolved {
            digest: image.descriptor.digest.clone(),
            layers: image.layers.len(),
            total_bytes: image.manifest.total_size(),
        });
        for (layer, extent) in image.manifest.layers.iter().zip(&image.layers) {
            let heard = |done_bytes| {
                let (layer, total_bytes) = (layer.digest.clone(), layer.size);
                progress.update(ProgressEvent::Fetching {
                    layer,
                    done_bytes,
                    total_bytes,
                });
            };
            let open = open_extent(archive, *extent);
            content
                .write(&layer.digest, extent.size, Default::default(), open, &heard)
                .await?;
            progress.update(ProgressEvent::Fetched {
                layer: layer.digest.clone(),
            });
        }
        let config = &image.manifest.config;
        content
            .write_bytes(
                &config.digest,
                image.config_bytes.clone(),
                Default::default(),
            )
            .await?;
        let labels = content::manifest_labels(&image.manifest);
        let bytes = image.manifest_bytes.clone();
        content
            .write_bytes(&image.descriptor.digest, bytes, labels)
            .await?;
        let subject = archive.display().to_string();
        unpack::unpack(
            lease.client(),
            &subject,
            &image.manifest,
            &image.config,
            &unpack::Stored::all(&image.manifest),
            progress,
        )
        .await
    }

    async fn load_image(
        &self,
        lease: &Lease,
        archive: &Path,
        image: ArchiveImage,
        progress: &dyn Progress,
    ) -> Result<Image> {
        self.store(lease, archive, &image, progress).await?;
        let mut names: Vec<String> = image.references.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            names.push(format!("{ANONYMOUS}@{}", image.descriptor.digest));
        }
        for name in &names {
            self.set_record(name, &image.descriptor).await?;
        }
        let id = image.manifest.config.digest.clone();
        let stored = self.get(&id).await?;
        let image = stored.ok_or_else(|| Error::ImageNotPresent(id.clone()))?;
        Ok(Image {
            references: names,
            ..image
        })
    }
}

/// Reads a part of an archive from an offset on.
fn open_extent(archive: &Path, extent: Extent) -> Opener<'_> {
    Box::new(move |offset| {
        Box::pin(async move {
            let corrupt = |error: std::io::Error| ImageError::Corrupt {
                subject: format!("archive {}", archive.display()),
                reason: error.to_string(),
            };
            let mut file = tokio::fs::File::open(archive).await.map_err(corrupt)?;
            let start = extent.offset.saturating_add(offset);
            file.seek(SeekFrom::Start(start)).await.map_err(corrupt)?;
            let rest = file.take(extent.size.saturating_sub(offset));
            Ok(Box::new(rest) as Box<dyn AsyncRead + Send + Unpin>)
        })
    })
}
