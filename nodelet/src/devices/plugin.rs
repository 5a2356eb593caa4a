//! One device plugin, as the node agent asks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::api::device_plugin_client::DevicePluginClient;
use super::api::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, ListAndWatchResponse,
    PreStartContainerRequest, PreferredAllocationRequest,
};
use super::pool::Offer;

/// Longest time to reach a plugin, and for its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Longest time for a device to be prepared for a container.
const PRE_START_LIMIT: Duration = Duration::from_secs(30);

/// A plugin that has registered.
#[derive(Debug)]
pub struct Plugin {
    client: DevicePluginClient<Channel>,
    options: DevicePluginOptions,
}

// === impl Plugin ===

impl Plugin {
    /// Reaches a plugin by its socket.
    pub async fn connect(socket: &Path) -> Result<Self, String> {
        let path = socket.to_path_buf();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let what = |error: &dyn std::fmt::Display| {
            format!("cannot reach it at {}: {error}", socket.display())
        };
        // The address is not used: what is connected to is the socket.
        let channel = Endpoint::from_static("http://plugin")
            .connect_timeout(LIMIT)
            .connect_with_connector(connector)
            .await
            .map_err(|error| what(&error))?;
        let mut client = DevicePluginClient::new(channel);
        let asked = client.get_device_plugin_options(limited(Empty {}, LIMIT));
        let options = asked.await.map_err(|status| what(&status.message()))?;
        Ok(Self {
            client,
            options: options.into_inner(),
        })
    }

    /// Its devices, all of them each time.
    pub async fn list_and_watch(&self) -> Result<tonic::Streaming<ListAndWatchResponse>, String> {
        let asked = self.client.clone().list_and_watch(Empty {}).await;
        asked.map(tonic::Response::into_inner).map_err(|s| said(&s))
    }

    /// Which devices it would rather give; none if it does not care.
    pub async fn preferred(&self, offer: &Offer, count: usize) -> Result<BTreeSet<String>, String> {
        if !self.options.get_preferred_allocation_available {
            return Ok(BTreeSet::new());
        }
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_ids: offer.available.iter().cloned().collect(),
                must_include_device_ids: offer.own.iter().take(count).cloned().collect(),
                allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
            }],
        };
        let mut client = self.client.clone();
        let asked = client.get_preferred_allocation(limited(request, LIMIT));
        let answer = asked.await.map_err(|status| said(&status))?.into_inner();
        let responses = answer.container_responses.into_iter();
        Ok(responses.flat_map(|response| response.device_ids).collect())
    }

    /// Gives devices to a container; what it needs for them.
    pub async fn allocate(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<ContainerAllocateResponse, String> {
        let request = AllocateRequest {
            container_requests: vec![ContainerAllocateRequest {
                devices_ids: ids.iter().cloned().collect(),
            }],
        };
        let mut client = self.client.clone();
        let asked = client.allocate(limited(request, LIMIT));
        let answer = asked.await.map_err(|status| said(&status))?.into_inner();
        let mut responses = answer.container_responses.into_iter();
        responses
            .next()
            .ok_or("it answered for no container".to_owned())
    }

    /// Lets it prepare devices right before a container starts, if it wants to.
    pub async fn pre_start(&self, ids: &BTreeSet<String>) -> Result<(), String> {
        if !self.options.pre_start_required {
            return Ok(());
        }
        let request = PreStartContainerRequest {
            devices_ids: ids.iter().cloned().collect(),
        };
        let mut client = self.client.clone();
        let asked = client.pre_start_container(limited(request, PRE_START_LIMIT));
        asked.await.map(drop).map_err(|status| said(&status))
    }
}

fn limited<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

fn said(status: &tonic::Status) -> String {
    format!("it said {:?}: {}", status.code(), status.message())
}
