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
//! | `describe` | from a digest to an image |
//! | `load` | images out of an archive |
//! | `records` | image records in containerd |
//! | this one | what a node can do with images: get, list, remove, prune |
//!
//! An image record exists only when the image is whole and unpacked, so that what is listed can
//! run. Everything it needs hangs on it by the garbage collector's labels.

pub mod archive;
pub mod assemble;
pub mod collect;
pub mod content;
mod describe;
pub mod inflate;
mod load;
pub mod manifest;
pub mod pull;
mod records;
pub mod reference;
pub mod registry;
pub mod unpack;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use containerd_client::services::v1::GetImageRequest;
use parking_lot::Mutex;

use self::content::Content;
use self::manifest::Platform;
use self::pull::Pulls;
use self::reference::Reference;
use self::registry::RegistryConfig;
use crate::runtime::containerd::client::Client;
use crate::runtime::{Error, FsMount, Image, ImageUsage, Images, Progress, PullRequest, Result};

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
        self.load_archive(archive, progress).await
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
