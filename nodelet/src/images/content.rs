//! Blobs in containerd's content store: written once under their digest, verified by it, and
//! kept from its garbage collector by labels that say what refers to what.

use std::collections::HashMap;

use containerd_client::services::v1::{
    AbortRequest, Info, InfoRequest, ListContentRequest, ReadContentRequest, UpdateRequest,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use futures::future::BoxFuture;
use prost_types::FieldMask;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::manifest::{DOCUMENT_MAX, Descriptor, Manifest};
use crate::runtime::containerd::client::{Client, SNAPSHOTTER};
use crate::runtime::{Error, ImageError, Result};

/// Bytes in one message to containerd.
const CHUNK: usize = 512 << 10;

/// Labels of a blob.
pub type Labels = HashMap<String, String>;

/// Gives a blob's bytes from an offset on.
pub type Opener<'a> =
    Box<dyn FnOnce(u64) -> BoxFuture<'a, Result<Box<dyn AsyncRead + Send + Unpin>>> + Send + 'a>;

/// The content store of one containerd namespace.
#[derive(Clone)]
pub struct Content {
    client: Client,
}

// === impl Content ===

impl Content {
    /// The store that this client sees; what it writes is held by the client's lease.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// A blob's size and labels, if the store has it.
    pub async fn info(&self, digest: &str) -> Result<Option<Info>> {
        let request = InfoRequest {
            digest: digest.to_owned(),
        };
        let what = format!("looking for blob {digest}");
        let reply = self
            .client
            .call_find(&what, self.client.content().info(request))
            .await?;
        Ok(reply.and_then(|reply| reply.info))
    }

    /// A whole document: an index, a manifest, a config.
    pub async fn read_document(&self, digest: &str) -> Result<Vec<u8>> {
        let what = format!("reading blob {digest}");
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            offset: 0,
            size: 0,
        };
        let mut stream = self
            .client
            .call(&what, self.client.content().read(request))
            .await?;
        let mut bytes = Vec::new();
        while let Some(part) = stream
            .message()
            .await
            .map_err(|s| self.client.error(&what, &s))?
        {
            bytes.extend_from_slice(&part.data);
            if bytes.len() as u64 > DOCUMENT_MAX {
                let reason = format!("larger than {DOCUMENT_MAX} bytes");
                return Err(ImageError::Corrupt {
                    subject: digest.to_owned(),
                    reason,
                }
                .into());
            }
        }
        Ok(bytes)
    }

    /// Adds labels to a blob.
    pub async fn label(&self, digest: &str, labels: Labels) -> Result<()> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let info = Info {
            digest: digest.to_owned(),
            labels,
            ..Info::default()
        };
        let update_mask = Some(FieldMask { paths });
        let request = UpdateRequest {
            info: Some(info),
            update_mask,
        };
        let what = format!("labelling blob {digest}");
        self.client
            .call(&what, self.client.content().update(request))
            .await
            .map(drop)
    }

    /// Stores bytes that are in memory.
    pub async fn write_bytes(&self, digest: &str, bytes: Vec<u8>, labels: Labels) -> Result<()> {
        let size = bytes.len() as u64;
        let open: Opener = Box::new(move |offset| {
            Box::pin(async move {
                let rest = bytes.get(offset as usize..).unwrap_or_default().to_vec();
                Ok(Box::new(std::io::Cursor::new(rest)) as Box<dyn AsyncRead + Send + Unpin>)
            })
        });
        self.write(digest, size, labels, open, &|_| {}).await
    }

    /// Stores a blob, continuing where an earlier attempt broke off; `progress` hears how many
    /// bytes are there. containerd verifies size and digest. A blob that is there already is only labelled.
    pub async fn write(
        &self,
        digest: &str,
        size: u64,
        labels: Labels,
        open: Opener<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let mut write = Write::begin(&self.client, digest, size).await?;
        let Some(offset) = write.offset else {
            return if labels.is_empty() {
                Ok(())
            } else {
                self.label(digest, labels).await
            };
        };
        if offset < size {
            let source = open(offset).await?;
            write.copy(source, offset, progress).await?;
        }
        write.commit(labels).await
    }

    /// Size of all blobs.
    pub async fn total_bytes(&self) -> Result<u64> {
        let what = "listing blobs";
        let request = ListContentRequest {
            filters: Vec::new(),
        };
        let mut stream = self
            .client
            .call(what, self.client.content().list(request))
            .await?;
        let mut total = 0;
        while let Some(part) = stream
            .message()
            .await
            .map_err(|s| self.client.error(what, &s))?
        {
            total += part
                .info
                .iter()
                .map(|info| info.size.max(0) as u64)
                .sum::<u64>();
        }
        Ok(total)
    }

    /// Forgets what an interrupted write left.
    pub async fn abort(&self, digest: &str) -> Result<()> {
        let request = AbortRequest {
            r#ref: ingest(digest),
        };
        let what = format!("dropping the unfinished blob {digest}");
        self.client
            .call_gone_ok(&what, self.client.content().abort(request))
            .await
    }
}

/// Name of a blob's write in progress.
fn ingest(digest: &str) -> String {
    format!("blob-{digest}")
}

