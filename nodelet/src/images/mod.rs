//! The images of one node, in containerd's stores.
//!
//! | file | owns |
//! | --- | --- |
//! | [`reference`] | names as users write them |
//! | [`manifest`] | the documents of an image |
//! | [`archive`] | reading OCI and Docker archives |
//! | [`assemble`] | building an archive from a static binary |
//! | [`content`] | blobs in containerd's content store |
//! | [`registry`] | which registry to ask, and how |
//! | [`pull`] | fetching an image, once for all who want it |
//! | [`unpack`] | layers into snapshots |
//! | this one | image records: get, list, load, remove, prune |
//!
//! An image record exists only when the image is whole and unpacked, so that what is listed can
//! run. Everything it needs hangs on it by the garbage collector's labels.

pub mod archive;
pub mod assemble;
pub mod collect;
pub mod content;
pub mod inflate;
pub mod manifest;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod unpack;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_client::services::v1::snapshots::ListSnapshotsRequest;
use containerd_client::services::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image as Record,
    ListContainersRequest, ListImagesRequest, UpdateImageRequest,
};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};

use crate::runtime::containerd::client::{Client, SNAPSHOTTER};
use crate::runtime::containerd::lease::Lease;
use crate::runtime::{
    Error, FsMount, Image, ImageError, ImageUsage, Images, Progress, ProgressEvent, PullRequest,
    Result,
};
use archive::{Archive, ArchiveImage, Extent};
use content::{Content, Opener};
use manifest::{Config, Descriptor, Document, Manifest, Platform};
use pull::Pulls;
use reference::Reference;
use registry::RegistryConfig;

/// Label of a container's file system: the ID of its image.
pub const SNAPSHOT_IMAGE: &str = "peapod.dev/image";

/// Images whose config is remembered.
const CACHE_MAX: usize = 1024;

/// The images in one containerd namespace.
#[derive(Clone)]
pub struct ContainerdImages {
    client: Client,
    platform: Platform,
    /// What the manifest of a digest says; it cannot change. `references` stays empty.
    cache: Arc<Mutex<BTreeMap<String, Resolved>>>,
    /// What was found last, by ID and by digest: a start asks for its image more than once. It may have
    /// been removed since, which shows when its file system is to be used.
    recent: Arc<Mutex<BTreeMap<String, Image>>>,
    pulls: Arc<Pulls>,
}

/// An image and what running it needs besides its config.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The image.
    pub image: Image,
    /// The snapshot of all its layers.
    pub chain_id: String,
}

// === impl ContainerdImages ===

impl ContainerdImages {
    /// The images that this client sees.
    pub fn new(client: Client, registries: RegistryConfig) -> Self {
        let pulls = Arc::new(Pulls::new(registries));
        Self {
            client,
            platform: Platform::host(),
            cache: Arc::default(),
            recent: Arc::default(),
            pulls,
        }
    }

    /// The image under a reference or ID, ready to run.
    pub async fn resolve(&self, reference: &str) -> Result<Resolved> {
        let missing = || Error::ImageNotPresent(reference.to_owned());
        let image = match self.recent(reference) {
            Some(image) => image,
            None => self.get(reference).await?.ok_or_else(missing)?,
        };
        let known = self.read_image(&image.digest).await?.ok_or_else(missing)?;
        Ok(Resolved { image, ..known })
    }

    /// Looks for images anew.
    pub fn forget_recent(&self) {
        self.recent.lock().clear();
    }

    fn remember(&self, image: &Image) {
        let mut recent = self.recent.lock();
        if recent.len() >= CACHE_MAX {
            recent.clear();
        }
        let by_digest = image.references.iter().filter(|name| name.contains('@'));
        for key in by_digest.chain([&image.id]) {
            recent.insert(key.clone(), image.clone());
        }
    }

    /// The IDs of the images that containers are made of: by containerd's containers, and by the file
    /// systems of those that it does not know of.
    async fn used(&self) -> Result<BTreeSet<String>> {
        let request = ListContainersRequest {
            filters: Vec::new(),
        };
        let mut service = self.client.containers();
        let listed = self
            .client
            .call("listing containers", service.list(request))
            .await?;
        let mut used: BTreeSet<String> = listed.containers.into_iter().map(|c| c.image).collect();
        let what = "listing snapshots";
        let request = ListSnapshotsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            filters: Vec::new(),
        };
        let mut service = self.client.snapshots();
        let mut stream = self.client.call(what, service.list(request)).await?;
        while let Some(part) = stream
            .message()
            .await
            .map_err(|s| self.client.error(what, &s))?
        {
            let labels = part.info.into_iter().map(|info| info.labels);
            used.extend(labels.filter_map(|mut labels| labels.remove(SNAPSHOT_IMAGE)));
        }
        Ok(used)
    }

    async fn records(&self) -> Result<Vec<Record>> {
        let request = ListImagesRequest {
            filters: Vec::new(),
        };
        Ok(self
            .client
            .call("listing images", self.client.images().list(request))
            .await?
            .images)
    }

    /// The image that a record leads to; `None` when a blob is missing.
    async fn image_of(&self, record: &Record) -> Result<Option<Image>> {
        match &record.target {
            Some(target) => Ok(self
                .read_image(&target.digest)
                .await?
                .map(|known| known.image)),
            None => Ok(None),
        }
    }

    /// The image of a manifest's or index's digest, but for its names.
    async fn read_image(&self, digest: &str) -> Result<Option<Resolved>> {
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

    /// Makes the record, or points an existing one to the new image.
    async fn set_record(&self, name: &str, target: &Descriptor) -> Result<()> {
        let record = Record {
            name: name.to_owned(),
            target: Some(unpack::containerd_descriptor(target)),
            ..Record::default()
        };
        let what = format!("recording image {name}");
        let request = CreateImageRequest {
            image: Some(record.clone()),
            source_date_epoch: None,
        };
        let mut images = self.client.images();
        if self
            .client
            .call_create(&what, images.create(request))
            .await?
            .is_none()
        {
            let request = UpdateImageRequest {
                image: Some(record),
                ..UpdateImageRequest::default()
            };
            self.client.call(&what, images.update(request)).await?;
        }
        Ok(())
    }

    async fn delete_record(&self, name: &str, sync: bool) -> Result<()> {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync,
            ..DeleteImageRequest::default()
        };
        let what = format!("removing image {name}");
        self.client
            .call_gone_ok(&what, self.client.images().delete(request))
            .await
    }

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

