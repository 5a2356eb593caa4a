//! Pulling an image: its documents, its blobs in parallel and resumed where they broke off, and
//! the unpacking of each layer as soon as it is there.
//!
//! A pull is a task of its own: those who want the same image with the same credentials wait for
//! the same one, and it goes on when they lose interest.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;

use super::ContainerdImages;
use super::content::{Content, Labels, Opener, index_labels, manifest_labels};
use super::manifest::{Config, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST, digest_of};
use super::reference::Reference;
use super::registry::{Endpoint, RegistryConfig, TagOrDigest};
use super::unpack::{self, Stored};
use crate::runtime::containerd::lease::Lease;
use crate::runtime::{
    Credential, Error, Image, ImageError, Progress, ProgressEvent, PullRequest, Result,
};

/// Blobs fetched at the same time, for all pulls of the node.
const BLOBS_AT_ONCE: usize = 6;
/// Attempts for one blob, each continuing where the last broke off.
const ATTEMPTS: u32 = 4;
/// Pause after the first broken attempt; doubled for each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Steps of a pull that a slow listener may miss.
const PROGRESS_BACKLOG: usize = 1024;

type Outcome = Option<Result<Image>>;
type Key = (String, Vec<Credential>);

/// The pulls that are under way.
pub struct Pulls {
    config: RegistryConfig,
    blobs: Semaphore,
    running: Mutex<HashMap<Key, Running>>,
    tasks: Mutex<JoinSet<()>>,
}

struct Running {
    outcome: watch::Receiver<Outcome>,
    progress: broadcast::Sender<ProgressEvent>,
}

/// Passes progress on to everyone who waits.
struct Broadcast(broadcast::Sender<ProgressEvent>);

impl Progress for Broadcast {
    fn update(&self, event: ProgressEvent) {
        // That nobody listens is no error.
        let _ = self.0.send(event);
    }
}

// === impl Pulls ===

impl Pulls {
    /// Nothing is under way.
    pub fn new(config: RegistryConfig) -> Self {
        Self {
            config,
            blobs: Semaphore::new(BLOBS_AT_ONCE),
            running: Mutex::default(),
            tasks: Mutex::default(),
        }
    }
}

/// Pulls, or waits for the pull that is under way.
pub(super) async fn pull(
    images: &ContainerdImages,
    request: &PullRequest,
    progress: &dyn Progress,
) -> Result<Image> {
    let reference: Reference = request.reference.parse()?;
    let key = (reference.to_string(), request.credentials.clone());
    let (mut outcome, mut steps) = join(images, key, reference);
    loop {
        tokio::select! {
            // Steps first: whoever hears of the end has heard of all steps.
            biased;
            step = steps.recv() => match step {
                Ok(step) => progress.update(step),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break,
            },
            changed = outcome.changed() => if changed.is_err() { break },
        }
    }
    let ended = outcome.borrow_and_update().clone();
    ended.unwrap_or_else(|| {
        let reason = "the pull was given up".to_owned();
        Err(ImageError::Unavailable {
            reference: request.reference.clone(),
            reason,
        }
        .into())
    })
}

/// The pull that is under way, or a new one.
fn join(
    images: &ContainerdImages,
    key: Key,
    reference: Reference,
) -> (watch::Receiver<Outcome>, broadcast::Receiver<ProgressEvent>) {
    let mut running = images.pulls.running.lock();
    if let Some(pull) = running.get(&key) {
        return (pull.outcome.clone(), pull.progress.subscribe());
    }
    let (set_outcome, outcome) = watch::channel(None);
    let (progress, steps) = broadcast::channel(PROGRESS_BACKLOG);
    running.insert(
        key.clone(),
        Running {
            outcome: outcome.clone(),
            progress: progress.clone(),
        },
    );
    drop(running);

    let images = images.clone();
    let pulls = Arc::clone(&images.pulls);
    let mut tasks = pulls.tasks.lock();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(async move {
        let result = pull_from_any(&images, &reference, &key.1, &Broadcast(progress)).await;
        // First the outcome, then the entry: who finds no entry pulls anew.
        let _ = set_outcome.send(Some(result));
        images.pulls.running.lock().remove(&key);
    });
    (outcome, steps)
}