/// One write in progress; containerd lets one writer at a time have each.
struct Write {
    client: Client,
    what: String,
    digest: String,
    size: u64,
    requests: mpsc::Sender<WriteContentRequest>,
    replies: Option<Streaming<WriteContentResponse>>,
    /// How much is there from an earlier attempt; `None` when the whole blob is.
    offset: Option<u64>,
}

impl Write {
    async fn begin(client: &Client, digest: &str, size: u64) -> Result<Self> {
        let what = format!("storing blob {digest}");
        let (requests, receiver) = mpsc::channel(1);
        let mut write = Self {
            client: client.clone(),
            what,
            digest: digest.to_owned(),
            size,
            requests,
            replies: None,
            offset: None,
        };
        write
            .send(write.request(WriteAction::Stat, 0, Vec::new()))
            .await?;
        match client.content().write(ReceiverStream::new(receiver)).await {
            Ok(response) => write.replies = Some(response.into_inner()),
            Err(status) if status.code() == Code::AlreadyExists => return Ok(write),
            Err(status) => return Err(write.error(&status)),
        }
        write.offset = match write.reply().await {
            Ok(reply) => Some(reply.offset.max(0) as u64),
            Err(status) if status.code() == Code::AlreadyExists => None,
            Err(status) => return Err(write.error(&status)),
        };
        Ok(write)
    }

    async fn copy(
        &mut self,
        mut source: Box<dyn AsyncRead + Send + Unpin>,
        mut offset: u64,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        while offset < self.size {
            let mut data = Vec::with_capacity(CHUNK);
            // Full messages, however small the pieces that the source gives.
            while data.len() < CHUNK {
                let limit = (CHUNK - data.len()) as u64;
                let read = (&mut source).take(limit).read_buf(&mut data).await;
                if read.map_err(|error| self.interrupted(&error.to_string()))? == 0 {
                    break;
                }
            }
            if data.is_empty() {
                let size = self.size;
                return Err(self.interrupted(&format!("it ends after {offset} of {size} bytes")));
            }
            offset += data.len() as u64;
            if offset > self.size {
                let size = self.size;
                return Err(self.broken(&format!("it is longer than its {size} bytes")));
            }
            let at = offset - data.len() as u64;
            self.send(self.request(WriteAction::Write, at, data))
                .await?;
            self.reply().await.map_err(|status| self.error(&status))?;
            progress(offset);
        }
        Ok(())
    }

    async fn commit(mut self, labels: Labels) -> Result<()> {
        let mut request = self.request(WriteAction::Commit, self.size, Vec::new());
        request.labels = labels;
        self.send(request).await?;
        match self.reply().await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            // The bytes are wrong: the next attempt must not continue behind them.
            Err(status) if status.code() == Code::FailedPrecondition => {
                let broken = self.broken(status.message());
                Content::new(self.client.clone())
                    .abort(&self.digest)
                    .await?;
                Err(broken)
            }
            Err(status) => Err(self.error(&status)),
        }
    }

    fn request(&self, action: WriteAction, offset: u64, data: Vec<u8>) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            r#ref: ingest(&self.digest),
            total: self.size as i64,
            expected: self.digest.clone(),
            offset: offset as i64,
            data,
            labels: Labels::new(),
        }
    }

    async fn send(&self, request: WriteContentRequest) -> Result<()> {
        self.requests
            .send(request)
            .await
            .map_err(|_| Error::Failed {
                what: self.what.clone(),
                reason: "containerd ended the transfer".into(),
            })
    }

    async fn reply(&mut self) -> std::result::Result<WriteContentResponse, Status> {
        let ended = || Status::unavailable("containerd ended the transfer");
        let replies = self.replies.as_mut().ok_or_else(ended)?;
        replies.message().await?.ok_or_else(ended)
    }

    fn error(&self, status: &Status) -> Error {
        self.client.error(&self.what, status)
    }

    /// The source broke off; what is stored so far is good.
    fn interrupted(&self, reason: &str) -> Error {
        let (reference, reason) = (format!("blob {}", self.digest), reason.to_owned());
        ImageError::Unavailable { reference, reason }.into()
    }

    fn broken(&self, reason: &str) -> Error {
        ImageError::Corrupt {
            subject: format!("blob {}", self.digest),
            reason: reason.to_owned(),
        }
        .into()
    }
}

/// The labels by which a manifest keeps its config and layers.
pub fn manifest_labels(manifest: &Manifest) -> Labels {
    let mut labels = Labels::new();
    labels.insert(
        "containerd.io/gc.ref.content.config".into(),
        manifest.config.digest.clone(),
    );
    for (n, layer) in manifest.layers.iter().enumerate() {
        labels.insert(
            format!("containerd.io/gc.ref.content.l.{n}"),
            layer.digest.clone(),
        );
    }
    labels
}

/// The label by which an index keeps the one manifest that we have of it.
pub fn index_labels(manifest: &Descriptor) -> Labels {
    Labels::from([(
        "containerd.io/gc.ref.content.m.0".into(),
        manifest.digest.clone(),
    )])
}

/// The label by which a config keeps the unpacked layers.
pub fn snapshot_labels(chain_id: &str) -> Labels {
    Labels::from([(
        format!("containerd.io/gc.ref.snapshot.{SNAPSHOTTER}"),
        chain_id.to_owned(),
    )])
}