/// Name of images that their archive gives none.
const ANONYMOUS: &str = "localhost/unnamed";

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

/// Whether this is an image's ID rather than a reference.
fn is_id(text: &str) -> bool {
    reference::is_digest(text) || reference::is_digest(&format!("sha256:{text}"))
}

#[async_trait]
impl Images for ContainerdImages {
    async fn get(&self, reference: &str) -> Result<Option<Image>> {
        if is_id(reference) {
            let id = reference.trim_start_matches("sha256:");
            let images = self.list().await?;
            return Ok(images.into_iter().find(|image| image.id.ends_with(id)));
        }
        let name = reference.parse::<Reference>()?;
        // By digest, any tag of the name will do.
        let name = match &name.digest {
            Some(digest) => name.at_digest(digest),
            None => name.to_string(),
        };
        let request = GetImageRequest { name: name.clone() };
        let what = format!("looking for image {name}");
        let found = self
            .client
            .call_find(&what, self.client.images().get(request))
            .await?;
        let Some(record) = found.and_then(|reply| reply.image) else {
            return Ok(None);
        };
        let Some(mut image) = self.image_of(&record).await? else {
            return Ok(None);
        };
        image.references = vec![name];
        if let (Some(digest), Ok(name)) = (
            record.target.map(|t| t.digest),
            record.name.parse::<Reference>(),
        ) && name.digest.is_none()
        {
            image.references.push(name.at_digest(&digest));
        }
        self.remember(&image);
        Ok(Some(image))
    }

    fn recent(&self, reference: &str) -> Option<Image> {
        self.recent.lock().get(reference).cloned()
    }

    async fn list(&self) -> Result<Vec<Image>> {
        let mut by_id: BTreeMap<String, (Image, BTreeSet<String>, BTreeSet<String>)> =
            BTreeMap::new();
        for record in self.records().await? {
            let Some(image) = self.image_of(&record).await? else {
                continue;
            };
            let entry = by_id
                .entry(image.id.clone())
                .or_insert_with(|| (image.clone(), BTreeSet::new(), BTreeSet::new()));
            let Ok(name) = record.name.parse::<Reference>() else {
                continue;
            };
            if name.tag.is_some() {
                entry.1.insert(record.name.clone());
            }
            entry.2.insert(name.at_digest(&image.digest));
        }
        let whole = |(mut image, tags, digests): (Image, BTreeSet<String>, BTreeSet<String>)| {
            image.references = tags.into_iter().chain(digests).collect();
            image
        };
        Ok(by_id.into_values().map(whole).collect())
    }

    async fn pull(&self, request: &PullRequest, progress: &dyn Progress) -> Result<Image> {
        pull::pull(self, request, progress).await
    }

    async fn load(&self, archive: &Path, progress: &dyn Progress) -> Result<Vec<Image>> {
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

    async fn remove(&self, reference: &str) -> Result<()> {
        self.forget_recent();
        if !is_id(reference) {
            let name = reference.parse::<Reference>()?.to_string();
            return self.delete_record(&name, true).await;
        }
        let id = reference.trim_start_matches("sha256:");
        for record in self.records().await? {
            let image = self.image_of(&record).await?;
            if image.is_some_and(|image| image.id.ends_with(id)) {
                self.delete_record(&record.name, true).await?;
            }
        }
        Ok(())
    }

    async fn prune(&self, keep: &[String]) -> Result<Vec<Image>> {
        let used = self.used().await?;
        let keep: BTreeSet<String> = keep
            .iter()
            .filter_map(|k| k.parse::<Reference>().ok())
            .map(|k| k.to_string())
            .collect();
        let mut removed = Vec::new();
        for image in self.list().await? {
            let wanted =
                used.contains(&image.id) || image.references.iter().any(|r| keep.contains(r));
            if !wanted {
                self.remove(&image.id).await?;
                removed.push(image);
            }
        }
        Ok(removed)
    }

    async fn open_view(&self, id: &str, pod_uid: &str, volume: &str) -> Result<Vec<FsMount>> {
        let image = self.resolve(id).await?;
        view::open(&self.client, &image.chain_id, pod_uid, volume).await
    }

    async fn close_views(&self, pod_uid: &str) -> Result<()> {
        view::close(&self.client, pod_uid).await
    }

    async fn usage(&self) -> Result<ImageUsage> {
        let bytes = Content::new(self.client.clone()).total_bytes().await?;
        let unpacked = unpack::usage(&self.client).await?;
        Ok(ImageUsage {
            bytes: bytes + unpacked.bytes,
            inodes: unpacked.inodes,
        })
    }
}
