//! The watches of the API, each a task that turns objects into facts.

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use peapod_api::k8s_openapi;
use peapod_api::labels::{DRAIN, LAST_CHANGE_TRIGGER};
use peapod_api::net::{BgpPeer, BgpPeerSpec, IpBlock, IpPool};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::until;
use crate::core::facts::{ServiceFacts, ServiceKey, SliceFacts};
use crate::core::neighbourhood::{BlockFacts, NodeFacts, PoolFacts};
use crate::fabric::plan::Drain;

/// Namespace and name of an EndpointSlice.
pub(crate) type SliceId = (String, String);

/// An EndpointSlice as it was seen.
#[derive(Debug)]
pub(crate) struct SeenSlice {
    pub(crate) id: SliceId,
    /// `None` when it says nothing to us.
    pub(crate) facts: Option<Arc<SliceFacts>>,
    /// When the first thing happened that it tells of.
    pub(crate) triggered: Option<Timestamp>,
}

/// What happened in the API. `None` for facts: an object that says nothing to us, as good as
/// deleted.
#[derive(Debug)]
pub(crate) enum Input {
    Service(watcher::Event<(ServiceKey, Option<Arc<ServiceFacts>>)>),
    Slice(watcher::Event<SeenSlice>),
    /// With its name.
    Node(watcher::Event<(String, NodeFacts)>),
    /// Our tables are not as we left them.
    TablesLost,
    /// With its name.
    Block(watcher::Event<(String, Option<BlockFacts>)>),
    /// With its name.
    Pool(watcher::Event<(String, Option<PoolFacts>)>),
    /// With its name, and the ranges that it has.
    ServiceCidr(watcher::Event<(String, Vec<IpNet>)>),
    /// With its name.
    Peer(watcher::Event<(String, Box<BgpPeerSpec>)>),
}

/// Starts a watch of each kind.
pub(crate) fn spawn(
    tasks: &mut JoinSet<()>,
    client: &Client,
    inputs: &mpsc::Sender<Input>,
    shutdown: &CancellationToken,
) {
    let services = watch(
        client,
        (Input::Service, inputs.clone()),
        |service: Service| {
            let key = ServiceKey {
                namespace: service.namespace().unwrap_or_default(),
                name: service.name_any(),
            };
            (
                key,
                ServiceFacts::of(&service).map(|(_, facts)| Arc::new(facts)),
            )
        },
    );
    until(tasks, shutdown, services);
    let slices = watch(
        client,
        (Input::Slice, inputs.clone()),
        |slice: EndpointSlice| {
            let triggered = slice.annotations().get(LAST_CHANGE_TRIGGER);
            SeenSlice {
                id: (slice.namespace().unwrap_or_default(), slice.name_any()),
                facts: SliceFacts::of(&slice).map(|(_, facts)| Arc::new(facts)),
                triggered: triggered.and_then(|at| at.parse().ok()),
            }
        },
    );
    until(tasks, shutdown, slices);
    let nodes = watch(client, (Input::Node, inputs.clone()), |node: Node| {
        let facts = NodeFacts {
            ips: node_addresses(&node),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            leaving: Drain::read(node.annotations().get(DRAIN).map(String::as_str)) != Drain::None,
        };
        (node.name_any(), facts)
    });
    until(tasks, shutdown, nodes);
    let blocks = watch(client, (Input::Block, inputs.clone()), |block: IpBlock| {
        let cidr: Option<IpNet> = block.spec.cidr.parse().ok();
        let facts = cidr.map(|cidr| BlockFacts {
            node: block.spec.node.clone(),
            cidr: cidr.trunc(),
            pool: block.spec.pool.clone(),
        });
        (block.name_any(), facts)
    });
    until(tasks, shutdown, blocks);
    let pools = watch(client, (Input::Pool, inputs.clone()), |pool: IpPool| {
        (pool.name_any(), PoolFacts::of(&pool.spec))
    });
    until(tasks, shutdown, pools);
    let ranges = watch(
        client,
        (Input::ServiceCidr, inputs.clone()),
        |range: ServiceCIDR| {
            let cidrs = range.spec.iter().flat_map(|spec| &spec.cidrs).flatten();
            let nets = cidrs.filter_map(|cidr| cidr.parse::<IpNet>().ok());
            (range.name_any(), nets.map(|net| net.trunc()).collect())
        },
    );
    until(tasks, shutdown, ranges);
    let peers = watch(client, (Input::Peer, inputs.clone()), |peer: BgpPeer| {
        (peer.name_any(), Box::new(peer.spec))
    });
    until(tasks, shutdown, peers);
}

/// Where events go, and as which input.
type Sink<T> = (fn(watcher::Event<T>) -> Input, mpsc::Sender<Input>);

/// Watches all objects of a kind for ever, and sends what `read` makes of them.
fn watch<K, T>(
    client: &Client,
    (input, inputs): Sink<T>,
    read: fn(K) -> T,
) -> impl Future<Output = ()> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    T: Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    async move {
        let config = watcher::Config::default().streaming_lists();
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => map(event, read),
                Err(error) => {
                    let kind = K::kind(&());
                    tracing::warn!(%kind, %error, "a watch broke and begins again");
                    continue;
                }
            };
            if inputs.send(input(event)).await.is_err() {
                return;
            }
        }
    }
}

fn map<K, T>(event: watcher::Event<K>, read: fn(K) -> T) -> watcher::Event<T> {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Init => Init,
        InitApply(object) => InitApply(read(object)),
        InitDone => InitDone,
        Apply(object) => Apply(read(object)),
        Delete(object) => Delete(read(object)),
    }
}

fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    addresses
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}
