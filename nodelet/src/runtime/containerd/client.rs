//! The connection to containerd: one gRPC channel, our namespace (and lease) in every request,
//! its errors in our words.
//!
//! The channel connects when it is first used and again after containerd was away, so a
//! [`Client`] outlives any number of restarts of the daemon.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::{
    containers_client::ContainersClient, content_client::ContentClient, diff_client::DiffClient,
    events_client::EventsClient, images_client::ImagesClient, leases_client::LeasesClient,
    namespaces_client::NamespacesClient, snapshots::snapshots_client::SnapshotsClient,
    tasks_client::TasksClient, version_client::VersionClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

use super::launch;
use crate::runtime::{Error, Result};

/// The snapshotter whose snapshots are our root file systems.
pub const SNAPSHOTTER: &str = "overlayfs";

/// How long containerd may take to answer one call.
pub const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Largest message that we accept; lists of containers with their specs can be long.
const MESSAGE_MAX: usize = 64 << 20;

/// A channel that puts our headers into every request.
pub type Service = InterceptedService<Channel, Headers>;

/// What stands in front of every request.
#[derive(Clone)]
pub struct Headers {
    namespace: MetadataValue<Ascii>,
    lease: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.namespace.clone());
        if let Some(lease) = &self.lease {
            metadata.insert("containerd-lease", lease.clone());
        }
        Ok(request)
    }
}

/// Speaks to one containerd, in one of its namespaces.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
    namespace: String,
    address: PathBuf,
}

// === impl Client ===

impl Client {
    /// A client for the daemon at this socket; connects when first used.
    pub fn new(address: &Path, namespace: &str) -> Result<Self> {
        let headers = Headers {
            namespace: header(namespace)?,
            lease: None,
        };
        let socket = address.to_path_buf();
        // The URI is required and unused: the connector knows where to go.
        let channel = Endpoint::from_static("http://containerd").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }),
        );
        let namespace = namespace.to_owned();
        Ok(Self {
            channel,
            headers,
            namespace,
            address: address.to_path_buf(),
        })
    }

    /// The same connection, with what it makes held by this lease.
    pub fn leased(&self, lease: &str) -> Result<Self> {
        let mut client = self.clone();
        client.headers.lease = Some(header(lease)?);
        Ok(client)
    }

    /// Our containerd namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The daemon's socket.
    pub fn address(&self) -> &Path {
        &self.address
    }

    /// Container records.
    pub fn containers(&self) -> ContainersClient<Service> {
        ContainersClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX)
    }

    /// Running containers and their processes.
    pub fn tasks(&self) -> TasksClient<Service> {
        TasksClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX)
    }

    /// Blobs.
    pub fn content(&self) -> ContentClient<Service> {
        ContentClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX)
    }

    /// Image records.
    pub fn images(&self) -> ImagesClient<Service> {
        ImagesClient::with_interceptor(self.channel.clone(), self.headers.clone())
            .max_decoding_message_size(MESSAGE_MAX)
    }

    /// File systems.
    pub fn snapshots(&self) -> SnapshotsClient<Service> {
        SnapshotsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// Unpacks blobs into file systems.
    pub fn diff(&self) -> DiffClient<Service> {
        DiffClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// What keeps the garbage collector away.
    pub fn leases(&self) -> LeasesClient<Service> {
        LeasesClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// What happens.
    pub fn events(&self) -> EventsClient<Service> {
        EventsClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// containerd's namespaces.
    pub fn namespaces(&self) -> NamespacesClient<Service> {
        NamespacesClient::with_interceptor(self.channel.clone(), self.headers.clone())
    }

    /// The daemon's version.
    pub async fn version(&self) -> Result<String> {
        let mut service =
            VersionClient::with_interceptor(self.channel.clone(), self.headers.clone());
        let reply = self
            .call("asking for its version", service.version(()))
            .await?;
        let version = reply.version;
        // Debian writes `1.6.20~ds1`.
        let end = version.find('~').unwrap_or(version.len());
        Ok(version[..end].trim_start_matches('v').to_owned())
    }

    /// Waits for a reply, not for ever, and words what went wrong; `what` says what was tried,
    /// on what.
    pub async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        self.answer(what, call)
            .await?
            .map_err(|status| self.error(what, &status))
    }

    /// Waits for a reply, not for ever, and leaves containerd's status to the caller.
    pub async fn answer<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<std::result::Result<T, Status>> {
        match tokio::time::timeout(CALL_LIMIT, call).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(Error::Timeout {
                what: what.to_owned(),
                limit: CALL_LIMIT,
            }),
        }
    }

    /// [`Client::call`] for removals: that it does not exist is what was wanted.
    pub async fn call_gone_ok<T: Default>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        let tolerant = async {
            match call.await {
                Err(status) if status.code() == Code::NotFound => Ok(Response::new(T::default())),
                other => other,
            }
        };
        self.call(what, tolerant).await
    }

    /// [`Client::call`] for look-ups: `None` when it does not exist.
    pub async fn call_find<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<Option<T>> {
        let tolerant = async {
            match call.await {
                Err(status) if status.code() == Code::NotFound => Ok(Response::new(None)),
                other => other.map(|response| Response::new(Some(response.into_inner()))),
            }
        };
        self.call(what, tolerant).await
    }

    /// [`Client::call`] for creations: `None` when it exists already.
    pub async fn call_create<T>(
        &self,
        what: &str,
        call: impl Future<Output = std::result::Result<Response<T>, Status>>,
    ) -> Result<Option<T>> {
        let tolerant = async {
            match call.await {
                Err(status) if status.code() == Code::AlreadyExists => Ok(Response::new(None)),
                other => other.map(|response| Response::new(Some(response.into_inner()))),
            }
        };
        self.call(what, tolerant).await
    }

    /// containerd's status in our words.
    pub fn error(&self, what: &str, status: &Status) -> Error {
        // A status with a source is none of containerd's: the connection broke under the call.
        if status.code() == Code::Unavailable || std::error::Error::source(status).is_some() {
            return Error::Unavailable(format!(
                "cannot reach containerd at {}: {}; {}",
                self.address.display(),
                root_cause(status),
                launch::remedy(&self.address)
            ));
        }
        Error::Failed {
            what: what.to_owned(),
            reason: status.message().to_owned(),
        }
    }
}

/// The innermost source says "No such file or directory", the outermost only "transport error".
fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

fn header(value: &str) -> Result<MetadataValue<Ascii>> {
    value.parse().map_err(|_| {
        Error::Invalid(format!(
            "{value:?} cannot be a containerd namespace or lease"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_absent_daemon_is_named_with_its_socket_and_cause() {
        let client = Client::new(Path::new("/nonexistent/containerd.sock"), "peapod").unwrap();
        let error = client.version().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("/nonexistent/containerd.sock"), "{text}");
        assert!(text.contains("No such file or directory"), "{text}");
    }
}