/// Tries the hosts in order, and at each the credentials in order.
async fn pull_from_any(
    images: &ContainerdImages,
    reference: &Reference,
    credentials: &[Credential],
    progress: &dyn Progress,
) -> Result<Image> {
    let mut logins: Vec<Option<&Credential>> = credentials.iter().map(Some).collect();
    if logins.is_empty() {
        logins.push(None);
    }
    let mut last = None;
    for host in images.pulls.config.hosts(reference) {
        for login in &logins {
            let endpoint = Endpoint::new(&images.pulls.config, &host, reference, *login)?;
            let pull = Pull {
                images,
                endpoint: &endpoint,
                reference,
                progress,
            };
            match pull.run().boxed().await {
                Ok(image) => return Ok(image),
                // Another credential, or another host, may have it.
                Err(error @ Error::Image(ImageError::Unauthorized { .. })) => last = Some(error),
                Err(error @ Error::Image(_)) => {
                    last = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Err(last.unwrap_or_else(|| Error::ImageNotPresent(reference.to_string())))
}

/// One pull from one endpoint.
struct Pull<'a> {
    images: &'a ContainerdImages,
    endpoint: &'a Endpoint,
    reference: &'a Reference,
    progress: &'a dyn Progress,
}

/// The documents that lead to an image.
struct Documents {
    /// What the tag leads to: the index if there is one.
    target: Descriptor,
    index: Option<Vec<u8>>,
    entry: Descriptor,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
}

// === impl Pull ===

impl Pull<'_> {
    async fn run(&self) -> Result<Image> {
        let documents = self.documents().await?;
        self.progress.update(ProgressEvent::Resolved {
            digest: documents.target.digest.clone(),
            layers: documents.manifest.layers.len(),
            total_bytes: documents.manifest.total_size(),
        });
        let lease = Lease::take(&self.images.client).await?;
        let stored = self.store(&lease, &documents).await;
        lease.release().await;
        stored
    }

    async fn documents(&self) -> Result<Documents> {
        let wanted = match (&self.reference.digest, &self.reference.tag) {
            (Some(digest), _) => TagOrDigest::Digest(digest),
            (None, tag) => TagOrDigest::Tag(tag.as_deref().unwrap_or("latest")),
        };
        let (bytes, digest) = self.endpoint.document(&wanted).await?;
        match self.parse(&bytes)? {
            Document::Manifest(manifest) => {
                let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
                let target = descriptor(media_type, &digest, &bytes);
                let entry = target.clone();
                Ok(Documents {
                    target,
                    index: None,
                    entry,
                    manifest,
                    manifest_bytes: bytes,
                })
            }
            Document::Index(index) => {
                let platform = &self.images.platform;
                let selected = index
                    .select(platform)
                    .ok_or_else(|| ImageError::NoPlatform {
                        reference: self.reference.to_string(),
                        platform: platform.to_string(),
                        available: index.platforms(),
                    })?;
                let at = TagOrDigest::Digest(&selected.digest);
                let (manifest_bytes, entry_digest) = self.endpoint.document(&at).await?;
                let Document::Manifest(manifest) = self.parse(&manifest_bytes)? else {
                    return Err(self.corrupt("its index leads to another index").into());
                };
                let media_type = index.media_type.as_deref().unwrap_or(OCI_INDEX);
                let target = descriptor(media_type, &digest, &bytes);
                let media_type = manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST);
                let entry = descriptor(media_type, &entry_digest, &manifest_bytes);
                Ok(Documents {
                    target,
                    index: Some(bytes),
                    entry,
                    manifest,
                    manifest_bytes,
                })
            }
        }
    }

    async fn store(&self, lease: &Lease, documents: &Documents) -> Result<Image> {
        let content = Content::new(lease.client().clone());
        let Documents {
            target,
            index,
            entry,
            manifest,
            manifest_bytes,
        } = documents;
        let subject = self.reference.to_string();
        let stored = Stored::default();
        let unpacking = async {
            stored.wait(&manifest.config.digest).await;
            let config = self.config(&content, manifest).await?;
            let client = lease.client();
            unpack::unpack(client, &subject, manifest, &config, &stored, self.progress).await
        };
        tokio::try_join!(self.fetch_all(&content, manifest, &stored), unpacking)?;
        let labels = manifest_labels(manifest);
        content
            .write_bytes(&entry.digest, manifest_bytes.clone(), labels)
            .await?;
        if let Some(index) = index {
            content
                .write_bytes(&target.digest, index.clone(), index_labels(entry))
                .await?;
        }
        let by_digest = self.reference.at_digest(&target.digest);
        if self.reference.digest.is_none() {
            self.images.set_record(&subject, target).await?;
        }
        self.images.set_record(&by_digest, target).await?;
        let missing = || Error::ImageNotPresent(subject.clone());
        crate::runtime::Images::get(self.images, &self.reference.to_string())
            .await?
            .ok_or_else(missing)
    }

    /// The config, and all layers in their order, several at once; a layer that occurs twice is fetched
    /// once.
    async fn fetch_all(
        &self,
        content: &Content,
        manifest: &Manifest,
        stored: &Stored,
    ) -> Result<()> {
        let mut blobs: Vec<&Descriptor> = Vec::new();
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            if !blobs.iter().any(|other| other.digest == blob.digest) {
                blobs.push(blob);
            }
        }
        let fetches = blobs
            .into_iter()
            .map(|blob| self.fetch(content, blob, stored).boxed());
        let fetches: Vec<_> = fetches.collect();
        futures::stream::iter(fetches)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn config(&self, content: &Content, manifest: &Manifest) -> Result<Config> {
        let bytes = content.read_document(&manifest.config.digest).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.corrupt(&format!("its config: {error}")).into())
    }

    async fn fetch(&self, content: &Content, blob: &Descriptor, all: &Stored) -> Result<()> {
        let _permit = self.images.pulls.blobs.acquire().await;
        let heard = |done_bytes| {
            let (layer, total_bytes) = (blob.digest.clone(), blob.size);
            self.progress.update(ProgressEvent::Fetching {
                layer,
                done_bytes,
                total_bytes,
            });
        };
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            let open: Opener = Box::new(move |offset| {
                Box::pin(async move { Ok(self.endpoint.blob(&blob.digest, offset).await?) })
            });
            let stored = content
                .write(&blob.digest, blob.size, Labels::new(), open, &heard)
                .await;
            let retriable = matches!(
                &stored,
                Err(Error::Image(
                    ImageError::Unavailable { .. } | ImageError::Corrupt { .. }
                ))
            );
            if !retriable || attempt == ATTEMPTS {
                stored?;
                break;
            }
            if let Err(error) = stored {
                tracing::info!(%error, attempt, "fetching the rest of a blob again");
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.progress.update(ProgressEvent::Fetched {
            layer: blob.digest.clone(),
        });
        all.add(&blob.digest);
        Ok(())
    }

    fn parse(&self, bytes: &[u8]) -> Result<Document> {
        Document::parse(bytes).map_err(|reason| self.corrupt(&reason).into())
    }

    fn corrupt(&self, reason: &str) -> ImageError {
        ImageError::Corrupt {
            subject: self.reference.to_string(),
            reason: reason.to_owned(),
        }
    }
}

fn descriptor(media_type: &str, digest: &str, bytes: &[u8]) -> Descriptor {
    debug_assert_eq!(digest, digest_of(bytes), "the client has verified it");
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: bytes.len() as u64,
        ..Descriptor::default()
    }
}
